"""Images: from encoded files to float pixels, augmented, and to bytes.

Everything is made of TensorFlow's ops alone, since it runs inside of input
pipelines and of exported models. Phones save pixels as the sensor gives them,
and note how to turn them. Sources for that: JPEG (ITU T.81, B.1), Exif 2.32
(4.5.4, 4.6.4), TIFF 6.0 (section 2).
"""

import functools
import math

import tensorflow as tf

from vim_tf.config import DataConfig
from vim_tf.nn import randomness

_JPEG, _PNG = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'
_ADOBE = b'\xff\xd8\xff\xee\0\x0eAdobe\0d\0\0\0\0\0'
_OTHER_KINDS = ((b'GIF8', 'GIF'), (b'BM', 'BMP'), (b'RIFF', 'WebP'))

_ORIENTATION = 0x0112  # The tag of it.
_EXIF = b'Exif\0\0'
_MOST_SEGMENTS = 1000  # Or a file made for it would keep a server busy.

_STRIP = 512  # Columns that are converted to floats at a time.

_STREAM = 0x61756721  # Tells the draws of `augment` from the model's own.
_LOG_ASPECT = math.log(4 / 3)


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
  return _traced(_decode_whole)(encoded)


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


def _decode_whole(encoded: tf.Tensor) -> tf.Tensor:
  return _on_white(_decode(encoded))


def _decode_square(encoded: tf.Tensor, size: int) -> tf.Tensor:
  # Bytes until it is small: as floats, a photograph takes 400 MB.
  pixels = center_crop(_decode(encoded))
  image = tf.cond(
    tf.shape(pixels)[0] > 4 * _STRIP,  # Below, once is faster.
    lambda: _resize_in_strips(pixels, size),
    lambda: resize(_on_white(pixels), size),
  )
  return to_uint8(image)


def _resize_in_strips(pixels: tf.Tensor, size: int) -> tf.Tensor:
  """Resizes a square to `[size, size, 3]`, strip after strip of its columns.

  To the same bits as at once, because that is first done along the columns,
  too: at a scale of one, the other way changes nothing.
  """
  side = tf.shape(pixels)[0]
  count = (side + _STRIP - 1) // _STRIP
  width = (side + count - 1) // count
  pixels = tf.pad(pixels, [[0, 0], [0, count * width - side], [0, 0]])

  def low(i):
    strip = _on_white(pixels[:, i * width : (i + 1) * width])
    return tf.image.resize(strip, [size, width], 'bilinear', antialias=True)

  strips = tf.map_fn(
    low,
    tf.range(count),
    parallel_iterations=1,
    fn_output_signature=tf.TensorSpec([size, None, 3], tf.float32),
  )
  rows = tf.reshape(tf.transpose(strips, [1, 0, 2, 3]), [size, -1, 3])
  return resize(rows[:, :side], size)


def _decode(encoded: tf.Tensor) -> tf.Tensor:
  """Decodes to uint8 `[height, width, 3]`, or 4 with alpha."""
  found = problem(encoded)
  with tf.control_dependencies([tf.debugging.Assert(found == '', [found])]):
    # Decoders take other kinds than their own, hence the branch.
    return tf.cond(
      tf.io.is_jpeg(encoded),
      lambda: _decode_jpeg(encoded),
      lambda: _decode_png(encoded),
    )


def _decode_jpeg(encoded: tf.Tensor) -> tf.Tensor:
  # Every reader takes CMYK as Adobe writes it, TensorFlow only where a marker
  # says so; a later one, if there is one, holds.
  marked = tf.cond(
    tf.io.extract_jpeg_shape(encoded)[2] == 4,
    lambda: _ADOBE + tf.strings.substr(encoded, 2, 2**31 - 1),
    lambda: encoded,
  )
  image = tf.io.decode_jpeg(marked, 3, dct_method='INTEGER_ACCURATE')
  return turn(image, orientation(encoded))


def _decode_png(encoded: tf.Tensor) -> tf.Tensor:
  # Asked for alpha where there is none, TensorFlow makes one up: a wrong one
  # below 8 bits. Unasked, it forgets that of gray and RGB with a tRNS chunk.
  header = tf.io.decode_raw(tf.strings.substr(encoded, 0, 26), tf.uint8)
  colour_type = header[25:]
  has_alpha = tf.reduce_any(colour_type & 4 > 0) | tf.strings.regex_full_match(
    encoded, r'\C*\x00\x00(\x00\C|\x01\x00)tRNS\C*'
  )
  return tf.cond(
    has_alpha,
    lambda: tf.io.decode_png(encoded, 4),
    lambda: tf.io.decode_png(encoded, 3),
  )


def _on_white(pixels: tf.Tensor) -> tf.Tensor:
  """Bytes as float32 `[height, width, 3]`, what is transparent on white."""

  def laid():
    image = from_uint8(pixels)
    return image[..., :3] * image[..., 3:] + (1.0 - image[..., 3:])

  has_alpha = tf.shape(pixels)[2] == 4
  image = tf.cond(has_alpha, laid, lambda: from_uint8(pixels))
  return tf.ensure_shape(image, [None, None, 3])


def resize(image: tf.Tensor, size: int) -> tf.Tensor:
  """Resizes `[height, width, 3]` to `[size, size, 3]`, with antialiasing."""
  image = tf.image.resize(image, [size, size], 'bilinear', antialias=True)
  return tf.ensure_shape(image, [size, size, 3])


def center_crop(image: tf.Tensor) -> tf.Tensor:
  """The largest square in the middle of `[height, width, channels]`."""
  shape = tf.shape(image)
  side = tf.minimum(shape[0], shape[1])
  top = (shape[0] - side) // 2
  left = (shape[1] - side) // 2
  return image[top : top + side, left : left + side]


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
  return resize(part, config.image_size)


def _pixels(length: tf.Tensor, most: tf.Tensor) -> tf.Tensor:
  return tf.clip_by_value(tf.cast(tf.round(length), tf.int32), 1, most)


def _place(draw: tf.Tensor, room: tf.Tensor) -> tf.Tensor:
  """A whole number in [0, room] from a draw in [0, 1)."""
  return tf.cast(draw * tf.cast(room + 1, tf.float32), tf.int32)


def orientation(encoded: tf.Tensor) -> tf.Tensor:
  """The orientation that is noted in an encoded image.

  Args:
    encoded: Scalar string, a file of any kind.

  Returns:
    Scalar int32, 1 to 8 as Exif counts them; 1, which is upright, also for
    files other than JPEG and where nothing that makes sense is noted.
  """

  def find():
    exif = tf.io.decode_raw(_find_exif(encoded), tf.uint8)
    found = _find_tag(tf.pad(exif, [[0, 1]]))
    return tf.where((found >= 1) & (found <= 8), tf.cast(found, tf.int32), 1)

  return tf.cond(tf.io.is_jpeg(encoded), find, lambda: tf.constant(1))


def turn(image: tf.Tensor, noted: tf.Tensor) -> tf.Tensor:
  """Turns and mirrors an image to what it shows.

  Args:
    image: `[height, width, channels]`.
    noted: Its orientation, scalar int32, 1 to 8.

  Returns:
    `[height, width, channels]`, or `[width, height, channels]` from 5 on.
  """
  bits = noted - 1
  upside_down = bits & 2 > 0
  mirrored = (bits ^ bits // 2) & 1 > 0  # After what the others do.

  def turned():
    x = tf.cond(bits & 4 > 0, lambda: tf.transpose(image, [1, 0, 2]), same)
    x = tf.cond(upside_down, lambda: x[::-1], lambda: x)
    return tf.cond(mirrored, lambda: x[:, ::-1], lambda: x)

  def same():
    return image

  return tf.cond(bits > 0, turned, same)


def _find_exif(encoded: tf.Tensor) -> tf.Tensor:
  """What follows 'Exif' in the first such segment of a JPEG, or ''."""
  end = tf.strings.length(encoded)

  def at(place, count):
    return tf.strings.substr(encoded, tf.minimum(place, end), count)

  def number(place):
    return _number(
      tf.pad(tf.io.decode_raw(at(place, 2), tf.uint8), [[0, 2]]), 0
    )

  def is_exif(place):
    return (number(place) == 0xFFE1) & (at(place + 4, len(_EXIF)) == _EXIF)

  def goes_on(place):
    # Application segments and comments come before those of the image. Bytes
    # of 0xFF may fill up the room before a marker.
    marker = number(place)
    before = (marker >= 0xFFE0) & (marker <= 0xFFEF) | (marker >= 0xFFFE)
    return before & ~is_exif(place)

  def step(place):
    filled = number(place) == 0xFFFF
    length = tf.cast(number(place + 2), tf.int32)
    return [place + tf.where(filled, 1, 2 + length)]

  place = tf.while_loop(
    goes_on, step, [tf.constant(2)], maximum_iterations=_MOST_SEGMENTS
  )[0]
  length = tf.cast(number(place + 2), tf.int32) - 2 - len(_EXIF)
  found = at(place + 4 + len(_EXIF), tf.maximum(length, 0))
  return tf.where(is_exif(place), found, '')


def _number(data: tf.Tensor, start, size: int = 2, little=False) -> tf.Tensor:
  """int64 of the shape of `start`, of `size` bytes; zeros beyond the end.

  Args:
    data: Bytes, with a zero at their end.
    start: Where the number starts.
    size: How many bytes it has.
    little: Whether the lowest comes first.
  """
  start = tf.cast(start, tf.int64)[..., None]
  last = tf.size(data, tf.int64) - 1
  places = tf.minimum(start + tf.range(size, dtype=tf.int64), last)
  values = tf.cast(tf.gather(data, places), tf.int64)
  values = tf.where(little, values[..., ::-1], values)
  return tf.reduce_sum(values * [256**k for k in reversed(range(size))], -1)


def _find_tag(exif: tf.Tensor) -> tf.Tensor:
  """The orientation in the first directory of a TIFF header, or 0."""
  order = _number(exif, 0, 4)
  little = order == int.from_bytes(b'II*\0', 'big')
  big = order == int.from_bytes(b'MM\0*', 'big')

  def number(start, size=2):
    return _number(exif, start, size, little)

  directory = number(4, 4)
  entries = directory + 2 + 12 * tf.range(number(directory))
  kind = number(entries + 2)
  is_short, is_long = (
    (kind == unsigned) | (kind == signed)
    for unsigned, signed in ((3, 8), (4, 9))
  )
  values = tf.where(is_long, number(entries + 8, 4), number(entries + 8))
  is_it = number(entries) == _ORIENTATION
  is_it &= (is_short | is_long) & (number(entries + 4, 4) > 0)
  values = tf.boolean_mask(values, is_it)
  return tf.where(little | big, tf.reduce_sum(values[-1:]), 0)
