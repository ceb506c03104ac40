"""Tests of the distances of reconstructions against NumPy."""

import numpy as np
import scipy.ndimage
import tensorflow as tf

from vim_tf.metrics import reconstruction


def _images(batch=5, size=16, seed=0):
  rng = np.random.default_rng(seed)
  images = rng.uniform(size=[batch, size, size, 3])
  scale = np.linspace(0.01, 0.4, batch)[:, None, None, None]
  noisy = np.clip(images + scale * rng.normal(size=images.shape), 0, 1)
  return images.astype(np.float32), noisy.astype(np.float32)


def _reference_ssim(a, b) -> float:
  """SSIM of two images in NumPy, from the formulas of Wang et al."""
  offsets = np.arange(-5, 6)
  kernel = np.exp(-(offsets**2) / (2 * 1.5**2))
  kernel /= kernel.sum()

  def blur(x):
    for axis in (0, 1):
      x = scipy.ndimage.correlate1d(x, kernel, axis)
    return x[5:-5, 5:-5]  # Where the window lies within the image.

  a, b = a.astype(np.float64), b.astype(np.float64)
  mean_a, mean_b = blur(a), blur(b)
  var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
  cov = blur(a * b) - mean_a * mean_b
  c1, c2 = 0.01**2, 0.03**2
  numerator = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
  return np.mean(
    numerator / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
  )


class ReconstructionTest(tf.test.TestCase):
  def test_errors_equal_numpy(self):
    a, b = _images()
    difference = a.astype(np.float64) - b
    squares = (difference**2).mean((1, 2, 3))
    self.assertAllClose(
      reconstruction.l1(a, b), np.abs(difference).mean((1, 2, 3))
    )
    self.assertAllClose(reconstruction.l2(a, b), squares)
    self.assertAllClose(reconstruction.psnr(a, b), -10 * np.log10(squares))

  def test_equal_images_have_the_finite_cap(self):
    a, _ = _images()
    self.assertAllClose(
      reconstruction.psnr(a, a), np.full(5, reconstruction.MAX_PSNR)
    )

  def test_ssim_equals_second_implementation(self):
    a, b = _images(size=20)
    expected = [_reference_ssim(x, y) for x, y in zip(a, b)]
    self.assertAllClose(reconstruction.ssim(a, b), expected, atol=1e-5)
    self.assertAllClose(reconstruction.ssim(a, a), np.ones(5))

  def test_small_images_have_no_ssim(self):
    a, b = _images(size=10)
    self.assertCountEqual(reconstruction.per_image(a, b), ['l1', 'l2', 'psnr'])

  def test_shapes_are_not_broadcast(self):
    a, b = _images()
    with self.assertRaisesRegex(ValueError, 'same shape'):
      reconstruction.l2(a, b[:1])

  def test_per_image_in_a_function_and_in_bfloat16(self):
    a, b = _images()
    expected = reconstruction.per_image(a, b)
    compiled = tf.function(reconstruction.per_image)(a, b)
    self.assertAllClose(compiled, expected)
    half = reconstruction.per_image(
      tf.cast(a, tf.bfloat16), tf.cast(b, tf.bfloat16)
    )
    for name, values in half.items():
      self.assertEqual(values.dtype, tf.float32)
      self.assertAllClose(values, expected[name], rtol=0.1)


class MeanAccumulatorTest(tf.test.TestCase):
  def test_an_empty_evaluation_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'at least one image'):
      reconstruction.MeanAccumulator().result()


if __name__ == '__main__':
  tf.test.main()
