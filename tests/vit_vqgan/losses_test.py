"""Tests of the stage-1 loss terms against NumPy, SciPy and closed forms."""

from absl.testing import parameterized
import numpy as np
import scipy.integrate
import scipy.special
import tensorflow as tf

from vim_tf.vit_vqgan import losses

_RNG = np.random.default_rng(0)


def _images(*shape) -> np.ndarray:
  return _RNG.uniform(size=shape).astype(np.float32)


def _normal(*shape) -> np.ndarray:
  return _RNG.normal(size=shape).astype(np.float32)


class LogitLaplaceTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(0.1, 0.02)
  def test_squeeze_is_undone_and_stays_inside(self, epsilon):
    x = np.linspace(0, 1, 11, dtype=np.float32)
    squeezed = losses.squeeze(x, epsilon=epsilon)
    self.assertAllClose(squeezed[0], epsilon)
    self.assertAllClose(squeezed[-1], 1 - epsilon)
    self.assertAllClose(losses.unsqueeze(squeezed, epsilon=epsilon), x)

  @parameterized.parameters(
    (0.0, 0.2), (1.5, 0.1), (-2.0, 0.5), (0.3, 0.02), (3.0, 0.3)
  )
  def test_density_integrates_to_one(self, mu, scale):
    def density(x):
      image = tf.reshape(losses.unsqueeze(np.float32(x)), [1, 1, 1, 1])
      nll = losses.logit_laplace_nll(
        image,
        tf.constant(mu, shape=[1, 1, 1, 1]),
        tf.constant(np.log(scale), tf.float32, shape=[1, 1, 1, 1]),
      )
      return float(np.exp(-nll[0]))

    # The mass lies within 12 scales of mu on the logit scale; the density has
    # a kink there, so the two halves are integrated apart.
    low, middle, high = scipy.special.expit(
      [mu - 12 * scale, mu, mu + 12 * scale]
    )
    total = sum(
      scipy.integrate.quad(density, *ends, epsabs=1e-5, epsrel=1e-4)[0]
      for ends in ((low, middle), (middle, high))
    )
    self.assertAllClose(total, 1.0, atol=2e-3)

  def test_equals_numpy_reference(self):
    images = _images(4, 8, 8, 3)
    mu, log_scale = _normal(4, 8, 8, 3), _normal(4, 8, 8, 3)
    x = 0.8 * images.astype(np.float64) + 0.1
    b = np.exp(log_scale)
    density = np.exp(-np.abs(scipy.special.logit(x) - mu) / b)
    density /= 2 * b * x * (1 - x)
    self.assertAllClose(
      losses.logit_laplace_nll(images, mu, log_scale),
      -np.log(density).mean(axis=(1, 2, 3)),
      rtol=1e-5,
    )

  def test_scale_is_bounded_below_but_can_rise(self):
    log_scale = tf.fill([1, 1, 1, 2], -50.0)
    # The first value is met exactly and wants b smaller still; the second is
    # missed by far and wants b larger.
    images, mu = tf.fill([1, 1, 1, 2], 0.5), tf.constant([[[[0.0, 9.0]]]])
    with tf.GradientTape() as tape:
      tape.watch(log_scale)
      nll = losses.logit_laplace_nll(images, mu, log_scale)
    gradient = tape.gradient(nll, log_scale)
    self.assertAllClose(
      nll[0], np.log(2) - 5 + 2 * np.log(0.5) + 9 * np.exp(5) / 2, rtol=1e-5
    )
    self.assertEqual(gradient[0, 0, 0, 0], 0.0)
    self.assertLess(gradient[0, 0, 0, 1], 0.0)

  def test_extreme_inputs_stay_finite(self):
    images = np.array([0.0, 1.0, 0.0, 1.0], np.float32).reshape(1, 2, 2, 1)
    mu = tf.constant([80.0, -80.0, -80.0, 80.0], tf.bfloat16, [1, 2, 2, 1])
    log_scale = tf.constant([-80.0, 80.0, 0.0, -80], tf.bfloat16, [1, 2, 2, 1])
    with tf.GradientTape() as tape:
      tape.watch([mu, log_scale])
      nll = losses.logit_laplace_nll(images, mu, log_scale)
    self.assertEqual(nll.dtype, tf.float32)
    for x in (nll, *tape.gradient(nll, [mu, log_scale])):
      self.assertAllInRange(tf.cast(x, tf.float32), -1e6, 1e6)


class PixelAndCodeTest(tf.test.TestCase):
  def test_pixel_means(self):
    a, b = _images(3, 4, 4, 3), _images(3, 4, 4, 3)
    self.assertAllClose(losses.l1(a, b), np.abs(a - b).mean(axis=(1, 2, 3)))
    self.assertAllClose(losses.l2(a, b), ((a - b) ** 2).mean(axis=(1, 2, 3)))

  def test_commitment_reaches_the_encoder_only(self):
    z, e = tf.constant(_normal(2, 5, 4)), tf.constant(_normal(2, 5, 4))
    with tf.GradientTape() as tape:
      tape.watch([z, e])
      loss = losses.commitment(z, e)
    dz, de = tape.gradient(loss, [z, e])
    self.assertAllClose(loss, np.mean((z - e) ** 2, axis=(1, 2)))
    self.assertAllClose(dz, 2 * (z - e) / 20)
    self.assertIsNone(de)

  def test_codebook_reaches_the_codes_only(self):
    z, e = tf.constant(_normal(2, 5, 4)), tf.constant(_normal(2, 5, 4))
    with tf.GradientTape() as tape:
      tape.watch([z, e])
      loss = losses.codebook(z, e)
    dz, de = tape.gradient(loss, [z, e])
    self.assertAllClose(loss, np.mean((z - e) ** 2, axis=(1, 2)))
    self.assertAllClose(de, 2 * (e - z) / 20)
    self.assertIsNone(dz)


if __name__ == '__main__':
  tf.test.main()
