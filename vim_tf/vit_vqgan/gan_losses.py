"""Losses of the game with the discriminator (paper 3.3), through TF-GAN.

Like those of `losses.py` they compute in float32 and give one value an
example; they are apart, because only training needs TF-GAN.
"""

import tensorflow as tf

from vim_tf import compat
from vim_tf.vit_vqgan import losses

_wargs = compat.tfgan('losses.losses_wargs')


def _loss(name: str, **kwargs):
  """A loss of TF-GAN as a mean over the patches of each image, float32.

  The logits that it takes are `[batch]`, or `[batch, height, width]` of a map
  of patches; it gives `[batch]`.
  """
  loss = getattr(_wargs, name)
  return lambda *logits: losses.per_example(
    loss(
      *losses.float32(*logits),
      loss_collection=None,
      reduction=tf.compat.v1.losses.Reduction.NONE,
      **kwargs,
    )
  )


GAN_LOSSES = {
  # softplus(-D(fake)); softplus(-D(real)) + softplus(D(fake)) (Goodfellow et
  # al., 2014), without TF-GAN's label smoothing of 0.25.
  'non_saturating': (
    _loss('modified_generator_loss'),
    _loss('modified_discriminator_loss', label_smoothing=0.0),
  ),
  # -D(fake); relu(1 - D(real)) + relu(1 + D(fake)) (Miyato et al., 2018).
  'hinge': (
    _loss('wasserstein_hinge_generator_loss'),
    _loss('wasserstein_hinge_discriminator_loss'),
  ),
}
"""By name: the generator's loss of D(fake), the discriminator's of D(real) and
D(fake)."""


def r1_penalty(discriminator_fn, images: tf.Tensor) -> tf.Tensor:
  """Squared norm of the discriminator's gradient at real images.

  R1 of Mescheder et al. (2018), without its factor gamma / 2. Lazily computed
  every k steps (StyleGAN2), it is multiplied by k, too. As in StyleGAN2 the
  gradient is by images in [-1, 1]: half that by images in [0, 1].

  Args:
    discriminator_fn: Maps images to logits `[batch]` or a map of them,
      `[batch, height, width]`, whose mean then counts.
    images: Real images `[batch, height, width, 3]` in [0, 1].

  Returns:
    float32 `[batch]`: the square summed over pixels and channels. It can be
    differentiated with respect to the discriminator's variables.
  """
  with tf.GradientTape(watch_accessed_variables=False) as tape:
    tape.watch(images)
    # The sum's gradient is that of each image's own logit, but for the little
    # that minibatch statistics mix: as in StyleGAN2.
    (logits,) = losses.float32(discriminator_fn(images))
    total = tf.reduce_sum(losses.per_example(logits))
  gradient = 0.5 * tf.cast(tape.gradient(total, images), tf.float32)
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
    tf.linalg.global_norm(losses.float32(*tf.nest.flatten(gradient)))
    for gradient in (reconstruction_gradient, adversarial_gradient)
  )
  weight = reconstruction / (adversarial + epsilon)
  return tf.stop_gradient(tf.minimum(weight, max_weight))
