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
def _lower_bound(x: tf.Tensor, bound: tf.Tensor):
  """max(x, bound), but with a gradient that can lift x above the bound."""

  def grad(upstream):
    # Below the bound, only a step of descent upwards is let through: tf.maximum
    # would pass nothing and leave x below for good.
    passes = tf.logical_or(x >= bound, upstream < 0.0)
    return tf.where(passes, upstream, tf.zeros_like(upstream)), None

  return tf.maximum(x, bound), grad


def logit_laplace_nll(
  images: tf.Tensor,
  mu: tf.Tensor,
  log_scale: tf.Tensor,
  *,
  epsilon: float = 0.1,
  min_log_scale: float = -5.0,
) -> tf.Tensor:
  """Negative log likelihood under the logit-laplace distribution (paper 3.3).

  The density, over the squeezed value x = squeeze(image) in (0, 1), is

    f(x | mu, b) = exp(-|logit(x) - mu| / b) / (2 b x (1 - x)), b = e^log_scale.

  So the factor 1 / (x (1 - x)) of the change to the logit is included, as the
  paper's values of about -2.5 suggest; the constant log(1 - 2 epsilon) of the
  change from image to x is not: this is the density of x, not of the image.

  Args:
    images: `[batch, height, width, channels]` in [0, 1].
    mu: Location on the logit scale, shaped like `images`. The image it stands
      for is `unsqueeze(sigmoid(mu))`.
    log_scale: Natural logarithm of the scale b, shaped like `images`.
    epsilon: Margin of `squeeze`.
    min_log_scale: Lower bound of `log_scale`. Without it flat areas, white
      paper above all, are worth infinitely much. At -5, b is half the distance
      of two neighbouring 8-bit values at mid-grey on the logit scale. The
      gradient still passes where it would lift a value above the bound.

  Returns:
    float32 `[batch]`: nats per element, a mean over pixels and channels.
  """
  mu, log_scale = float32(mu, log_scale)
  log_scale = _lower_bound(log_scale, tf.constant(min_log_scale))
  x = squeeze(images, epsilon=epsilon)
  log_x, log_1_minus_x = tf.math.log(x), tf.math.log1p(-x)
  distance = tf.abs(log_x - log_1_minus_x - mu)
  nll = (
    math.log(2.0)
    + log_scale
    + log_x
    + log_1_minus_x
    + distance * tf.exp(-log_scale)
  )
  return per_example(nll)


def l2(images: tf.Tensor, reconstructions: tf.Tensor) -> tf.Tensor:
  """Mean squared error of each image, `[batch, ...]` to float32 `[batch]`."""
  images, reconstructions = float32(images, reconstructions)
  return per_example(tf.math.squared_difference(images, reconstructions))


def l1(images: tf.Tensor, reconstructions: tf.Tensor) -> tf.Tensor:
  """Mean absolute error of each image, `[batch, ...]` to float32 `[batch]`."""
  images, reconstructions = float32(images, reconstructions)
  return per_example(tf.abs(images - reconstructions))


def commitment(z: tf.Tensor, e: tf.Tensor) -> tf.Tensor:
  """Mean of (z - sg[e])^2 (paper 3.2): draws the encoder to its codes.

  Args:
    z: Encoder outputs in lookup space, `[batch, num_codes, code_dim]`.
    e: The code vectors chosen for them, shaped like `z`.

  Returns:
    float32 `[batch]`; its gradient reaches `z` only. Not yet scaled by beta.
  """
  z, e = float32(z, e)
  return per_example(tf.math.squared_difference(z, tf.stop_gradient(e)))


def codebook(z: tf.Tensor, e: tf.Tensor) -> tf.Tensor:
  """Mean of (sg[z] - e)^2 (paper 3.2): draws the codes to the encoder.

  Args:
    z: Encoder outputs in lookup space, `[batch, num_codes, code_dim]`.
    e: The code vectors chosen for them, shaped like `z`.

  Returns:
    float32 `[batch]`; its gradient reaches `e` only.
  """
  z, e = float32(z, e)
  return per_example(tf.math.squared_difference(tf.stop_gradient(z), e))
