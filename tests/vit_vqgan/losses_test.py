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


def _softplus(x):
  return np.logaddexp(0, x)


def _relu(x):
  return np.maximum(0, x)


class AdversarialTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(((6,),), ((6, 3, 2),))
  def test_closed_forms(self, shape):
    real, fake = 3 * _normal(*shape), 3 * _normal(*shape)
    axes = tuple(range(1, len(shape)))
    expected = {
      'non_saturating': (
        _softplus(-fake),
        _softplus(-real) + _softplus(fake),
      ),
      'hinge': (-fake, _relu(1 - real) + _relu(1 + fake)),
    }
    self.assertCountEqual(losses.GAN_LOSSES, expected)
    for name, (generator, discriminator) in losses.GAN_LOSSES.items():
      for jit_compile in (False, True):
        compiled = [
          tf.function(f, jit_compile=jit_compile)
          for f in (generator, discriminator)
        ]
        self.assertAllClose(
          compiled[0](fake), expected[name][0].mean(axis=axes), atol=1e-5
        )
        self.assertAllClose(
          compiled[1](real, fake),
          expected[name][1].mean(axis=axes),
          atol=1e-5,
        )

  def test_bfloat16_logits_give_float32(self):
    logits = tf.constant([-300.0, 0.0, 300.0], tf.bfloat16)
    for generator, discriminator in losses.GAN_LOSSES.values():
      for loss in (generator(logits), discriminator(logits, logits)):
        self.assertEqual(loss.dtype, tf.float32)
        self.assertAllInRange(loss, -400.0, 700.0)

  def test_discriminator_gains_when_real_is_above_fake(self):
    high, low = tf.fill([2], 2.0), tf.fill([2], -2.0)
    for generator, discriminator in losses.GAN_LOSSES.values():
      self.assertAllLess(
        discriminator(high, low) - discriminator(low, high), 0.0
      )
      self.assertAllLess(generator(high) - generator(low), 0.0)

  @parameterized.parameters(False, True)
  def test_r1_equals_numerical_gradient(self, patches):
    kernel = tf.constant(_normal(12, 4), tf.float64)

    def discriminator(images):
      x = tf.reshape(tf.cast(images, tf.float64), [-1, 12])
      logits = tf.sin(x @ kernel)
      if patches:
        return tf.reshape(logits, [-1, 2, 2])
      return tf.reduce_sum(logits, axis=1)

    images = _images(3, 2, 2, 3).astype(np.float64)
    expected = np.zeros(3)
    for index in np.ndindex(2, 2, 3):
      step = np.zeros([2, 2, 3])
      step[index] = 1e-6
      difference = discriminator(images + step) - discriminator(images - step)
      difference = np.reshape(difference, [3, -1]).mean(axis=1)
      expected += (difference / 2e-6) ** 2
    penalty = losses.r1_penalty(discriminator, tf.constant(images))
    self.assertAllClose(penalty, expected, rtol=1e-4)

  def test_r1_can_be_differentiated(self):
    # D(x) = w . x^2 has R1 = 4 sum w^2 x^2, with gradient 8 w x^2 at w.
    w = tf.Variable(_normal(2, 2, 3))
    images = tf.constant(_images(1, 2, 2, 3))
    with tf.GradientTape() as tape:
      penalty = losses.r1_penalty(
        lambda x: tf.reduce_sum(w * x**2, axis=[1, 2, 3]), images
      )
    self.assertAllClose(
      tape.gradient(penalty, w), 8 * w * images[0] ** 2, rtol=1e-5
    )

  def test_adaptive_weight_is_a_capped_ratio_of_norms(self):
    gradient = [tf.constant([3.0, 0.0]), tf.constant([4.0])]
    other = tf.constant([0.0, 2.0])
    self.assertAllClose(losses.adaptive_weight(gradient, other), 5 / 2.0001)
    self.assertAllClose(
      losses.adaptive_weight(gradient, 0 * other, max_weight=7.0), 7.0
    )


if __name__ == '__main__':
  tf.test.main()
