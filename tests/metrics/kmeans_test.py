"""Tests of the k-means baseline on images whose best codebook is known."""

from absl.testing import absltest
import numpy as np
import sklearn.datasets

from vim_tf.metrics import kmeans


def _photo_tiles(size=32):
  """Tiles of two photographs, `[n, size, size, 3]` in [0, 1]."""
  tiles = []
  for name in ('china.jpg', 'flower.jpg'):
    photo = sklearn.datasets.load_sample_image(name)[:416:2, :640:2] / 255.0
    for y in range(0, photo.shape[0] - size + 1, size):
      for x in range(0, photo.shape[1] - size + 1, size):
        tiles.append(photo[y : y + size, x : x + size])
  return np.array(tiles, np.float32)


class KMeansTest(absltest.TestCase):
  def test_patches_in_raster_order_and_back(self):
    images = np.random.default_rng(0).uniform(size=[2, 6, 9, 3])
    patches = kmeans.extract_patches(images, 3)
    self.assertEqual(patches.shape, (2, 6, 27))
    np.testing.assert_array_equal(
      patches[1, 4].reshape(3, 3, 3), images[1, 3:6, 3:6]
    )
    np.testing.assert_array_equal(
      kmeans.assemble_patches(patches, 6, 9, 3), images
    )

  def test_few_different_patches_are_kept_exactly(self):
    rng = np.random.default_rng(1)
    alphabet = rng.uniform(size=[7, 4 * 4 * 3]).astype(np.float32)
    codes = rng.integers(0, 7, size=[30, 4])
    images = kmeans.assemble_patches(alphabet[codes], 8, 8, 4)
    model = kmeans.PatchKMeans(16, 4).fit(images)
    self.assertLen(model.codebook, 7)
    np.testing.assert_array_equal(model.reconstruct(images), images)

  def test_finds_separate_clusters(self):
    rng = np.random.default_rng(2)
    centers = rng.uniform(size=[12, 2 * 2 * 3])
    codes = rng.integers(0, 12, size=[200, 16])
    patches = centers[codes] + 0.001 * rng.normal(size=[200, 16, 12])
    images = kmeans.assemble_patches(patches, 8, 8, 2)
    model = kmeans.PatchKMeans(12, 2).fit(images)
    error = np.mean((model.reconstruct(images) - images) ** 2)
    self.assertLess(error, 1.1 * 0.001**2)

  def test_common_patch_takes_one_code_only(self):
    rng = np.random.default_rng(3)
    images = np.ones([100, 8, 8, 3], np.float32)
    images[:, :4, :4] = rng.uniform(size=[100, 4, 4, 3])
    model = kmeans.PatchKMeans(32, 4).fit(images)
    white = np.all(np.abs(model.codebook - 1) < 1e-6, axis=1)
    self.assertEqual(white.sum(), 1)
    np.testing.assert_allclose(model.reconstruct(images)[:, 4:], 1, atol=1e-6)

  def test_weights_mean_all_patches_count(self):
    # One code for patches 0 (nine times) and 1 (once): their mean is 0.1.
    images = np.zeros([10, 2, 2, 3], np.float32)
    images[0] = 1
    model = kmeans.PatchKMeans(1, 2).fit(images)
    np.testing.assert_allclose(model.codebook, np.full([1, 12], 0.1), rtol=1e-5)

  def test_encode_is_nearest_and_codes_are_stationary(self):
    tiles = _photo_tiles()
    model = kmeans.PatchKMeans(16, 8, max_iterations=300).fit(tiles)
    codes = model.encode(tiles)
    self.assertEqual(codes.dtype, np.int32)
    patches = kmeans.extract_patches(tiles, 8)
    distances = np.linalg.norm(
      patches[:, :, None].astype(np.float64) - model.codebook, axis=-1
    )
    chosen = np.take_along_axis(distances, codes[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(chosen, distances.min(axis=-1), rtol=1e-5)
    # At rest, each code is the mean of the patches that chose it.
    for code in range(16):
      np.testing.assert_allclose(
        model.codebook[code], patches[codes == code].mean(axis=0), atol=0.02
      )

  def test_more_codes_reconstruct_unseen_images_better(self):
    tiles = np.random.default_rng(4).permutation(_photo_tiles())
    train, test = tiles[:-20], tiles[-20:]
    errors = [
      np.mean(
        (kmeans.PatchKMeans(k, 8).fit(train).reconstruct(test) - test) ** 2
      )
      for k in (1, 16, 128)
    ]
    self.assertEqual(errors, sorted(errors, reverse=True))
    np.testing.assert_allclose(errors[0], np.var(test), rtol=0.5)

  def test_seed_decides(self):
    tiles = _photo_tiles()[:40]
    fits = [kmeans.PatchKMeans(8, 8, seed=s).fit(tiles) for s in (0, 0, 1)]
    np.testing.assert_array_equal(fits[0].codebook, fits[1].codebook)
    self.assertGreater(np.abs(fits[0].codebook - fits[2].codebook).max(), 0)

  def test_a_part_of_the_patches_suffices(self):
    tiles = _photo_tiles()
    model = kmeans.PatchKMeans(16, 8, max_patches=400).fit(tiles)
    whole = kmeans.PatchKMeans(16, 8).fit(tiles)
    errors = [
      np.mean((m.reconstruct(tiles) - tiles) ** 2) for m in (model, whole)
    ]
    self.assertLess(errors[0], 1.2 * errors[1])

  def test_bad_input_is_refused(self):
    with self.assertRaisesRegex(ValueError, '10x8 pixels.*patches of 4x4'):
      kmeans.PatchKMeans(4, 4).fit(np.zeros([1, 10, 8, 3]))
    with self.assertRaisesRegex(ValueError, '0 images'):
      kmeans.PatchKMeans(4, 4).fit(np.zeros([0, 8, 8, 3]))
    with self.assertRaisesRegex(ValueError, 'at least 1'):
      kmeans.PatchKMeans(0, 4)
    with self.assertRaisesRegex(ValueError, 'call fit first'):
      kmeans.PatchKMeans(4, 4).encode(np.zeros([1, 8, 8, 3]))


if __name__ == '__main__':
  absltest.main()
