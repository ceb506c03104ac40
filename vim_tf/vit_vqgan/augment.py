"""Augmentation of what the discriminator sees, for small data.

Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training"
(2020): colour, translation and cutout, applied to real and reconstructed
images alike and differentiated through, so that the discriminator cannot learn
the few images by heart and the autoencoder does not learn the augmentation.

Colours may leave [0, 1]; what is uncovered becomes mid-grey, 0.5, which is the
0 of the paper's images in [-1, 1].
"""

import tensorflow as tf

from vim_tf.nn import randomness

GREY = 0.5


def color(images: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
  """Changes brightness, saturation and contrast.

  Args:
    images: float32 `[batch, height, width, 3]` in [0, 1].
    uniforms: float32 `[batch, 3]` in [0, 1). They give in turn: what is added
      to all channels, from -0.25 to 0.25; the factor of the distance from a
      pixel's own grey, from 0 to 2; the factor of the distance from the image's
      mean, from 0.5 to 1.5. At 0.5 nothing changes.

  Returns:
    float32 `[batch, height, width, 3]`.
  """
  brightness, saturation, contrast = (
    uniforms[:, i, None, None, None] for i in range(3)
  )
  x = images + 0.5 * (brightness - 0.5)
  grey = tf.reduce_mean(x, axis=3, keepdims=True)
  x = (x - grey) * (2.0 * saturation) + grey
  mean = tf.reduce_mean(x, axis=[1, 2, 3], keepdims=True)
  return (x - mean) * (contrast + 0.5) + mean


def translate(
  images: tf.Tensor, uniforms: tf.Tensor, max_share: float = 0.125
) -> tf.Tensor:
  """Shifts each image by whole pixels and fills with grey.

  Args:
    images: float32 `[batch, height, width, 3]` in [0, 1].
    uniforms: float32 `[batch, 2]` in [0, 1): the shifts down and to the right,
      0 being the largest shift up or left.
    max_share: Largest shift, as a share of the side, rounded to pixels.

  Returns:
    float32 `[batch, height, width, 3]`.
  """
  x = images
  for axis in (1, 2):
    size = images.shape[axis]
    most = round(max_share * size)
    # The shift is uniform over the 2 most + 1 whole numbers.
    shift = tf.cast(uniforms[:, axis - 1] * (2 * most + 1), tf.int32) - most
    padding = [[0, 0]] * 4
    padding[axis] = [most, most]
    x = tf.pad(x, padding, constant_values=GREY)
    sources = tf.range(size)[None] + most - shift[:, None]  # [batch, size]
    x = tf.gather(x, sources, axis=axis, batch_dims=1)
  return x


def cutout(
  images: tf.Tensor, uniforms: tf.Tensor, share: float = 0.5
) -> tf.Tensor:
  """Covers a rectangle of each image with grey.

  Args:
    images: float32 `[batch, height, width, 3]` in [0, 1].
    uniforms: float32 `[batch, 2]` in [0, 1): the rectangle's centre, from the
      top and from the left. Near an edge a part of it lies outside.
    share: Sides of the rectangle, as a share of those of the image.

  Returns:
    float32 `[batch, height, width, 3]`.
  """
  covered = None
  for axis in (1, 2):
    size = images.shape[axis]
    length = round(share * size)
    center = tf.cast(uniforms[:, axis - 1] * (size + 1 - length % 2), tf.int32)
    first = (center - length // 2)[:, None]
    positions = tf.range(size)[None]
    inside = (positions >= first) & (positions < first + length)
    inside = inside[:, :, None, None] if axis == 1 else inside[:, None, :, None]
    covered = inside if covered is None else covered & inside
  return tf.where(covered, GREY, images)


def augment(images: tf.Tensor, seeds: tf.Tensor, stream: int = 0) -> tf.Tensor:
  """Draws and applies colour, translation and cutout for each image.

  Args:
    images: `[batch, height, width, 3]` in [0, 1].
    seeds: Integers `[batch]`. The same seed gives the same augmentation,
      whatever shares the batch: give a real image and its reconstruction one
      seed to have them augmented alike.
    stream: Tells these draws from others made with the same seeds.

  Returns:
    float32 `[batch, height, width, 3]`, differentiable in `images`.
  """
  seeds = tf.cast(seeds, tf.uint32)
  uniforms = randomness.uniform(seeds, (7,), stream)
  x = color(tf.cast(images, tf.float32), uniforms[:, :3])
  x = translate(x, uniforms[:, 3:5])
  return cutout(x, uniforms[:, 5:])
