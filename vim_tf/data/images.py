"""Between encoded images, uint8 and the float images of the models."""

import functools

import tensorflow as tf

from vim_tf.data import orientation

_JPEG, _PNG = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'
_ADOBE = b'\xff\xd8\xff\xee\0\x0eAdobe\0d\0\0\0\0\0'
_OTHER_KINDS = ((b'GIF8', 'GIF'), (b'BM', 'BMP'), (b'RIFF', 'WebP'))


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


def problem(encoded: tf.Tensor) -> tf.Tensor:
  """What keeps a file from being decoded, by its first bytes.

  Args:
    encoded: Scalar string.

  Returns:
    Scalar string: why it is refused, or ''.
  """

  def starts(magic: bytes):
    return tf.equal(tf.strings.substr(encoded, 0, len(magic)), magic)

  text = tf.constant('the bytes are not a JPEG or PNG image')
  for magic, kind in _OTHER_KINDS:
    text = tf.where(
      starts(magic), f'it is a {kind} image: convert it to JPEG or PNG', text
    )
  return tf.where(starts(_JPEG) | starts(_PNG), '', text)


def decode(encoded: tf.Tensor) -> tf.Tensor:
  """Decodes a JPEG or PNG image.

  Gray and CMYK become RGB, transparency is laid on white, 16 bits become 8,
  and of an animated PNG the still image is taken. A JPEG is turned as the
  camera noted.

  Args:
    encoded: Scalar string.

  Returns:
    float32 `[height, width, 3]` in [0, 1].

  Raises:
    tf.errors.InvalidArgumentError: If it is of another kind, or cannot be
      decoded.
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
  found = problem(encoded)
  with tf.control_dependencies([tf.debugging.Assert(found == '', [found])]):
    # Decoders take other kinds than their own, hence the branch.
    image = tf.cond(
      tf.io.is_jpeg(encoded),
      lambda: _decode_jpeg(encoded),
      lambda: _decode_png(encoded),
    )
  return tf.ensure_shape(image, [None, None, 3])


def _decode_jpeg(encoded: tf.Tensor) -> tf.Tensor:
  # Every reader takes CMYK as Adobe writes it, TensorFlow only where a marker
  # says so; a later one, if there is one, holds.
  marked = tf.cond(
    tf.io.extract_jpeg_shape(encoded)[2] == 4,
    lambda: _ADOBE + tf.strings.substr(encoded, 2, 2**31 - 1),
    lambda: encoded,
  )
  image = tf.io.decode_jpeg(marked, 3, dct_method='INTEGER_ACCURATE')
  return from_uint8(orientation.turn(image, orientation.read(encoded)))


def _decode_png(encoded: tf.Tensor) -> tf.Tensor:
  """Decodes a PNG, and lays what is transparent in it on white."""
  # Asked for alpha where there is none, TensorFlow makes one up: a wrong one
  # below 8 bits. Unasked, it forgets that of gray and RGB with a tRNS chunk.
  header = tf.io.decode_raw(tf.strings.substr(encoded, 0, 26), tf.uint8)
  colour_type = header[25:]
  has_alpha = tf.reduce_any(colour_type & 4 > 0) | tf.strings.regex_full_match(
    encoded, r'\C*\x00\x00(\x00\C|\x01\x00)tRNS\C*'
  )

  def on_white():
    image = from_uint8(tf.io.decode_png(encoded, channels=4))
    return image[..., :3] * image[..., 3:] + (1.0 - image[..., 3:])

  return tf.cond(
    has_alpha, on_white, lambda: from_uint8(tf.io.decode_png(encoded, 3))
  )


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
