"""Tests of the stage-1 loss terms against NumPy, SciPy and closed forms."""

import decimal

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


def _column(values) -> tf.Tensor:
  """One image of one value each: `[count, 1, 1, 1]`."""
  return tf.reshape(tf.constant(values, tf.float32), [-1, 1, 1, 1])


def _nll_and_slopes(images, mu, log_scale, **kwargs):
  """Values, and slopes along mu and log_scale, of one element each."""
  mu, log_scale = tf.convert_to_tensor(mu), tf.convert_to_tensor(log_scale)
  with tf.GradientTape() as tape:
    tape.watch([mu, log_scale])
    nll = losses.logit_laplace_nll(images, mu, log_scale, **kwargs)
  return nll, *(x[:, 0, 0, 0] for x in tape.gradient(nll, [mu, log_scale]))


def _exact_nll(image: float, mu, log_scale) -> decimal.Decimal:
  """-log of a difference of two Laplace CDFs, with 60 digits."""
  image, mu, log_scale = map(decimal.Decimal, (image, mu, log_scale))
  half = 1 / decimal.Decimal(510)

  def place(value):
    x = (8 * value + 1) / 10
    return ((x / (1 - x)).ln() - mu) / log_scale.exp()

  low, high = place(image - half), place(image + half)
  if low + high > 0:  # The mirrored bin has the same mass, small beside 1.
    low, high, image = -high, -low, 1 - image

  def cdf(u):
    return u.exp() / 2 if u < 0 else 1 - (-u).exp() / 2

  mass = 1 if image > 1 - half else cdf(high)
  return -(mass - (0 if image < half else cdf(low))).ln()


class BinnedLogitLaplaceTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(
    (0.0, -1.0), (2.3, -4.0), (-2.1, 0.5), (5.0, -5.0), (0.7, -9.0), (0, 30.0)
  )
  def test_256_levels_sum_to_one(self, mu, log_scale):
    images = _column(np.arange(256) / 255)
    nll = losses.logit_laplace_nll(
      images,
      tf.fill(images.shape, mu),
      tf.fill(images.shape, log_scale),
      min_log_scale=-20.0,
    )
    self.assertAllGreaterEqual(nll, 0.0)
    self.assertAllClose(np.sum(np.exp(-nll.numpy())), 1.0, atol=1e-5)

  def test_values_and_slopes_are_exact(self):
    """On levels and between them; mu in the bin, near it and far away."""
    points = [
      [np.float32(x) for x in point]
      for image in (0, 1 / 1020, 1 / 255, 0.3, 0.5, 254 / 255, 1019 / 1020, 1)
      for mu in (-40, -2.195, -0.7, 0.0, 0.004, 2.18, 2.3, 50)
      for log_scale in (-7, -5, -1.3, 0.5, 6)
      for point in [(image, mu, log_scale)]
    ]
    found = _nll_and_slopes(*map(_column, zip(*points)), min_log_scale=-7.0)
    expected = []
    step = decimal.Decimal('1e-20')
    with decimal.localcontext(prec=60, Emin=-(10**9)):
      for image, *rest in points:
        image, mu, log_scale = map(float, (image, *rest))
        values = [_exact_nll(image, mu, log_scale)]
        for shift in ((step, 0), (0, step)):
          ahead, behind = (
            _exact_nll(
              image,
              decimal.Decimal(mu) + sign * shift[0],
              decimal.Decimal(log_scale) + sign * shift[1],
            )
            for sign in (1, -1)
          )
          values.append((ahead - behind) / (2 * step))
        expected.append([float(x) for x in values])
    # A rounding of a logit, up to 2^-22, is 3e-4 of the smallest scale.
    for one, other in zip(found, zip(*expected), strict=True):
      self.assertAllClose(one, other, rtol=2e-3, atol=4e-3)

  def test_units_of_the_paper(self):
    """Between the ends a bin is narrow: its mean density is that at x."""
    images = _column(np.arange(1, 255) / 255)
    mu, log_scale = _normal(*images.shape), tf.ones(images.shape)
    binned, density = (
      losses.logit_laplace_nll(images, mu, log_scale, form=form)
      for form in ('binned', 'density')
    )
    self.assertAllClose(losses.binned_to_density(binned), density, atol=2e-3)

  def test_compiled_and_in_bfloat16(self):
    half = [tf.cast(_normal(64, 1, 1, 1), tf.bfloat16) for _ in range(2)]
    images = _images(64, 1, 1, 1)
    images[:2, 0, 0, 0] = 0.0, 1.0
    expected = _nll_and_slopes(images, *(tf.cast(x, tf.float32) for x in half))
    compiled = tf.function(_nll_and_slopes, jit_compile=True, autograph=False)(
      images, *half
    )
    self.assertEqual(compiled[0].dtype, tf.float32)
    self.assertAllClose(compiled[0], expected[0], rtol=1e-5, atol=1e-5)
    for one, other in zip(compiled[1:], expected[1:], strict=True):
      self.assertAllClose(tf.cast(one, tf.float32), other, rtol=5e-3, atol=1e-4)


class LogitLaplaceTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(0.1, 0.02)
  def test_squeeze_is_undone_and_stays_inside(self, epsilon):
    x = np.linspace(0, 1, 11, dtype=np.float32)
    squeezed = losses.squeeze(x, epsilon=epsilon)
    self.assertAllClose(squeezed[0], epsilon)
    self.assertAllClose(squeezed[-1], 1 - epsilon)
    self.assertAllClose(losses.unsqueeze(squeezed, epsilon=epsilon), x)

  def test_equals_numpy_reference(self):
    images = _images(4, 8, 8, 3)
    mu, log_scale = _normal(4, 8, 8, 3), _normal(4, 8, 8, 3)
    x = 0.8 * images.astype(np.float64) + 0.1
    b = np.exp(log_scale)
    density = np.exp(-np.abs(scipy.special.logit(x) - mu) / b)
    density /= 2 * b * x * (1 - x)
    self.assertAllClose(
      losses.logit_laplace_nll(images, mu, log_scale, form='density'),
      -np.log(density).mean(axis=(1, 2, 3)),
      rtol=1e-5,
    )

  def test_scale_is_bounded_but_can_come_back(self):
    # Of two values too small the first is met exactly and wants b smaller
    # still, the second is missed by far and wants b larger; of two too large
    # the first wants b smaller, and the second, at the end, larger.
    images, mu = _column([0.5, 0.5, 0.5, 1.0]), _column([0.0, 9.0, 0.0, -9.0])
    log_scale = _column([-50.0, -50.0, 50.0, 50.0])
    for form in ('density', 'binned'):
      nll, _, slope = _nll_and_slopes(images, mu, log_scale, form=form)
      self.assertEqual(slope[0], 0.0)
      self.assertLess(slope[1], 0.0)
      self.assertGreater(slope[2], 0.0)
      bound = tf.clip_by_value(log_scale, -5.0, 10.0)
      self.assertAllEqual(
        nll, losses.logit_laplace_nll(images, mu, bound, form=form)
      )
    self.assertEqual(slope[3], 0.0)

  @parameterized.product(
    form=('density', 'binned'), least=(-5.0, -80.0), dtype=('bfloat16', 'float')
  )
  def test_extreme_inputs_stay_finite(self, form, least, dtype):
    points = [
      (image, mu, log_scale)
      for image in (0.0, 0.3, 0.5, 1.0)
      for mu in (-80.0, 0.0, 80.0)
      for log_scale in (-80.0, -30.0, 0.0, 80.0)
    ]
    images, *rest = map(_column, zip(*points))
    rest = [tf.cast(x, {'float': tf.float32}.get(dtype, dtype)) for x in rest]
    found = _nll_and_slopes(images, *rest, form=form, min_log_scale=least)
    self.assertEqual(found[0].dtype, tf.float32)
    for x in found:
      x = tf.cast(x, tf.float32)
      self.assertAllEqual(tf.math.is_finite(x), tf.ones_like(x, bool))
      if least == -5.0:
        self.assertAllInRange(x, -2e4, 2e4)


class PixelTest(tf.test.TestCase):
  def test_pixel_means(self):
    a, b = _images(3, 4, 4, 3), _images(3, 4, 4, 3)
    self.assertAllClose(losses.l1(a, b), np.abs(a - b).mean(axis=(1, 2, 3)))
    self.assertAllClose(losses.l2(a, b), ((a - b) ** 2).mean(axis=(1, 2, 3)))


if __name__ == '__main__':
  tf.test.main()
