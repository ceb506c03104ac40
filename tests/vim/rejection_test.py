"""Tests of rejection sampling against ranking all candidates at once."""

from absl.testing import absltest, parameterized
import numpy as np

from vim_tf.config import ConfigError
from vim_tf.vim import rejection

_CLASSES = 3


def _draw(ids, seeds):
  """An 'image' is its class and a number that hangs on seed and class."""
  values = np.array(
    [
      np.random.default_rng([int(seed), int(class_id)]).uniform()
      for class_id, seed in zip(ids, seeds)
    ]
  )
  codes = np.stack([ids, seeds], axis=1)
  return codes, np.stack([ids, values], axis=1)


def _score(images):
  """Likes large numbers for class 1, and small ones for the others."""
  value = images[:, 1]
  return np.stack([1 - value, value, (1 - value) / 2], axis=1)


class RejectionTest(parameterized.TestCase):
  def _sample(self, ids, **changes):
    settings = {'seed': 5, 'acceptance': 0.25, 'batch_size': 4, **changes}
    return rejection.sample(_draw, _score, np.array(ids), **settings)

  @parameterized.parameters(1, 4, 7, 100)
  def test_keeps_the_best_of_each_class(self, batch_size):
    wanted = [2, 1, 1, 2, 2]
    kept = self._sample(wanted, batch_size=batch_size)
    self.assertEqual(kept.num_candidates, 8 + 12)
    for class_id, places in ((1, [1, 2]), (2, [0, 3, 4])):
      seeds = np.array(
        [5 + 5 * i + place for i in range(4) for place in places]
      )
      ids = np.full([len(seeds)], class_id)
      _, images = _draw(ids, seeds)
      likelihood = _score(images)[:, class_id]
      order = np.argsort(-likelihood)[: wanted.count(class_id)]
      chosen = np.array(wanted) == class_id
      np.testing.assert_array_equal(kept.seeds[chosen], seeds[order])
      np.testing.assert_array_equal(kept.images[chosen], images[order])
      np.testing.assert_allclose(
        kept.probabilities[chosen], likelihood[order], rtol=1e-6
      )
    np.testing.assert_array_equal(kept.codes[:, 0], wanted)
    np.testing.assert_array_equal(kept.codes[:, 1], kept.seeds)

  def test_acceptance_1_is_plain_sampling(self):
    ids = np.array([2, 0, 1, 0, 2])
    kept = rejection.sample(
      _draw, None, ids, seed=9, acceptance=1.0, batch_size=2
    )
    codes, images = _draw(ids, 9 + np.arange(5))
    np.testing.assert_array_equal(kept.seeds, 9 + np.arange(5))
    np.testing.assert_array_equal(kept.codes, codes)
    np.testing.assert_array_equal(kept.images, images)
    self.assertTrue(np.all(np.isnan(kept.probabilities)))
    self.assertEqual(kept.num_candidates, 5)

  def test_a_kept_image_can_be_drawn_alone(self):
    ids = np.array([0, 1, 1])
    kept = self._sample(ids)
    codes, images = _draw(ids, kept.seeds)
    np.testing.assert_array_equal(kept.codes, codes)
    np.testing.assert_array_equal(kept.images, images)

  def test_a_lower_rate_keeps_likelier_images(self):
    means = [
      self._sample([0, 1, 2] * 30, acceptance=rate).probabilities.mean()
      for rate in (0.9, 0.5, 0.1)
    ]
    self.assertEqual(means, sorted(means))
    self.assertGreater(means[-1] - means[0], 0.2)

  def test_candidates_of_a_rate_are_among_those_of_a_lower_one(self):
    ids = np.array([3, 0, 3, 1])
    before = set()
    for rate in (1.0, 0.7, 0.5, 0.3, 0.1):
      found_ids, seeds = rejection.candidates(ids, seed=7, acceptance=rate)
      found = set(zip(found_ids.tolist(), seeds.tolist()))
      self.assertLen(found, len(seeds))
      self.assertContainsSubset(before, found)
      self.assertEqual(
        [np.sum(found_ids == i) for i in (0, 1, 3)],
        [rejection.num_candidates(count, rate) for count in (1, 1, 2)],
      )
      before = found

  @parameterized.parameters(
    (3, [3, 3, 3]), (5, [4, 4]), (7, [4, 4]), (8, [8]), (100, [8])
  )
  def test_draws_batches_of_one_size_no_larger_than_needed(self, most, sizes):
    found = []

    def draw(ids, seeds):
      found.append(len(ids))
      return _draw(ids, seeds)

    rejection.sample(
      draw, _score, np.array([0, 1]), seed=0, acceptance=0.3, batch_size=most
    )
    self.assertEqual(found, sizes)

  def test_the_earlier_of_equals_is_kept(self):
    kept = rejection.sample(
      _draw,
      lambda images: np.ones([len(images), 1]),
      np.array([0, 0]),
      seed=0,
      acceptance=0.1,
      batch_size=3,
    )
    np.testing.assert_array_equal(kept.seeds, [0, 1])

  def test_images_without_a_probability_come_last(self):
    def score(images):
      values = images[:, 1:2]
      return np.where(values < 0.9, np.nan, values)

    ids = np.zeros([4], int)
    kept = rejection.sample(
      _draw, score, ids, seed=0, acceptance=0.05, batch_size=8
    )
    self.assertTrue(np.all(kept.images[:, 1] >= 0.9))

  def test_number_of_candidates(self):
    self.assertEqual(rejection.num_candidates(3, 0.3), 10)
    self.assertEqual(rejection.num_candidates(3, 0.5), 6)
    self.assertEqual(rejection.num_candidates(1, 0.4), 3)
    self.assertEqual(rejection.num_candidates(7, 1.0), 7)

  @parameterized.parameters(0.0, -0.5, 1.01, float('nan'))
  def test_refuses_rates(self, rate):
    with self.assertRaisesRegex(ConfigError, r'acceptance is .*\(0, 1\]'):
      self._sample([0], acceptance=rate)

  def test_refuses_a_classifier_of_fewer_classes(self):
    with self.assertRaisesRegex(ConfigError, '3 classes apart, but class 3'):
      self._sample([0, _CLASSES])


if __name__ == '__main__':
  absltest.main()
