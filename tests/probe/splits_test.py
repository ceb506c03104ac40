"""The validation part: shares, groups, seeds; labels that are refused."""

from absl.testing import absltest
import numpy as np

from vim_tf.probe import splits

_LABELS = np.repeat([0, 1, 2], [50, 20, 5])


class HoldOutTest(absltest.TestCase):
  def test_same_share_of_each_class(self):
    chosen = splits.hold_out(_LABELS, None, 0.2, seed=0)
    np.testing.assert_array_equal(np.bincount(_LABELS[chosen]), [10, 4, 1])

  def test_follows_the_seed(self):
    one, again, other = (
      splits.hold_out(_LABELS, None, 0.2, seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    self.assertTrue((one != other).any())

  def test_groups_stay_together(self):
    groups = np.arange(75) // 5  # The classes begin at multiples of five.
    for seed in range(5):
      chosen = splits.hold_out(_LABELS, groups, 0.2, seed)
      by_group = chosen.reshape(15, 5)
      np.testing.assert_array_equal(by_group.all(axis=1), by_group.any(axis=1))
      # The class of one group keeps it.
      np.testing.assert_array_equal(
        np.bincount(_LABELS[chosen], minlength=3), [10, 5, 0]
      )

  def test_a_class_is_never_taken_whole(self):
    chosen = splits.hold_out(np.array([0, 0, 1, 2, 2, 2]), None, 0.9, seed=0)
    self.assertEqual(chosen.tolist().count(True), 3)
    self.assertFalse(chosen[2])


class DrawLabelledTest(absltest.TestCase):
  def test_as_many_of_each_class(self):
    drawn = splits.draw_labelled(_LABELS, 8, seed=3)
    np.testing.assert_array_equal(np.bincount(_LABELS[drawn]), [8, 8, 5])
    self.assertLen(set(drawn), 21)
    np.testing.assert_array_equal(drawn, np.sort(drawn))

  def test_follows_the_seed(self):
    one, again, other = (
      splits.draw_labelled(_LABELS, 8, seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    self.assertNotEqual(one.tolist(), other.tolist())


if __name__ == '__main__':
  absltest.main()
