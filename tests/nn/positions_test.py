"""Tests of the positions against closed forms."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import testing
from vim_tf.nn import positions


class SinCosTest(tf.test.TestCase):
  def test_equals_closed_form(self):
    grid, width = 3, 8
    table = positions.sincos_2d(grid, width)
    for row in range(grid):
      for column in range(grid):
        expected = [
          wave(coordinate / 10_000 ** (i / 2))
          for coordinate in (row, column)
          for wave in (np.sin, np.cos)
          for i in range(2)
        ]
        self.assertAllClose(table[row * grid + column], expected)


class GridPositionsTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters('learned', 'sincos', 'factorized')
  def test_conformance(self, kind):
    x = tf.random.stateless_normal([2, 9, 8], [1, 2])
    testing.check_layer(
      self, lambda **kwargs: positions.GridPositions(3, kind, **kwargs), (x,)
    )

  def test_learned_adds_its_table_to_the_first_positions(self):
    layer = positions.GridPositions(3, 'learned')
    x = tf.random.stateless_normal([2, 5, 8], [1, 2])
    found = layer(x)
    self.assertAllClose(found, x + layer.table[None, :5])

  def test_factorized_is_row_plus_column_in_raster_order(self):
    layer = positions.GridPositions(3, 'factorized')
    found = layer(tf.zeros([1, 9, 8]))[0]
    for i in range(9):
      row, column = divmod(i, 3)
      self.assertAllClose(
        found[i], layer.rows[row, 0] + layer.columns[0, column]
      )

  def test_sincos_adds_the_fixed_table(self):
    layer = positions.GridPositions(2, 'sincos')
    found = layer(tf.zeros([1, 4, 8]))
    self.assertAllClose(found[0], positions.sincos_2d(2, 8))


if __name__ == '__main__':
  tf.test.main()
