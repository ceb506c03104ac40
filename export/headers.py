"""What the header of an image file tells, inside of a graph.

A server decodes what strangers send: a file's size and kind are known before
anything is decoded.
"""

import tensorflow as tf

from export.settings import Limits
from vim_tf.data import images


def problem(encoded: tf.Tensor, limits: Limits) -> tf.Tensor:
  """What keeps a file from being taken.

  Args:
    encoded: Scalar string.
    limits: The largest image that is taken.

  Returns:
    A scalar string: why it is refused, or ''.

  Raises:
    tf.errors.InvalidArgumentError: If its header is damaged.
  """

  def of_png():  # It has the width first, and the highest byte of both.
    sides = tf.io.decode_raw(
      tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False
    )
    return sides[::-1]

  def size_problem():
    shape = tf.cond(
      tf.io.is_jpeg(encoded),
      lambda: tf.io.extract_jpeg_shape(encoded)[:2],
      of_png,
    )
    height, width = tf.unstack(tf.cast(shape, tf.int64), 2)
    return _size_problem(height, width, limits)

  found = tf.where(
    tf.equal(encoded, ''), 'the image has no bytes', images.problem(encoded)
  )
  return tf.cond(tf.equal(found, ''), size_problem, lambda: found)


def _size_problem(height: tf.Tensor, width: tf.Tensor, limits: Limits):
  too_large = (
    (height > limits.side)
    | (width > limits.side)
    | (height * width > limits.pixels)
  )
  text = tf.strings.format(
    f'it has {{}} x {{}} pixels, but {limits.side} a side and {limits.pixels} '
    'in all are the most that is taken',
    [width, height],
  )
  nothing = (height < 1) | (width < 1)
  return tf.where(
    nothing, 'its header tells of no pixels', tf.where(too_large, text, '')
  )
