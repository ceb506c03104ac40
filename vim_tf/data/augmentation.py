"""Random crops, shifts and flips, drawn from one seed an example."""

import math

import tensorflow as tf

from vim_tf.config import DataConfig
from vim_tf.data import images
from vim_tf.nn import randomness

_STREAM = 0x61756721  # Tells these draws from the model's own.
_LOG_ASPECT = math.log(4 / 3)


def augment(
  image: tf.Tensor, seed: tf.Tensor, flippable: tf.Tensor, config: DataConfig
) -> tf.Tensor:
  """Augments one training image as `config.crop` and `config.flip` say.

  Args:
    image: float32 `[height, width, 3]` in [0, 1]; for the crops 'center' and
      'shift' already `[image_size, image_size, 3]`.
    seed: Scalar uint32, of which the result is a function.
    flippable: Scalar bool: whether this image may be mirrored.
    config: The data's settings.

  Returns:
    float32 `[image_size, image_size, 3]` in [0, 1].
  """
  draws = randomness.uniform(seed[None], (5,), _STREAM)[0]
  if config.crop == 'random_resized':
    image = _random_resized(image, draws[:4], config)
  elif config.crop == 'shift' and config.max_shift:
    image = _shift(image, draws[:2], config)
  if config.flip:
    image = tf.cond(
      flippable & (draws[4] < 0.5), lambda: image[:, ::-1], lambda: image
    )
  size = config.image_size
  return tf.ensure_shape(image, [size, size, 3])


def _shift(image: tf.Tensor, draws: tf.Tensor, config: DataConfig):
  """Moves an image by whole pixels and repeats its edges."""
  span = 2 * config.max_shift + 1
  shifts = tf.cast(draws * span, tf.int32) - config.max_shift
  last = config.image_size - 1
  places = tf.range(config.image_size)
  rows = tf.clip_by_value(places + shifts[0], 0, last)
  columns = tf.clip_by_value(places + shifts[1], 0, last)
  return tf.gather(tf.gather(image, rows), columns, axis=1)


def _random_resized(image: tf.Tensor, draws: tf.Tensor, config: DataConfig):
  """Resizes a random part: area from min_scale, aspect from 3/4 to 4/3.

  The aspect is drawn, on a log scale, from what fits into the image, so that
  nothing has to be drawn again (as Inception's crop does).
  """
  shape = tf.shape(image)
  height = tf.cast(shape[0], tf.float32)
  width = tf.cast(shape[1], tf.float32)
  share = config.min_scale + (1.0 - config.min_scale) * draws[0]
  # width * share <= height * aspect and the other way round.
  limit = tf.math.log(width / height)
  room = -tf.math.log(share)
  low = tf.clip_by_value(limit - room, -_LOG_ASPECT, _LOG_ASPECT)
  high = tf.clip_by_value(limit + room, -_LOG_ASPECT, _LOG_ASPECT)
  aspect = tf.exp(low + (high - low) * draws[1])
  area = share * height * width
  crop_height = _pixels(tf.sqrt(area / aspect), shape[0])
  crop_width = _pixels(tf.sqrt(area * aspect), shape[1])
  top = _place(draws[2], shape[0] - crop_height)
  left = _place(draws[3], shape[1] - crop_width)
  part = image[top : top + crop_height, left : left + crop_width]
  return images.resize(part, config.image_size)


def _pixels(length: tf.Tensor, most: tf.Tensor) -> tf.Tensor:
  return tf.clip_by_value(tf.cast(tf.round(length), tf.int32), 1, most)


def _place(draw: tf.Tensor, room: tf.Tensor) -> tf.Tensor:
  """A whole number in [0, room] from a draw in [0, 1)."""
  return tf.cast(draw * tf.cast(room + 1, tf.float32), tf.int32)
