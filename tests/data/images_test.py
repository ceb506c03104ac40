"""Decoding against Pillow, and the conversion to bytes."""

import io
import struct
from unittest import mock
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps
import tensorflow as tf

from tests import testing
from tests.data import odd_pictures
from vim_tf.data import errors, folders, images

_EXIF, _SHORT, _LONG = 0xE1, 3, 4


def _segment(marker: int, content: bytes) -> bytes:
  return struct.pack('>BBH', 0xFF, marker, len(content) + 2) + content


def _exif(value: int, order='<', kind=_SHORT, count=1, tag=0x0112) -> bytes:
  """A segment that notes an orientation, in bytes of an order."""
  if kind == _SHORT:
    number = struct.pack(order + 'HH', value, 0)
  else:
    number = struct.pack(order + 'I', value)
  header = b'II*\0' if order == '<' else b'MM\0*'
  entries = struct.pack(order + 'IHHHI', 8, 1, tag, kind, count) + number
  return _segment(_EXIF, b'Exif\0\0' + header + entries + bytes(4))


def _oriented() -> dict[str, tuple[bytes, bool]]:
  """JPEG files, and whether Pillow turns them."""
  image = odd_pictures.noise('RGB').crop((0, 0, 7, 9))
  plain = odd_pictures.encode(image, 'JPEG', quality=100, subsampling=0)
  note = _exif(6)
  headers = {
    'after large segments': _segment(0xED, bytes(60_000)) * 2 + note,
    'after a comment': _segment(0xFE, b'Exif') + note,
    'after a filling byte': b'\xff' + note,
    'after some': b'\xff\xff\xff' + note,
    'long': _exif(6, kind=_LONG),
    'long, big-endian': _exif(6, '>', _LONG),
    'another before': note + _exif(3),
  }
  for order in '<>':  # As phones of both kinds of processors write it.
    for number in range(2, 9):
      headers[f'{number} in {order}'] = _exif(number, order)
  upright = {
    'none': b'',
    'in a text': _segment(0xFE, note),
    'none of a thumbnail': _segment(0xED, plain + note),
    'upright': _exif(1),
    '0': _exif(0),
    '9': _exif(9),
    'not 6': _exif(65536 + 6, kind=_LONG),
    'of another kind': _exif(6, kind=5),
    'of none': _exif(6, count=0),
    'another tag': _exif(6, tag=0x0113),
    'no order of bytes': note.replace(b'II*\0', b'XX*\0'),
    'far directory': note.replace(b'*\0\x08\0\0\0', b'*\0\xff\xff\xff\xff'),
    'no Exif': note.replace(b'Exif', b'Exit'),
  }
  found = {
    name: (plain[:2] + header + plain[2:], True)
    for name, header in headers.items()
  }
  for name, header in upright.items():
    found[name] = plain[:2] + header + plain[2:], False
  found['after the head of JFIF'] = plain[:20] + note + plain[20:], True
  found['after the end'] = plain + note, False
  return found


class DecodeTest(testing.TestCase):
  def test_all_kinds_of_png_are_decoded_like_pillow(self):
    for name, encoded in odd_pictures.exact().items():
      with self.subTest(name):
        folders.check_image(encoded, name)
        self.assertAllClose(
          images.decode(tf.constant(encoded)),
          odd_pictures.by_pillow(encoded),
          atol=1e-6,
          rtol=0,
        )

  def test_a_transparent_gray_of_few_bits(self):
    """Which Pillow takes for a value of 8 bits."""
    for depth in (2, 4):
      rows = np.array([[0b00011011, 0b01010001]], np.uint8)
      encoded = odd_pictures.png(depth, 0, rows, [(b'tRNS', b'\0\1')])
      bits = np.unpackbits(rows).reshape(-1, depth)
      values = bits @ 2 ** np.arange(depth)[::-1]
      expected = np.where(values == 1, 1.0, values / (2**depth - 1))
      self.assertAllClose(
        images.decode(tf.constant(encoded))[0],
        np.repeat(expected, 3).reshape(-1, 3),
      )

  def test_all_kinds_of_jpeg_are_close_to_pillow(self):
    for name, encoded in odd_pictures.close().items():
      with self.subTest(name):
        folders.check_image(encoded, name)
        self.assertAllClose(
          images.decode(tf.constant(encoded)),
          odd_pictures.by_pillow(encoded),
          atol=2.01 / 255,
          rtol=0,
        )

  def test_other_kinds_are_refused(self):
    for name, encoded in odd_pictures.refused().items():
      with self.subTest(name):
        with self.assertRaisesRegex(
          tf.errors.InvalidArgumentError, f'{name} image|not a JPEG or PNG'
        ):
          images.decode(tf.constant(encoded))
        with self.assertRaisesRegex(
          errors.DataError, f'x is a (?i:{name}) image'
        ):
          folders.check_image(encoded, 'x')

  def test_what_is_cut_short_is_an_error(self):
    for encoded in (
      odd_pictures.encode(odd_pictures.noise('RGB')),
      odd_pictures.encode(odd_pictures.noise('RGB'), 'JPEG'),
    ):
      for length in (*range(0, 60, 7), len(encoded) // 2):
        with self.assertRaises(tf.errors.InvalidArgumentError):
          images.decode(tf.constant(encoded[:length]))

  def test_a_camera_s_orientation_is_applied_like_pillow(self):
    decode = tf.function(
      images.decode, input_signature=[tf.TensorSpec([], tf.string)]
    )
    for name, (encoded, turned) in _oriented().items():
      with self.subTest(name):
        folders.check_image(encoded, name)
        image = PIL.Image.open(io.BytesIO(encoded))
        expected = PIL.ImageOps.exif_transpose(image)
        self.assertEqual(not np.array_equal(expected, image), turned)
        self.assertAllClose(
          decode(tf.constant(encoded)),
          np.asarray(expected) / 255.0,
          atol=2.01 / 255,
        )

  def test_a_cut_header_is_no_error(self):
    encoded, _ = _oriented()['6 in <']
    for length in range(60):
      found = images.orientation(tf.constant(encoded[:length]))
      self.assertIn(int(found), (1, 6))
    self.assertEqual(images.orientation(tf.constant(encoded)), 6)

  def test_center_crop_keeps_the_middle(self):
    image = np.zeros([4, 10, 3], np.float32)
    image[:, 3:7] = np.random.default_rng(0).random([4, 4, 3])
    self.assertAllClose(images.center_crop(tf.constant(image)), image[:, 3:7])

  def test_large_images_in_strips(self):
    """Are what they are at once, to the last bit."""
    self.enter_context(mock.patch.object(images, '_STRIP', 64))
    self.addCleanup(images._traced.cache_clear)
    images._traced.cache_clear()
    pixels = np.random.default_rng(0).integers(0, 256, [9, 301, 4], np.uint8)
    for mode, kind in (('RGBA', 'PNG'), ('RGB', 'JPEG')):
      image = PIL.Image.fromarray(pixels[..., : len(mode)], mode)
      encoded = tf.constant(odd_pictures.encode(image.resize((301, 277)), kind))
      whole = images.center_crop(images.decode(encoded))
      self.assertAllEqual(
        images.decode_square(encoded, 32),
        images.to_uint8(images.resize(whole, 32)),
      )

  def test_downsizing_averages(self):
    """Antialiasing: a fine checkerboard becomes gray, not black or white."""
    board = np.indices([64, 64]).sum(0) % 2
    image = np.repeat(board[..., None], 3, -1).astype(np.float32)
    small = images.resize(tf.constant(image), 8)
    self.assertAllClose(small, np.full([8, 8, 3], 0.5), atol=0.05)


class CheckTest(testing.TestCase):
  def assert_refused(self, encoded: bytes, message: str, path='x.jpg'):
    with self.assertRaisesRegex(errors.DataError, message) as raised:
      folders.check_image(encoded, path)
    self.assertNotIn('\n', str(raised.exception))

  def test_where_a_jpeg_ends(self):
    """It is sound if TensorFlow decodes it."""
    photo = odd_pictures.encode(odd_pictures.noise('RGB'), 'JPEG', quality=95)
    wide = odd_pictures.encode(
      odd_pictures.noise('RGB').resize((160, 90)), 'JPEG', progressive=True
    )
    thumbnail = photo[:2] + _segment(_EXIF, b'Exif\0\0' + wide) + photo[2:]
    film = b'\0\0\0\x18ftypmp42' + bytes(range(256)) * 12_000
    cases = {
      'a motion photo': (photo + film, True),
      'a film without end markers': (thumbnail + bytes(3_000_000), True),
      'several scans': (wide, True),
      'a thumbnail': (thumbnail, True),
      'cut after a thumbnail': (thumbnail[:-300], False),
      'cut in a later scan': (wide[:-40], False),
      'cut in the thumbnail': (thumbnail[:300], False),
      'cut before its end': (photo[:-2], False),
    }
    for name, (encoded, sound) in cases.items():
      with self.subTest(name):
        if sound:
          folders.check_image(encoded, name)
          images.decode(tf.constant(encoded))
          continue
        self.assert_refused(encoded, 'x.jpg is .*broken')
        with self.assertRaises(tf.errors.InvalidArgumentError):
          images.decode(tf.constant(encoded))

  def test_too_many_pixels(self):
    row = bytearray(odd_pictures.encode(PIL.Image.new('1', (8, 8))))
    row[16:24] = struct.pack('>II', 16320, 12240)
    row[29:33] = struct.pack('>I', zlib.crc32(row[12:29]))
    self.assert_refused(bytes(row), 'x.jpg has more than 178 million pixels')

  def test_a_name_that_is_not_utf_8(self):
    self.assert_refused(b'', r'caf\\xe9.jpg is not an image', 'caf\udce9.jpg')


class BytesTest(tf.test.TestCase):
  def test_round_trip(self):
    values = tf.range(256, dtype=tf.int32)
    values = tf.cast(values, tf.uint8)
    self.assertAllEqual(images.to_uint8(images.from_uint8(values)), values)

  def test_rounds_and_clamps(self):
    values = tf.constant([-1.0, 0.0, 0.4 / 255, 0.6 / 255, 1.0, 7.0])
    self.assertAllEqual(images.to_uint8(values), [0, 0, 0, 1, 255, 255])


if __name__ == '__main__':
  tf.test.main()
