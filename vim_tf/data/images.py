"""Between encoded images, uint8 and the float images of the models."""

import tensorflow as tf


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

  def decode_png():
    # Four channels, because a palette read as it is would pass for gray.
    return _on_white(from_uint8(tf.io.decode_png(encoded, channels=4)))

  def decode_jpeg():
    return from_uint8(
      tf.io.decode_jpeg(encoded, channels=3, dct_method='INTEGER_ACCURATE')
    )

  def decode_other():
    image = from_uint8(tf.io.decode_image(encoded, expand_animations=False))
    channels = tf.shape(image)[-1]
    return tf.case(
      [
        (channels == 1, lambda: tf.repeat(image, 3, axis=-1)),
        (channels == 4, lambda: _on_white(image)),
      ],
      default=lambda: image,
    )

  image = tf.case(
    [
      (tf.strings.substr(encoded, 0, 4) == b'\x89PNG', decode_png),
      (tf.io.is_jpeg(encoded), decode_jpeg),
    ],
    default=decode_other,
  )
  return tf.ensure_shape(image, [None, None, 3])


def _on_white(image: tf.Tensor) -> tf.Tensor:
  """Lays float `[height, width, 4]` (RGB, alpha) on a white ground."""
  alpha = image[..., 3:]
  return image[..., :3] * alpha + (1.0 - alpha)


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
