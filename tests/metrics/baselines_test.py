"""Tests of the baselines: known codebooks, and entropies of known sources."""

import itertools

from absl.testing import absltest
import numpy as np
import sklearn.datasets

from vim_tf.metrics import baselines


def _photo_tiles(size=32):
  """Tiles of two photographs, `[n, size, size, 3]` in [0, 1]."""
  tiles = []
  for name in ('china.jpg', 'flower.jpg'):
    photo = sklearn.datasets.load_sample_image(name)[:416:2, :640:2] / 255.0
    for y in range(0, photo.shape[0] - size + 1, size):
      for x in range(0, photo.shape[1] - size + 1, size):
        tiles.append(photo[y : y + size, x : x + size])
  return np.array(tiles, np.float32)


def _error(images, codebook, patch_size):
  rebuilt = baselines.reconstruct(images, codebook, patch_size)
  return np.mean((rebuilt - images) ** 2)


class KMeansTest(absltest.TestCase):
  def test_patches_in_raster_order_and_back(self):
    images = np.random.default_rng(0).uniform(size=[2, 6, 9, 3])
    patches = baselines.extract_patches(images, 3)
    self.assertEqual(patches.shape, (2, 6, 27))
    np.testing.assert_array_equal(
      patches[1, 4].reshape(3, 3, 3), images[1, 3:6, 3:6]
    )
    np.testing.assert_array_equal(
      baselines.assemble_patches(patches, 6, 9, 3), images
    )

  def test_few_different_patches_are_kept_exactly(self):
    rng = np.random.default_rng(1)
    alphabet = rng.uniform(size=[7, 4 * 4 * 3]).astype(np.float32)
    codes = rng.integers(0, 7, size=[30, 4])
    images = baselines.assemble_patches(alphabet[codes], 8, 8, 4)
    codebook = baselines.patch_codebook(images, 16, 4)
    self.assertLen(codebook, 7)
    rebuilt = baselines.reconstruct(images, codebook, 4)
    np.testing.assert_array_equal(rebuilt, images)

  def test_finds_separate_clusters(self):
    rng = np.random.default_rng(2)
    centers = rng.uniform(size=[12, 2 * 2 * 3])
    codes = rng.integers(0, 12, size=[200, 16])
    patches = centers[codes] + 0.001 * rng.normal(size=[200, 16, 12])
    images = baselines.assemble_patches(patches, 8, 8, 2)
    codebook = baselines.patch_codebook(images, 12, 2)
    self.assertLess(_error(images, codebook, 2), 1.1 * 0.001**2)

  def test_common_patch_takes_one_code_only(self):
    rng = np.random.default_rng(3)
    images = np.ones([100, 8, 8, 3], np.float32)
    images[:, :4, :4] = rng.uniform(size=[100, 4, 4, 3])
    codebook = baselines.patch_codebook(images, 32, 4)
    white = np.all(np.abs(codebook - 1) < 1e-6, axis=1)
    self.assertEqual(white.sum(), 1)
    rebuilt = baselines.reconstruct(images, codebook, 4)
    np.testing.assert_allclose(rebuilt[:, 4:], 1, atol=1e-6)

  def test_weights_mean_all_patches_count(self):
    # One code for patches 0 (nine times) and 1 (once): their mean is 0.1.
    images = np.zeros([10, 2, 2, 3], np.float32)
    images[0] = 1
    codebook = baselines.patch_codebook(images, 1, 2)
    np.testing.assert_allclose(codebook, np.full([1, 12], 0.1), rtol=1e-5)

  def test_the_nearest_code_is_taken_and_codes_are_stationary(self):
    tiles = _photo_tiles()
    codebook = baselines.patch_codebook(tiles, 16, 8, max_iterations=300)
    rebuilt = baselines.reconstruct(tiles, codebook, 8)
    patches = baselines.extract_patches(tiles, 8)
    distances = np.linalg.norm(
      patches[:, :, None].astype(np.float64) - codebook, axis=-1
    )
    chosen = np.linalg.norm(
      patches - baselines.extract_patches(rebuilt, 8), axis=-1
    )
    np.testing.assert_allclose(chosen, distances.min(axis=-1), rtol=1e-5)
    codes = distances.argmin(axis=-1)
    # At rest, each code is the mean of the patches that chose it.
    for code in range(16):
      np.testing.assert_allclose(
        codebook[code], patches[codes == code].mean(axis=0), atol=0.02
      )

  def test_seed_decides(self):
    tiles = _photo_tiles()[:40]
    fits = [baselines.patch_codebook(tiles, 8, 8, seed=s) for s in (0, 0, 1)]
    np.testing.assert_array_equal(fits[0], fits[1])
    self.assertGreater(np.abs(fits[0] - fits[2]).max(), 0)

  def test_a_part_of_the_patches_suffices(self):
    tiles = _photo_tiles()
    part = baselines.patch_codebook(tiles, 16, 8, max_patches=400)
    whole = baselines.patch_codebook(tiles, 16, 8)
    errors = [_error(tiles, codebook, 8) for codebook in (part, whole)]
    self.assertLess(errors[0], 1.2 * errors[1])


def _markov(rng, transitions, images, length):
  """Codes of a Markov chain, the first one drawn uniformly."""
  cumulative = transitions.cumsum(axis=1)
  codes = np.zeros([images, length], np.int32)
  codes[:, 0] = rng.integers(0, len(transitions), size=images)
  for i in range(1, length):
    draws = rng.uniform(size=[images, 1])
    codes[:, i] = (draws > cumulative[codes[:, i - 1]]).sum(axis=1)
  return codes


class NgramTest(absltest.TestCase):
  def test_uniform_codes_cost_log2_of_their_number(self):
    rng = np.random.default_rng(0)
    train, test = rng.integers(0, 64, size=[2, 400, 64], dtype=np.int32)
    scores = baselines.reference_bits_per_code(train, test, 64)
    # Order 1 could only overfit: its smoothing must find that out.
    self.assertAlmostEqual(scores['order0_bits_per_code'], 6.0, delta=0.01)
    self.assertAlmostEqual(scores['order1_bits_per_code'], 6.0, delta=0.02)

  def test_cycle_costs_nothing_but_its_start(self):
    starts = np.random.default_rng(2).integers(0, 16, size=[200, 1])
    codes = (starts + np.arange(64)) % 16
    scores = baselines.reference_bits_per_code(codes[:100], codes[100:], 16)
    self.assertAlmostEqual(scores['order0_bits_per_code'], 4.0, delta=0.01)
    # Four bits for one code of 64 are all that is left.
    self.assertAlmostEqual(scores['order1_bits_per_code'], 4 / 64, delta=0.02)

  def test_markov_chain_costs_its_entropy_rate(self):
    rng = np.random.default_rng(3)
    transitions = rng.dirichlet(np.full(12, 0.3), size=12)
    values, vectors = np.linalg.eig(transitions.T)
    stationary = np.real(vectors[:, np.argmax(np.real(values))])
    stationary /= stationary.sum()
    log2 = np.log2(transitions, where=transitions > 0, out=0 * transitions)
    rate = -np.sum(stationary[:, None] * transitions * log2)
    codes = _markov(rng, transitions, images=600, length=200)
    scores = baselines.reference_bits_per_code(codes[:300], codes[300:], 12)
    self.assertAlmostEqual(scores['order1_bits_per_code'], rate, delta=0.03)
    self.assertGreater(scores['order0_bits_per_code'], rate + 0.3)

  def test_probabilities_sum_to_one(self):
    train = np.array([[0, 1, 1], [2, 0, 1], [0, 0, 3], [1, 1, 1]])
    everything = np.array(list(itertools.product(range(5), repeat=3)))
    for model in (
      baselines.Order0.fit(train, 5),
      baselines.Order1.fit(train, 5),
    ):
      bits = [3 * model.bits_per_code(codes[None]) for codes in everything]
      self.assertAlmostEqual(np.sum(2.0 ** -np.array(bits)), 1.0)

  def test_smoothing_is_the_written_formula(self):
    train = np.array([[0, 1, 0, 1], [1, 0, 1, 2]])
    order0 = baselines.Order0(train, 4, alpha=0.5)
    np.testing.assert_allclose(
      order0.probabilities, np.array([3.5, 4.5, 1.5, 0.5]) / 10
    )
    order1 = baselines.Order1(train, order0, strength=2.0)
    # Start before 0 (once of two), 0 before 1 (three of three), 1 before 3
    # (never of three; the last code of an image is no context).
    p = [(1 + 2 * 0.35) / 4, (3 + 2 * 0.45) / 5, (0 + 2 * 0.05) / 5]
    self.assertAlmostEqual(
      order1.bits_per_code(np.array([[0, 1, 3]])), -np.mean(np.log2(p))
    )

  def test_unseen_codes_cost_finitely_many_bits(self):
    train = np.zeros([20, 4], np.int32)
    scores = baselines.reference_bits_per_code(train, train + 7, 8192)
    for bits in scores.values():
      self.assertGreater(bits, 10.0)
      self.assertTrue(np.isfinite(bits))

  def test_one_image_is_enough(self):
    codes = np.array([[3, 1, 2, 0]])
    for bits in baselines.reference_bits_per_code(codes, codes, 4).values():
      self.assertLess(bits, 2.01)

  def test_codes_of_another_codebook_are_refused(self):
    codes = np.zeros([3, 4], np.int32)
    with self.assertRaisesRegex(ValueError, 'codebook has 4'):
      baselines.Order1.fit(codes + 4, 4)


if __name__ == '__main__':
  absltest.main()
