"""What an image file tells before it is decoded, inside of a graph.

A server decodes what strangers send: a file's kind, its size and what it may
cost are known before anything is decoded. Sources: JPEG (ITU T.81, B.1), PNG
(RFC 2083, 3 and 4.2).
"""

import tensorflow as tf

from export.settings import Settings
from vim_tf.data import images

_SCAN, _END = b'\xff\xda', b'\xff\xd9'
_PACKED_TEXTS = (b'zTXt', b'iTXt')
_MOST_TEXTS = 20  # Decoders unpack all, up to 8 MB each; files have a few.


def problem(encoded: tf.Tensor, settings: Settings) -> tf.Tensor:
  """What keeps a file from being taken.

  Args:
    encoded: Scalar string.
    settings: The largest image that is taken.

  Returns:
    A scalar string: why it is refused, or ''.

  Raises:
    tf.errors.InvalidArgumentError: If its header is damaged.
  """

  def of_jpeg():
    height, width = tf.unstack(tf.io.extract_jpeg_shape(encoded)[:2])
    return _first_of(
      _size_problem(height, width, settings),
      lambda: _scans_problem(encoded, settings.max_scans),
    )

  def of_png():  # It has the width first, and the highest byte of both.
    sides = tf.io.decode_raw(
      tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False
    )
    width, height = tf.unstack(sides, 2)
    return _first_of(
      _size_problem(height, width, settings), lambda: _texts_problem(encoded)
    )

  return _first_of(
    tf.where(
      tf.equal(encoded, ''), 'the image has no bytes', images.problem(encoded)
    ),
    lambda: tf.cond(tf.io.is_jpeg(encoded), of_jpeg, of_png),
  )


def _first_of(found: tf.Tensor, look_on) -> tf.Tensor:
  return tf.cond(tf.equal(found, ''), look_on, lambda: found)


def _size_problem(height: tf.Tensor, width: tf.Tensor, settings: Settings):
  height, width = tf.cast(height, tf.int64), tf.cast(width, tf.int64)
  side, pixels = settings.max_side, settings.max_pixels
  too_large = (height > side) | (width > side) | (height * width > pixels)
  text = tf.strings.format(
    f'it has {{}} x {{}} pixels, but {side} a side and {pixels} in all are the '
    'most that is taken',
    [width, height],
  )
  nothing = (height < 1) | (width < 1)
  return tf.where(
    nothing, 'its header tells of no pixels', tf.where(too_large, text, '')
  )


def _texts_problem(encoded: tf.Tensor) -> tf.Tensor:
  many = _MOST_TEXTS < sum(
    _occurrences(encoded, name, _MOST_TEXTS) for name in _PACKED_TEXTS
  )
  return tf.where(
    many,
    f'it has more than {_MOST_TEXTS} texts that may be packed (zTXt, iTXt), '
    'the most that are taken: save it without them',
    '',
  )


def _scans_problem(encoded: tf.Tensor, most: int) -> tf.Tensor:
  """Each scan goes over all pixels, whatever few bytes it has."""
  # Thumbnails and films hold any bytes: only a walk tells them apart.
  many = tf.cond(
    _occurrences(encoded, _SCAN, most) > most,
    lambda: ~_ends_within(encoded, most),
    lambda: tf.constant(False),
  )
  return tf.where(
    many,
    f'it has more than {most} scans, the most that are taken: save it as a '
    'baseline JPEG',
    '',
  )


def _occurrences(encoded: tf.Tensor, name: bytes, most: int) -> tf.Tensor:
  """How often some bytes occur; more than `most` if it is more often."""
  parts = tf.raw_ops.StringSplitV2(
    input=encoded[None], sep=name, maxsplit=most + 1
  )
  return tf.size(parts.values) - 1


def _ends_within(encoded: tf.Tensor, most: int) -> tf.Tensor:
  """Whether a JPEG has no more scans than `most`, from marker to marker."""
  data = tf.io.decode_raw(encoded + _END + b'\0\0', tf.uint8)
  kinds = data[1:-2]
  # Neither is what a scan has instead of 0xFF, a filling byte, or one of the
  # markers without a length.
  other = (kinds < 2) | (kinds == 0xFF) | (kinds & 0xF8 == 0xD0)
  places = tf.where((data[:-3] == 0xFF) & ~other)[1:, 0]  # After the first.
  last = tf.size(places) - 1

  def is_kind(i, marker: bytes):
    return tf.equal(kinds[places[i]], marker[1])

  def goes_on(i, scans):
    return ~is_kind(i, _END) & (scans <= most)

  def step(i, scans):
    length = tf.cast(tf.gather(data, places[i] + [2, 3]), tf.int64)
    after = places[i] + 2 + 256 * length[0] + length[1]
    following = tf.searchsorted(places, after[None])[0]
    scans += tf.cast(is_kind(i, _SCAN), tf.int32)
    return tf.minimum(following, last), scans

  i, scans = tf.while_loop(
    goes_on,
    step,
    [tf.constant(0), tf.constant(0)],
    maximum_iterations=1000 + 10 * most,  # Tables, and what cameras note.
  )
  return is_kind(i, _END) & (scans <= most)
