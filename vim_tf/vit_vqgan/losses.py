"""What stage 1 minimises without a discriminator (paper 3.3).

Every function computes in float32 whatever it is given, and returns one value
an example, `[batch]`: whoever sums up decides how replicas are averaged. The
weights of the terms are not applied here.
"""

import math

import tensorflow as tf


def per_example(x: tf.Tensor) -> tf.Tensor:
  """Mean over all axes but the first: `[batch, ...]` to `[batch]`."""
  return tf.reduce_mean(x, axis=list(range(1, x.shape.rank)))


def float32(*tensors: tf.Tensor) -> list[tf.Tensor]:
  """Tensors of any float type as float32."""
  return [tf.cast(x, tf.float32) for x in tensors]


def squeeze(images: tf.Tensor, *, epsilon: float = 0.1) -> tf.Tensor:
  """Maps [0, 1] into [epsilon, 1 - epsilon], where the logit is finite.

  This is the map phi(x) = (1 - 2 epsilon) x + epsilon of DALL-E's dVAE (Ramesh
  et al., 2021), whose logit-laplace distribution the paper takes over.

  Args:
    images: `[...]` in [0, 1].
    epsilon: Width of the margin, in (0, 0.5).

  Returns:
    float32 `[...]`.
  """
  return (1.0 - 2.0 * epsilon) * tf.cast(images, tf.float32) + epsilon


def unsqueeze(squeezed: tf.Tensor, *, epsilon: float = 0.1) -> tf.Tensor:
  """Inverts `squeeze`.

  Not clamped: `unsqueeze(sigmoid(mu))` can leave [0, 1] by up to
  epsilon / (1 - 2 epsilon) on either side, until the image is clamped.

  Args:
    squeezed: `[...]`.
    epsilon: Width of the margin, in (0, 0.5).

  Returns:
    float32 `[...]`.
  """
  return (tf.cast(squeezed, tf.float32) - epsilon) / (1.0 - 2.0 * epsilon)


@tf.custom_gradient
def _bounded(x: tf.Tensor, low: tf.Tensor, high: tf.Tensor):
  """Clips x, but with a gradient that can bring x back from outside."""

  def grad(upstream):
    # Outside, only a step of descent towards the inside is let through:
    # tf.clip_by_value would pass nothing and leave x outside for good.
    above = tf.logical_or(x >= low, upstream < 0.0)
    below = tf.logical_or(x <= high, upstream > 0.0)
    passes = tf.logical_and(above, below)
    return tf.where(passes, upstream, tf.zeros_like(upstream)), None, None

  return tf.clip_by_value(x, low, high), grad


_MAX_LOG_SCALE = 10.0  # Of e^10 all but nothing lies between the ends.


def logit_laplace_nll(
  images: tf.Tensor,
  mu: tf.Tensor,
  log_scale: tf.Tensor,
  *,
  form: str = 'binned',
  epsilon: float = 0.1,
  min_log_scale: float = -5.0,
) -> tf.Tensor:
  """Negative log likelihood under the logit-laplace distribution (paper 3.3).

  The density, over the squeezed value x = squeeze(image) in (0, 1), is

    f(x | mu, b) = exp(-|logit(x) - mu| / b) / (2 b x (1 - x)), b = e^log_scale.

  So the factor 1 / (x (1 - x)) of the change to the logit is included, as the
  paper's values of about -2.5 suggest; the constant log(1 - 2 epsilon) of the
  change from image to x is not: this is the density of x, not of the image.

  'density' takes f at x. Its pull on mu is 1 / b however near mu is, so that a
  white pixel asks for mu = logit(1 - epsilon) exactly, although any larger mu
  shows as white: on drawings this drowns every other term.

  'binned' takes the integral of f over the image values that round to the same
  8 bits, [image - 1/510, image + 1/510]. The bins of 0 and 255 are open
  towards their end, as whatever lies beyond is clipped to it: the 256
  probabilities sum to 1, and the result is at least 0. A value between two
  levels (of a resized image) has the bin around itself, open where 0 or 1 is
  within half a level. `binned_to_density` gives the paper's units.

  Args:
    images: `[batch, height, width, channels]` in [0, 1].
    mu: Location on the logit scale, shaped like `images`. The image it stands
      for is `unsqueeze(sigmoid(mu))`.
    log_scale: Natural logarithm of the scale b, shaped like `images`. It counts
      as at most 10.
    form: 'binned' or 'density'.
    epsilon: Margin of `squeeze`.
    min_log_scale: Lower bound of `log_scale`. Without it flat areas, white
      paper above all, have an infinite density, and an unbounded gradient in
      either form. At -5, b is half the distance of two neighbouring 8-bit
      values at mid-grey on the logit scale. The gradient still passes where it
      would lift a value above the bound.

  Returns:
    float32 `[batch]`: nats per element, a mean over pixels and channels.
  """
  mu, log_scale = float32(mu, log_scale)
  log_scale = _bounded(
    log_scale, tf.constant(min_log_scale), tf.constant(_MAX_LOG_SCALE)
  )
  nll = {'binned': _binned, 'density': _density}[form]
  return per_example(nll(images, mu, log_scale, epsilon))


def _density(images, mu, log_scale, epsilon):
  x = squeeze(images, epsilon=epsilon)
  log_x, log_1_minus_x = tf.math.log(x), tf.math.log1p(-x)
  distance = tf.abs(log_x - log_1_minus_x - mu)
  return (
    math.log(2.0)
    + log_scale
    + log_x
    + log_1_minus_x
    + distance * tf.exp(-log_scale)
  )


def _binned(images, mu, log_scale, epsilon):
  images = tf.cast(images, tf.float32)
  x = squeeze(images, epsilon=epsilon)
  half = (1.0 - 2.0 * epsilon) / 510.0
  inverse_scale = tf.exp(-log_scale)
  # The bin's ends in units of b from mu. The width is log of the ratio of odds
  # at its ends: to subtract two logits would cost half the digits.
  low = tf.math.log(x - half) - tf.math.log1p(half - x)
  low = (low - mu) * inverse_scale
  width = tf.math.log1p(2.0 * half / (x * (1.0 - x) - half + half**2))
  width *= inverse_scale
  high = low + width
  # Each form is fed what keeps it finite where another one is chosen, or its
  # gradient would be 0 * inf. Where both ends are on one side of mu:
  nearest = tf.maximum(low, -high)
  beside = math.log(2.0) + nearest - tf.math.log(-tf.math.expm1(-width))
  # Where mu is inside: a sum of two positive masses, one a side.
  left = tf.math.expm1(tf.minimum(low, 0.0))
  right = tf.math.expm1(-tf.maximum(high, 0.0))
  around = math.log(2.0) - tf.math.log(-left - right)
  closed = tf.where(nearest >= 0.0, beside, around)
  # One end alone, from which the bin goes on for ever.
  first, last = images < 1.0 / 510.0, images > 1.0 - 1.0 / 510.0
  edge = tf.where(last, low, -high)
  inside = -tf.math.log1p(-0.5 * tf.exp(tf.minimum(edge, 0.0)))
  opened = tf.where(edge >= 0.0, math.log(2.0) + edge, inside)
  return tf.where(tf.logical_or(first, last), opened, closed)


def binned_to_density(nll: tf.Tensor, *, epsilon: float = 0.1) -> tf.Tensor:
  """A 'binned' likelihood in the units of 'density', those of the paper.

  Args:
    nll: Nats per 8-bit value, of `logit_laplace_nll`.
    epsilon: Margin of `squeeze`.

  Returns:
    Nats of the mean density over the bin: less by log(255 / (1 - 2 epsilon)),
    5.764 by default.
  """
  return nll - math.log(255.0 / (1.0 - 2.0 * epsilon))


def l2(images: tf.Tensor, reconstructions: tf.Tensor) -> tf.Tensor:
  """Mean squared error of each image, `[batch, ...]` to float32 `[batch]`."""
  images, reconstructions = float32(images, reconstructions)
  return per_example(tf.math.squared_difference(images, reconstructions))


def l1(images: tf.Tensor, reconstructions: tf.Tensor) -> tf.Tensor:
  """Mean absolute error of each image, `[batch, ...]` to float32 `[batch]`."""
  images, reconstructions = float32(images, reconstructions)
  return per_example(tf.abs(images - reconstructions))
