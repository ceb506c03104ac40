"""Tests of the scores against closed forms and SciPy, on sets of points."""

import itertools

from absl.testing import parameterized
import numpy as np
import scipy.linalg
import scipy.spatial
import scipy.special
import tensorflow as tf

from vim_tf.metrics import generation


def _gaussian(rng, count, mean, covariance):
  """Points whose sample mean and covariance are exactly those asked for."""
  x = rng.normal(size=[count, len(mean)])
  x -= x.mean(0)
  x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
  return x @ np.linalg.cholesky(covariance).T + mean


class FrechetDistanceTest(tf.test.TestCase):
  def test_equals_closed_form_of_gaussians(self):
    rng = np.random.default_rng(0)
    mean_a, mean_b = rng.normal(size=[2, 6])
    cov_a, cov_b = (x @ x.T + np.eye(6) for x in rng.normal(size=[2, 6, 6]))
    a = _gaussian(rng, 300, mean_a, cov_a)
    b = _gaussian(rng, 200, mean_b, cov_b)
    expected = np.sum((mean_a - mean_b) ** 2) + np.trace(
      cov_a + cov_b - 2 * np.real(scipy.linalg.sqrtm(cov_a @ cov_b))
    )
    self.assertAllClose(generation.frechet_distance(a, b), expected)
    self.assertAllClose(generation.frechet_distance(b, a), expected)

  def test_fewer_images_than_features(self):
    rng = np.random.default_rng(1)
    few, fewer = rng.normal(size=[12, 40]), 2 + rng.normal(size=[9, 40])
    many = rng.normal(size=[90, 40]) @ rng.normal(size=[40, 40])
    for a, b in ((few, fewer), (fewer, few), (many, few), (fewer, many)):
      product = np.cov(a.T) @ np.cov(b.T)
      # The eigenvalues of the product are those of a matrix without negative
      # ones; their roots sum up to the trace of its root.
      roots = np.sqrt(np.maximum(np.real(np.linalg.eigvals(product)), 0))
      expected = (
        np.sum((a.mean(0) - b.mean(0)) ** 2)
        + np.var(a, axis=0, ddof=1).sum()
        + np.var(b, axis=0, ddof=1).sum()
        - 2 * roots.sum()
      )
      self.assertAllClose(
        generation.frechet_distance(a, b), expected, rtol=1e-4
      )


class CompareTest(tf.test.TestCase):
  def test_precision_and_recall_are_of_as_many_images_of_both(self):
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=[60, 3]), rng.normal(size=[20, 3]) + 1
    found = generation.compare(real, generated, 'n')
    expected = generation.precision_recall(real[::3], generated)
    self.assertAllEqual((found['precision_n'], found['recall_n']), expected)
    self.assertNotEqual(expected, generation.precision_recall(real, generated))


class KernelDistanceTest(tf.test.TestCase, parameterized.TestCase):
  def test_equals_unbiased_estimator(self):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=[20, 5]), 0.5 + rng.normal(size=[30, 5])

    def kernel(x, y):
      return (x @ y / 5 + 1) ** 3

    def mean(xs, ys):
      return np.mean([kernel(x, y) for x in xs for y in ys if x is not y])

    a_rows, b_rows = list(a), list(b)
    expected = mean(a_rows, a_rows) + mean(b_rows, b_rows)
    expected -= 2 * mean(a_rows, b_rows)
    self.assertAllClose(generation.kernel_distance(a, b)[0], expected)

  def test_few_images_have_no_error(self):
    a, b = np.random.default_rng(0).normal(size=[2, 10, 3])
    for count, finite in ((4, True), (3, False), (2, False)):
      for pair in ((a[:count], b), (a, b[:count])):
        distance, error = generation.kernel_distance(*pair)
        self.assertTrue(np.isfinite(distance))
        self.assertEqual(np.isfinite(error), finite)

  @parameterized.parameters(
    (50, 50, 1000, 0.0, 1.0),
    (30, 90, 1000, 0.0, 1.0),
    (50, 50, 1000, 0.2, 1.0),
    (90, 30, 1000, 1.0, 1.0),
    (50, 50, 1000, 0.0, 1.5),
    (120, 90, 40, 0.0, 1.0),
    (120, 90, 40, 0.5, 1.0),
  )
  def test_error_is_the_spread_of_many_sets(self, n, m, block, shift, scale):
    """Of sets that are alike, and of such that are not."""
    rng = np.random.default_rng(1)
    draws = [
      generation.kernel_distance(
        rng.normal(size=[n, 8]),
        shift + scale * rng.normal(size=[m, 8]),
        max_block_size=block,
      )
      for _ in range(300)
    ]
    distances, errors = np.array(draws).T
    spread = np.std(distances)
    self.assertBetween(np.mean(errors) / spread, 0.85, 1.2)
    if not shift and scale == 1:
      self.assertLess(abs(distances.mean()), 3 * spread / 300**0.5)
      self.assertLess(distances.min(), 0)

  def test_many_blocks(self):
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=[400, 3]), 1 + rng.normal(size=[230, 3])
    whole, _ = generation.kernel_distance(a, b)
    blocks, error = generation.kernel_distance(a, b, max_block_size=20)
    self.assertGreater(error, 0)
    self.assertAllClose(blocks, whole, atol=4 * error)

  def test_order_of_the_images_does_not_show(self):
    # Blocks of sorted sets would each compare different parts of them.
    a = np.sort(np.random.default_rng(3).normal(size=[400, 1]), axis=0)
    distance, error = generation.kernel_distance(a, -a, max_block_size=40)
    self.assertLess(abs(distance), 4 * error)


class ClassifierScoreTest(tf.test.TestCase):
  def test_known_scores(self):
    self.assertAllClose(generation.classifier_score(np.zeros([8, 5])), 1.0)
    certain = 100 * np.eye(5)[np.arange(20) % 5]
    self.assertAllClose(generation.classifier_score(certain), 5.0)

  def test_classes_that_cannot_be_add_nothing(self):
    logits = np.random.default_rng(1).normal(size=[30, 7])
    expected = generation.classifier_score(logits)
    for never in (-np.inf, -1e5):
      padded = np.pad(logits, [(0, 0), (0, 2)], constant_values=never)
      self.assertAllClose(generation.classifier_score(padded), expected)
    # As impossible for some images alone: two certain halves.
    halves = np.where(np.arange(8)[:, None] % 2 == [[0, 1]], 0.0, -np.inf)
    self.assertAllClose(generation.classifier_score(halves), 2.0)
    self.assertAllEqual(np.unique(halves), [-np.inf, 0.0])  # Left as it was.

  def test_equals_numpy(self):
    logits = np.random.default_rng(0).normal(size=[30, 7])
    p = scipy.special.softmax(logits, axis=1)
    divergence = np.sum(p * np.log(p / p.mean(0)), axis=1)
    self.assertAllClose(
      generation.classifier_score(logits.astype(np.float32)),
      np.exp(divergence.mean()),
    )


class PrecisionRecallTest(tf.test.TestCase):
  def test_known_on_a_line(self):
    # With k = 1 every real point reaches to 1 on either side: [-1, 4].
    real = np.arange(4.0)[:, None]
    generated = np.array([[-1.0], [3.5], [4.5], [9.0]])
    precision, recall = generation.precision_recall(
      real, generated, neighbors=1
    )
    # The reach of the generated: 4.5, 1, 1 and 4.5, so up to 3.5, and from
    # 2.5, and from 4.5: all real points are within.
    self.assertEqual(precision, 2 / 4)
    self.assertEqual(recall, 4 / 4)

  def test_chunks_equal_a_direct_computation(self):
    rng = np.random.default_rng(1)
    real, generated = rng.normal(size=[1100, 4]), rng.normal(size=[1050, 4]) + 1

    def radii(x):
      return np.sort(scipy.spatial.distance.cdist(x, x), axis=1)[:, 3]

    d = scipy.spatial.distance.cdist(real, generated)
    precision = np.mean(np.any(d <= radii(real)[:, None], axis=0))
    recall = np.mean(np.any(d <= radii(generated), axis=1))
    self.assertAllClose(
      generation.precision_recall(real, generated), (precision, recall)
    )


class ProtocolTest(tf.test.TestCase):
  def test_names_say_the_network(self):
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=[120, 4]), 3 + rng.normal(size=[60, 4])
    scores = generation.compare(real, generated, 'net')
    self.assertCountEqual(
      scores,
      ['fd_net', 'kd_net', 'kd_error_net', 'precision_net', 'recall_net'],
    )
    floors = generation.floor(real, 'net')
    self.assertEqual(floors.pop('floor_images_net'), 60)
    self.assertCountEqual(floors, [f'floor_{name}' for name in scores])
    self.assertLess(floors['floor_fd_net'], 0.1 * scores['fd_net'])
    self.assertLess(floors['floor_kd_net'], 0.1 * scores['kd_net'])
    self.assertGreater(floors['floor_precision_net'], 0.8)

  def test_halves_of_the_floor_are_disjoint(self):
    x = np.random.default_rng(1).normal(size=[8, 1])
    possible = []
    for chosen in itertools.combinations(range(8), 4):
      a, b = x[list(chosen)], np.delete(x, chosen, axis=0)
      possible.append(
        (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
      )
    for seed in range(5):
      found = generation.floor(x, 'n', seed=seed)
      difference = np.abs(found['floor_fd_n'] - np.array(possible))
      self.assertLess(difference.min(), 1e-6)

  def _reference(self):
    return generation.Reference(
      features=np.arange(12, dtype=np.float32).reshape(4, 3),
      network='net',
      source='sha256:abc',
      dataset='openmoji/base_64:17.0.0',
      split='validation',
      crop='center 64',
    )

  def test_reference_is_saved_and_loaded(self):
    path = self.create_tempfile('reference.npz').full_path
    reference = self._reference()
    reference.save(path)
    loaded = generation.Reference.load(path, network='net', count=4)
    self.assertAllEqual(loaded.features, reference.features)
    self.assertEqual(loaded.protocol(), reference.protocol())
    self.assertEqual(loaded.protocol()['count'], 4)

  def test_reference_of_another_protocol_is_refused(self):
    path = self.create_tempfile('reference.npz').full_path
    self._reference().save(path)
    for name, value in (('network', 'inception'), ('split', 'train')):
      with self.assertRaisesRegex(ValueError, f"{name} .* but '{value}' is"):
        generation.Reference.load(path, **{name: value})

  def test_damaged_references_are_refused(self):
    path = self.create_tempfile('reference.npz').full_path
    self._reference().save(path)
    with open(path, 'rb') as f:
      content = f.read()
    for damaged in (b'', b'abc', content[:-30], content[:60]):
      with open(path, 'wb') as f:
        f.write(damaged)
      with self.assertRaisesRegex(ValueError, 'make them again') as caught:
        generation.Reference.load(path)
      self.assertNotIn('\n', str(caught.exception))
    with self.assertRaisesRegex(ValueError, 'No such file'):
      generation.Reference.load('/no/such.npz')


if __name__ == '__main__':
  tf.test.main()
