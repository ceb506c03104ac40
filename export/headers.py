"""What the header of an image file tells, inside of a graph.

A server decodes what strangers send: a file's size and kind are known before
anything is decoded.
"""

import tensorflow as tf

from export.limits import Limits


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
  # Zeros after the end, so that a short file has all the bytes of a header.
  data = tf.concat(
    [tf.io.decode_raw(encoded, tf.uint8), tf.zeros([32], tf.uint8)], axis=0
  )
  header = tf.ensure_shape(data[:32], [32])

  def starts(magic: bytes):
    return tf.equal(tf.strings.substr(encoded, 0, len(magic)), magic)

  def of_jpeg():
    shape = tf.cast(tf.io.extract_jpeg_shape(encoded), tf.int64)
    return _first(
      _size_problem(shape[0], shape[1], limits),
      _if(shape[2] == 4, 'it is a CMYK or YCCK JPEG: convert the image to RGB'),
    )

  def of_png():
    before_pixels = tf.strings.split([encoded], b'IDAT', maxsplit=1).values[0]
    animated = tf.size(tf.strings.split([before_pixels], b'acTL').values) > 1
    return _first(
      _size_problem(_number(header[20:24]), _number(header[16:20]), limits),
      _if(header[24] == 16, 'it is a 16-bit PNG: convert the image to 8 bits'),
      _if(animated, 'it is an animated PNG: send one of its frames'),
    )

  def of_gif():
    frames, height, width = _gif_frames(data)
    return _first(
      _size_problem(height, width, limits),
      _if(frames > 1, 'it is an animated GIF: send one of its frames'),
    )

  def of_bmp():
    width = tf.bitcast(header[18:22], tf.int32)
    height = tf.bitcast(header[22:26], tf.int32)  # Below 0: top row first.
    return _size_problem(
      tf.abs(tf.cast(height, tf.int64)), tf.cast(width, tf.int64), limits
    )

  return tf.case(
    [
      (tf.equal(encoded, ''), lambda: tf.constant('the image has no bytes')),
      (starts(b'\xff\xd8\xff'), of_jpeg),
      (starts(b'\x89PNG\r\n\x1a\n'), of_png),
      (starts(b'GIF8'), of_gif),
      (starts(b'BM'), of_bmp),
    ],
    default=lambda: tf.constant(
      'the bytes are not a JPEG, PNG, BMP or GIF image'
    ),
  )


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
  return _first(
    tf.where(too_large, text, ''),
    _if((height < 1) | (width < 1), 'its header tells of no pixels'),
  )


def _if(condition: tf.Tensor, text: str) -> tf.Tensor:
  return tf.where(condition, text, '')


def _first(*problems: tf.Tensor) -> tf.Tensor:
  """The first of some problems that is one."""
  found = problems[0]
  for other in problems[1:]:
    found = tf.where(tf.equal(found, ''), other, found)
  return found


def _number(data: tf.Tensor) -> tf.Tensor:
  """Unsigned number of bytes, the highest first, as int64."""
  weights = [256**i for i in reversed(range(data.shape[0]))]
  return tf.reduce_sum(tf.cast(data, tf.int64) * tf.constant(weights, tf.int64))


def _gif_frames(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
  """Frames of a GIF, counted up to 2, by walking over its blocks.

  Not `tf.io.decode_gif`, which would decode all of them: a small file may hold
  gigabytes.

  Args:
    data: The bytes, with zeros after the end.

  Returns:
    How many there are, and the largest height and width that the screen or one
    of them has (int64): a decoder makes room for a frame, whatever the screen.
  """
  last = tf.size(data) - 1

  def byte(position):
    return tf.cast(data[tf.minimum(position, last)], tf.int32)

  def size(position):
    """Height and width, two bytes each, the width and the low byte first."""
    low_high = [
      byte(position + i) + 256 * byte(position + i + 1) for i in (2, 0)
    ]
    return tf.stack(low_high)

  def table(flags):  # Size of the colours that follow a descriptor.
    return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(2, flags % 8), 0)

  def after_blocks(position):
    """Where the chain of counted blocks at `position` ends."""
    position = tf.while_loop(
      lambda p: byte(p) > 0, lambda p: [p + 1 + byte(p)], [position]
    )[0]
    return position + 1

  def step(position, frames, largest):
    is_frame = tf.equal(byte(position), 0x2C)
    start = position + tf.where(is_frame, 11 + table(byte(position + 9)), 2)
    found = tf.where(is_frame, size(position + 5), 0)
    return (
      after_blocks(start),
      frames + tf.cast(is_frame, tf.int32),
      tf.maximum(largest, found),
    )

  def goes_on(position, frames, _):
    kind = byte(position)
    return (frames < 2) & (tf.equal(kind, 0x2C) | tf.equal(kind, 0x21))

  start = 13 + table(byte(10))
  _, frames, largest = tf.while_loop(
    goes_on, step, [start, tf.constant(0), size(6)]
  )
  return frames, *tf.unstack(tf.cast(largest, tf.int64))
