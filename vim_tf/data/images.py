"""Between encoded images, uint8 and the float images of the models."""

import functools

import tensorflow as tf

from vim_tf.data import orientation


def to_uint8(images: tf.Tensor) -> tf.Tensor:
  """Rounds and clamps images to bytes: the only place where that happens.

  Args:
    images: Floats of any shape; [0, 1] is the range that survives.

  Returns:
    uint8 of the same shape.
  """
  images = tf.clip_by_value(tf.cast(images, tf.float32), 0.0, 1.0)
  return tf.cast(tf.round(images * 255.0), tf.uint8)


def from_uint8(images: tf.Tensor) -> tf.Tensor:
  """Bytes as float32 in [0, 1]; `to_uint8` gives the same bytes back."""
  return tf.cast(images, tf.float32) * (1.0 / 255.0)


def decode(encoded: tf.Tensor) -> tf.Tensor:
  """Decodes a JPEG, PNG, BMP or GIF image.

  Gray becomes RGB, transparency is laid on white, 16 bits become 8, and of an
  animation the first frame is taken. An orientation that a camera noted in
  the metadata is not applied.

  Args:
    encoded: Scalar string.

  Returns:
    float32 `[height, width, 3]` in [0, 1].

  Raises:
    tf.errors.InvalidArgumentError: If it cannot be decoded.
  """
  return _traced(_decode)(encoded)


def decode_square(encoded: tf.Tensor, size: int) -> tf.Tensor:
  """Decodes an image, see `decode`, and resizes the square in its middle.

  Args:
    encoded: Scalar string.
    size: Height and width of the result, in pixels.

  Returns:
    uint8 `[size, size, 3]`.

  Raises:
    tf.errors.InvalidArgumentError: If it cannot be decoded.
  """
  return _traced(_decode_square, size)(encoded)


@functools.cache  # Or each pipeline and export would trace the same again.
def _traced(function, *arguments) -> tf.types.experimental.ConcreteFunction:
  """A function of an encoded image and fixed arguments, traced once."""
  with tf.init_scope():
    return tf.function(
      lambda encoded: function(encoded, *arguments), autograph=False
    ).get_concrete_function(tf.TensorSpec([], tf.string))


def _decode_square(encoded: tf.Tensor, size: int) -> tf.Tensor:
  return to_uint8(resize_and_center_crop(decode(encoded), size))


def _decode(encoded: tf.Tensor) -> tf.Tensor:
  # Not decode_image for JPEG, which would refuse CMYK; and no fixed number of
  # channels for PNG, because TF then gives small palettes a false alpha.
  image = tf.cond(
    tf.io.is_jpeg(encoded),
    lambda: orientation.turn(
      tf.io.decode_jpeg(encoded, channels=3, dct_method='INTEGER_ACCURATE'),
      orientation.read(encoded),
    ),
    lambda: tf.io.decode_image(encoded, expand_animations=False),
  )
  image = from_uint8(image)
  image = tf.cond(
    tf.shape(image)[-1] == 3, lambda: image, lambda: _to_rgb(image)
  )
  return tf.ensure_shape(image, [None, None, 3])


def _to_rgb(image: tf.Tensor) -> tf.Tensor:
  """Lays gray (1 channel), gray and alpha (2) or RGB and alpha (4) on white."""
  channels = tf.shape(image)[-1]
  gray = tf.repeat(image[..., :1], 3, axis=-1)
  colour = tf.cond(channels < 3, lambda: gray, lambda: image[..., :3])
  alpha = tf.where(channels % 2 == 0, image[..., -1:], 1.0)
  return colour * alpha + (1.0 - alpha)


def resize(image: tf.Tensor, size: int) -> tf.Tensor:
  """Resizes `[height, width, 3]` to `[size, size, 3]`, with antialiasing."""
  image = tf.image.resize(image, [size, size], 'bilinear', antialias=True)
  return tf.ensure_shape(image, [size, size, 3])


def resize_and_center_crop(image: tf.Tensor, size: int) -> tf.Tensor:
  """The largest square in the middle of an image, resized.

  Args:
    image: float32 `[height, width, 3]`, any height and width.
    size: Height and width of the result, in pixels.

  Returns:
    float32 `[size, size, 3]`.
  """
  shape = tf.shape(image)
  side = tf.minimum(shape[0], shape[1])
  top = (shape[0] - side) // 2
  left = (shape[1] - side) // 2
  return resize(image[top : top + side, left : left + side], size)
