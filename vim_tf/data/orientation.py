"""The orientation that a camera notes in a JPEG file, and turning by it.

Phones save pixels as the sensor gives them, and note how to turn them. This is
done by TensorFlow's ops alone, since it runs inside of input pipelines and of
exported models. Formats: JPEG (ITU T.81, B.1), Exif 2.32 (4.5.4, 4.6.4), TIFF
6.0 (section 2).
"""

import tensorflow as tf

_TAG = 0x0112
_EXIF = b'Exif\0\0'
_MOST_SEGMENTS = 1000  # Or a file made for it would keep a server busy.


def read(encoded: tf.Tensor) -> tf.Tensor:
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


def turn(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
  """Turns and mirrors an image to what it shows.

  Args:
    image: `[height, width, channels]`.
    orientation: Scalar int32, 1 to 8.

  Returns:
    `[height, width, channels]`, or `[width, height, channels]` from 5 on.
  """
  bits = orientation - 1
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
  is_it = number(entries) == _TAG
  is_it &= (is_short | is_long) & (number(entries + 4, 4) > 0)
  values = tf.boolean_mask(values, is_it)
  return tf.where(little | big, tf.reduce_sum(values[-1:]), 0)
