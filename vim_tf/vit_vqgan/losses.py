"""The terms of the stage-1 loss as pure functions (paper 3.3).

Every function computes in float32 whatever it is given, and returns one value
an example, `[batch]`: whoever sums up decides how replicas are averaged. The
weights of the terms are not applied here.
"""

import math

import tensorflow as tf
import tensorflow_gan as tfgan

_NONE = tf.compat.v1.losses.Reduction.NONE


def _per_example(x: tf.Tensor) -> tf.Tensor:
  """Mean over all axes but the first: `[batch, ...]` to `[batch]`."""
  return tf.reduce_mean(x, axis=list(range(1, x.shape.rank)))


def _float32(*tensors: tf.Tensor) -> list[tf.Tensor]:
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
  mu, log_scale = _float32(mu, log_scale)
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
  return _per_example(nll)


def l2(images: tf.Tensor, reconstructions: tf.Tensor) -> tf.Tensor:
  """Mean squared error of each image, `[batch, ...]` to float32 `[batch]`."""
  images, reconstructions = _float32(images, reconstructions)
  return _per_example(tf.math.squared_difference(images, reconstructions))


def l1(images: tf.Tensor, reconstructions: tf.Tensor) -> tf.Tensor:
  """Mean absolute error of each image, `[batch, ...]` to float32 `[batch]`."""
  images, reconstructions = _float32(images, reconstructions)
  return _per_example(tf.abs(images - reconstructions))


def commitment(z: tf.Tensor, e: tf.Tensor) -> tf.Tensor:
  """Mean of (z - sg[e])^2 (paper 3.2): draws the encoder to its codes.

  Args:
    z: Encoder outputs in lookup space, `[batch, num_codes, code_dim]`.
    e: The code vectors chosen for them, shaped like `z`.

  Returns:
    float32 `[batch]`; its gradient reaches `z` only. Not yet scaled by beta.
  """
  z, e = _float32(z, e)
  return _per_example(tf.math.squared_difference(z, tf.stop_gradient(e)))


def codebook(z: tf.Tensor, e: tf.Tensor) -> tf.Tensor:
  """Mean of (sg[z] - e)^2 (paper 3.2): draws the codes to the encoder.

  Args:
    z: Encoder outputs in lookup space, `[batch, num_codes, code_dim]`.
    e: The code vectors chosen for them, shaped like `z`.

  Returns:
    float32 `[batch]`; its gradient reaches `e` only.
  """
  z, e = _float32(z, e)
  return _per_example(tf.math.squared_difference(tf.stop_gradient(z), e))


def non_saturating_generator(fake_logits: tf.Tensor) -> tf.Tensor:
  """softplus(-D(fake)), the generator's loss of Goodfellow et al. (2014).

  Args:
    fake_logits: `[batch]`, or `[batch, height, width]` of a patch map.

  Returns:
    float32 `[batch]`, a mean over the patches.
  """
  return _per_example(
    tfgan.losses.wargs.modified_generator_loss(
      tf.cast(fake_logits, tf.float32),
      loss_collection=None,
      reduction=_NONE,
    )
  )


def non_saturating_discriminator(
  real_logits: tf.Tensor, fake_logits: tf.Tensor
) -> tf.Tensor:
  """softplus(-D(real)) + softplus(D(fake)), without label smoothing.

  Args:
    real_logits: `[batch]`, or `[batch, height, width]` of a patch map.
    fake_logits: Shaped like `real_logits`.

  Returns:
    float32 `[batch]`, a mean over the patches.
  """
  return _per_example(
    tfgan.losses.wargs.modified_discriminator_loss(
      *_float32(real_logits, fake_logits),
      label_smoothing=0.0,  # TF-GAN's default is 0.25.
      loss_collection=None,
      reduction=_NONE,
    )
  )


def hinge_generator(fake_logits: tf.Tensor) -> tf.Tensor:
  """-D(fake), the generator's side of the hinge loss; may be negative.

  Args:
    fake_logits: `[batch]`, or `[batch, height, width]` of a patch map.

  Returns:
    float32 `[batch]`, a mean over the patches.
  """
  return _per_example(
    tfgan.losses.wargs.wasserstein_hinge_generator_loss(
      tf.cast(fake_logits, tf.float32),
      loss_collection=None,
      reduction=_NONE,
    )
  )


def hinge_discriminator(
  real_logits: tf.Tensor, fake_logits: tf.Tensor
) -> tf.Tensor:
  """relu(1 - D(real)) + relu(1 + D(fake)) (Miyato et al., 2018).

  Args:
    real_logits: `[batch]`, or `[batch, height, width]` of a patch map.
    fake_logits: Shaped like `real_logits`.

  Returns:
    float32 `[batch]`, a mean over the patches.
  """
  return _per_example(
    tfgan.losses.wargs.wasserstein_hinge_discriminator_loss(
      *_float32(real_logits, fake_logits),
      loss_collection=None,
      reduction=_NONE,
    )
  )


# Name to (generator's loss of fake, discriminator's loss of (real, fake)).
GAN_LOSSES = {
  'non_saturating': (non_saturating_generator, non_saturating_discriminator),
  'hinge': (hinge_generator, hinge_discriminator),
}


def r1_penalty(discriminator_fn, images: tf.Tensor) -> tf.Tensor:
  """Squared norm of the discriminator's gradient at real images.

  R1 of Mescheder et al. (2018), without its factor gamma / 2. Lazily computed
  every k steps (StyleGAN2), it is multiplied by k, too.

  Args:
    discriminator_fn: Maps images to logits `[batch]` or a map of them,
      `[batch, height, width]`, whose mean then counts.
    images: Real images `[batch, height, width, 3]`.

  Returns:
    float32 `[batch]`: the square summed over pixels and channels. It can be
    differentiated with respect to the discriminator's variables.
  """
  with tf.GradientTape(watch_accessed_variables=False) as tape:
    tape.watch(images)
    # The sum's gradient is that of each image's own logit, but for the little
    # that minibatch statistics mix: as in StyleGAN2.
    total = tf.reduce_sum(_per_example(*_float32(discriminator_fn(images))))
  gradient = tf.cast(tape.gradient(total, images), tf.float32)
  axes = list(range(1, images.shape.rank))
  return tf.reduce_sum(tf.square(gradient), axis=axes)


def adaptive_weight(
  reconstruction_gradient,
  adversarial_gradient,
  *,
  max_weight: float = 1e4,
  epsilon: float = 1e-4,
) -> tf.Tensor:
  """VQGAN's weight of the adversarial term (Esser et al., 2021, eq. 7).

  Args:
    reconstruction_gradient: Gradient of the reconstruction loss (perceptual
      loss included) with respect to the decoder's last layer: a tensor, or a
      list of them (kernel and bias), summed over replicas.
    adversarial_gradient: The same of the generator's adversarial loss.
    max_weight: Cap, for the moment when the discriminator says nothing.
    epsilon: Added to the denominator.

  Returns:
    float32 scalar in [0, max_weight], without a gradient.
  """
  reconstruction, adversarial = (
    tf.linalg.global_norm(_float32(*tf.nest.flatten(gradient)))
    for gradient in (reconstruction_gradient, adversarial_gradient)
  )
  weight = reconstruction / (adversarial + epsilon)
  return tf.stop_gradient(tf.minimum(weight, max_weight))
