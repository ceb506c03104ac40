"""The orientation that a camera notes in a JPEG file, and turning by it.

Phones save pixels as the sensor gives them, and note how to turn them. This is
done by TensorFlow's ops alone, since it runs inside of input pipelines and of
exported models. Formats: Exif 2.32 (4.5.4, 4.6.4), TIFF 6.0 (section 2).
"""

import tensorflow as tf

_HEAD = 2**14  # Bytes that are looked at: Exif demands to be first in a file.
_TAG = 0x0112


def read(encoded: tf.Tensor) -> tf.Tensor:
  """The orientation that is noted in an encoded image.

  Args:
    encoded: Scalar string, a file of any kind.

  Returns:
    Scalar int32, 1 to 8 as Exif counts them; 1, which is upright, also for
    files other than JPEG and where nothing that makes sense is noted.
  """
  head = tf.strings.substr(encoded, 0, _HEAD)

  def find():
    values = tf.pad(tf.io.decode_raw(head, tf.uint8), [[0, 1]])
    found = _find_tag(values, _find_header(values))
    return tf.where((found >= 1) & (found <= 8), tf.cast(found, tf.int32), 1)

  # Asked first, as it is quick, and most files have none.
  may_be = tf.strings.regex_full_match(head, r'\C*Exif\x00\x00\C*')
  is_jpeg = tf.strings.substr(head, 0, 2) == b'\xff\xd8'
  return tf.cond(is_jpeg & may_be, find, lambda: tf.constant(1))


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


def _number(head: tf.Tensor, start, size: int, little=False) -> tf.Tensor:
  """int64 of the shape of `start`, of `size` bytes; zeros beyond the end."""
  start = tf.cast(start, tf.int64)[..., None]
  last = tf.size(head, tf.int64) - 1  # The zero that `read` has put there.
  places = tf.minimum(start + tf.range(size, dtype=tf.int64), last)
  values = tf.cast(tf.gather(head, places), tf.int64)
  values = tf.where(little, values[..., ::-1], values)
  return tf.reduce_sum(values * [256**k for k in reversed(range(size))], -1)


def _find_header(head: tf.Tensor) -> tf.Tensor:
  """Where the TIFF header of a JPEG's Exif segment starts, scalar int64.

  If there is none it is the end of all, where everything reads as 0.
  """

  def is_exif(at):
    return (
      (_number(head, at, 2) == 0xFFE1)
      & (_number(head, at + 4, 4) == int.from_bytes(b'Exif', 'big'))
      & (_number(head, at + 8, 2) == 0)
    )

  def goes_on(at):
    # Application segments and comments come before those of the image.
    marker = _number(head, at, 2)
    before = (marker >= 0xFFE0) & (marker <= 0xFFEF) | (marker == 0xFFFE)
    return before & ~is_exif(at)

  at = tf.constant(2, tf.int64)
  at = tf.while_loop(
    goes_on, lambda at: [at + 2 + _number(head, at + 2, 2)], [at]
  )[0]
  return tf.where(is_exif(at), at + 10, tf.size(head, tf.int64))


def _find_tag(head: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
  """The orientation in the first directory behind a TIFF header, or 0."""
  order = _number(head, header, 4)
  little = order == int.from_bytes(b'II*\0', 'big')
  big = order == int.from_bytes(b'MM\0*', 'big')
  directory = header + _number(head, header + 4, 4, little)
  count = _number(head, directory, 2, little)
  entries = directory + 2 + 12 * tf.range(count)
  is_it = _number(head, entries, 2, little) == _TAG
  values = tf.boolean_mask(_number(head, entries + 8, 2, little), is_it)
  return tf.where(little | big, tf.reduce_sum(values[:1]), 0)
