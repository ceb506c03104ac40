"""Grids of images: places, names, and nothing but images."""

from absl.testing import absltest, parameterized
import numpy as np

from vim_tf.jobs import pictures

_GAP, _CAPTION = 2, 14
_HEIGHT, _WIDTH = 8, 40


def _images(count: int) -> np.ndarray:
  """Plain images, each of a gray of its own, none white."""
  grays = np.linspace(0.1, 0.6, count)[:, None, None, None]
  return np.broadcast_to(grays, [count, _HEIGHT, _WIDTH, 3])


class GridTest(parameterized.TestCase):
  def cut(self, grid: np.ndarray, row: int, column: int, above: int):
    """An image of a grid, and the strip above it."""
    top = above + _GAP + row * (_HEIGHT + above + _GAP)
    left = _GAP + column * (_WIDTH + _GAP)
    right = left + _WIDTH
    return grid[top : top + _HEIGHT, left:right], grid[
      top - above : top, left:right
    ]

  @parameterized.parameters(([],), (['a', 'a', 'a', 'b', 'c'],))
  def test_every_image_is_in_its_place(self, names):
    images = _images(5)
    grid = pictures.grid(images, 3, names)
    above = _CAPTION if names else 0
    self.assertEqual(grid.shape, (2 * (8 + 2 + above) + 2, 3 * 42 + 2, 3))
    for i in range(5):
      found, _ = self.cut(grid, i // 3, i % 3, above)
      np.testing.assert_array_equal(found, np.rint(images[i] * 255))
    empty, strip = self.cut(grid, 1, 2, above)
    self.assertTrue((empty == 255).all() and (strip == 255).all())

  def test_a_name_once_above_its_images(self):
    grid = pictures.grid(_images(6), 3, ['cats', 'cats', 'dogs'] + 3 * ['emus'])
    inked = [
      [(self.cut(grid, i, j, _CAPTION)[1] < 128).any() for j in range(3)]
      for i in range(2)
    ]
    self.assertEqual(inked, [[True, False, True], [True, False, False]])
    same = pictures.grid(_images(6), 3, ['dogs', 'dogs', 'cats'] + 3 * ['x'])
    _, one = self.cut(grid, 0, 2, _CAPTION)
    _, other = self.cut(same, 0, 0, _CAPTION)
    np.testing.assert_array_equal(one, other)  # The same name, the same text.

  @parameterized.parameters('W' * 300, 'ж 猫 é', '', 'ﬁ\u200b')
  def test_any_name(self, name):
    grid = pictures.grid(_images(2), 2, [name, 'other'])
    _, strip = self.cut(grid, 0, 0, _CAPTION)
    self.assertEqual((strip < 200).any(), bool(name))
    between = grid[_GAP : _GAP + _CAPTION, _GAP + _WIDTH : 2 * _GAP + _WIDTH]
    self.assertTrue((between == 255).all())  # It is cut where the next begins.


if __name__ == '__main__':
  absltest.main()
