"""Decoding against Pillow, and the conversion to bytes."""

import io

import numpy as np
import PIL.Image
import PIL.ImageOps
import tensorflow as tf

from vim_tf.data import images, orientation


def _encode(image: PIL.Image.Image, kind: str, **options) -> bytes:
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def _noise(mode: str, channels: int) -> PIL.Image.Image:
  pixels = np.random.default_rng(0).integers(0, 256, [9, 7, channels], np.uint8)
  return PIL.Image.fromarray(pixels.squeeze(), mode)


def _oriented(image: PIL.Image.Image, number: int, order: str) -> bytes:
  """A JPEG with an orientation, in bytes of that order ('<' or '>')."""
  exif = PIL.Image.Exif()
  exif.endian = order
  exif[0x010F], exif[0x0112], exif[0x0131] = 'Maker', number, 'Software'
  encoded = _encode(image, 'JPEG', quality=100, subsampling=0, exif=exif)
  assert (b'Exif\0\0II' if order == '<' else b'Exif\0\0MM') in encoded
  return encoded


class DecodeTest(tf.test.TestCase):
  def test_lossless_formats_are_decoded_like_pillow(self):
    palette = _noise('RGB', 3).quantize(16)
    cases = {
      'rgb png': (_noise('RGB', 3), 'PNG'),
      'gray png': (_noise('L', 1), 'PNG'),
      'palette png': (palette, 'PNG'),
      'black-and-white png': (_noise('L', 1).convert('1'), 'PNG'),
      'gif': (palette, 'GIF'),
      'rgb bmp': (_noise('RGB', 3), 'BMP'),
    }
    for name, (image, kind) in cases.items():
      with self.subTest(name):
        decoded = images.decode(tf.constant(_encode(image, kind)))
        self.assertAllEqual(
          images.to_uint8(decoded), np.asarray(image.convert('RGB'))
        )

  def test_transparency_is_laid_on_white(self):
    for mode, channels in (('RGBA', 4), ('LA', 2)):
      with self.subTest(mode):
        image = _noise(mode, channels)
        white = PIL.Image.new('RGBA', image.size, 'white')
        expected = PIL.Image.alpha_composite(white, image.convert('RGBA'))
        decoded = images.decode(tf.constant(_encode(image, 'PNG')))
        self.assertAllClose(
          decoded, np.asarray(expected.convert('RGB')) / 255.0, atol=1.01 / 255
        )

  def test_transparent_colour_of_a_palette_becomes_white(self):
    image = PIL.Image.new('P', (4, 4))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (0, 0, 2, 4))
    encoded = _encode(image, 'PNG', transparency=1)
    decoded = images.to_uint8(images.decode(tf.constant(encoded)))
    self.assertAllEqual(decoded[:, 0], [[255, 255, 255]] * 4)
    self.assertAllEqual(decoded[:, 3], [[255, 0, 0]] * 4)

  def test_jpeg_is_close_to_pillow(self):
    for mode in ('RGB', 'L', 'CMYK'):
      with self.subTest(mode):
        encoded = _encode(_noise(mode, len(mode)), 'JPEG', quality=95)
        expected = PIL.Image.open(io.BytesIO(encoded)).convert('RGB')
        decoded = images.decode(tf.constant(encoded))
        self.assertAllClose(decoded, np.asarray(expected) / 255.0, atol=0.04)

  def test_a_camera_s_orientation_is_applied_like_pillow(self):
    decode = tf.function(
      images.decode, input_signature=[tf.TensorSpec([], tf.string)]
    )
    image = _noise('RGB', 3)
    for order in '<>':  # As phones of both kinds of processors write it.
      for number in range(1, 9):
        with self.subTest(f'{order}{number}'):
          encoded = _oriented(image, number, order)
          expected = PIL.ImageOps.exif_transpose(
            PIL.Image.open(io.BytesIO(encoded))
          )
          self.assertEqual(
            expected.size, (9, 7) if number > 4 else (7, 9), 'was not read'
          )
          self.assertAllClose(
            decode(tf.constant(encoded)),
            np.asarray(expected) / 255.0,
            atol=2.01 / 255,
          )

  def test_nonsense_for_an_orientation_is_upright(self):
    encoded = _oriented(_noise('RGB', 3), 6, '<')
    start = encoded.index(b'Exif')
    header = start + 6
    cases = {
      'orientation 0': _oriented(_noise('RGB', 3), 0, '<'),
      'orientation 9': _oriented(_noise('RGB', 3), 9, '>'),
      'another tag': encoded.replace(b'\x12\x01', b'\x13\x01'),
      'no order of bytes': encoded.replace(b'II*\0', b'XX*\0'),
      'far directory': (
        encoded[: header + 4] + b'\xff' * 4 + encoded[header + 8 :]
      ),
      'elsewhere': encoded.replace(b'Exif\0\0', b'Exit\0\0')[:-2]
      + encoded[start : start + 40]
      + b'\xff\xd9',
    }
    for name, case in cases.items():
      with self.subTest(name):
        self.assertEqual(orientation.read(tf.constant(case)), 1)
    for length in range(start + 30):
      self.assertIn(int(orientation.read(encoded[:length])), (1, 6))
    self.assertEqual(orientation.read(encoded), 6)

  def test_first_frame_of_an_animation(self):
    first, second = _noise('L', 1), PIL.Image.new('L', (7, 9))
    encoded = _encode(first, 'GIF', save_all=True, append_images=[second])
    self.assertAllEqual(
      images.to_uint8(images.decode(tf.constant(encoded))),
      np.asarray(first.convert('RGB')),
    )

  def test_center_crop_keeps_the_middle(self):
    image = np.zeros([4, 10, 3], np.float32)
    image[:, 3:7] = np.random.default_rng(0).random([4, 4, 3])
    self.assertAllClose(
      images.resize_and_center_crop(tf.constant(image), 4), image[:, 3:7]
    )

  def test_downsizing_averages(self):
    """Antialiasing: a fine checkerboard becomes gray, not black or white."""
    board = np.indices([64, 64]).sum(0) % 2
    image = np.repeat(board[..., None], 3, -1).astype(np.float32)
    small = images.resize_and_center_crop(tf.constant(image), 8)
    self.assertAllClose(small, np.full([8, 8, 3], 0.5), atol=0.05)


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
