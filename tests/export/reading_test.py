"""Tests of what is taken out of image files, and of what is refused."""

import io
import struct

from absl.testing import absltest, parameterized
import numpy as np
from PIL import Image
import tensorflow as tf

from export import headers, reading
from tests.export import tiny

_SIZE = 16
_LIMITS = headers.Limits(side=1000, pixels=500_000)
_MUTATIONS = 48


def _of_mode(mode: str) -> Image.Image:
  """A picture of the size that is read, so that nothing is resized."""
  picture = tiny.picture(3, _SIZE, _SIZE)
  if mode in ('RGBA', 'LA'):
    picture = picture.convert('RGBA')
    picture.putalpha(tiny.picture(4, _SIZE, _SIZE).convert('L'))
  if mode == 'P':  # With few colours, which a PNG packs into few bits.
    return picture.quantize(13)
  return picture.convert(mode)


def _on_white(image: Image.Image) -> np.ndarray:
  """Pixels in [0, 1] by Pillow, transparency laid on white."""
  pixels = np.asarray(image.convert('RGBA'), np.float64) / 255.0
  alpha = pixels[..., 3:]
  return pixels[..., :3] * alpha + (1.0 - alpha)


class ReadingTest(parameterized.TestCase):
  # Not TensorFlow's: that would have the function prepared for each test.

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.read = staticmethod(
      tf.function(
        lambda files: reading.read(files, _SIZE, _LIMITS),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
      )
    )

  def _refused(self, file: bytes) -> str:
    good = tiny.encoded(_of_mode('RGB'))
    with self.assertRaises(tf.errors.InvalidArgumentError) as caught:
      self.read(tf.constant([good, file, good]))
    self.assertIn('[example 1: ', str(caught.exception))
    return str(caught.exception).split('[example 1: ')[1].split(']\n')[0]

  @parameterized.parameters(
    ('RGB', 'PNG'),
    ('L', 'PNG'),
    ('1', 'PNG'),
    ('P', 'PNG'),
    ('LA', 'PNG'),
    ('RGBA', 'PNG'),
    ('RGB', 'BMP'),
    ('L', 'BMP'),
    ('P', 'GIF'),
    ('L', 'GIF'),
  )
  def test_pixels_are_those_of_pillow(self, mode, kind):
    file = tiny.encoded(_of_mode(mode), kind)
    expected = _on_white(Image.open(io.BytesIO(file)))
    found = self.read(tf.constant([file]))[0]
    # Half a step, because what is laid on white is rounded to bytes.
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.51 / 255)

  @parameterized.parameters('RGB', 'L')
  def test_jpeg_is_close_to_pillows(self, mode):
    for progressive in (False, True):
      file = tiny.encoded(
        _of_mode(mode), 'JPEG', subsampling=0, progressive=progressive
      )
      found = self.read(tf.constant([file]))[0]
      expected = _on_white(Image.open(io.BytesIO(file)))
      np.testing.assert_allclose(found, expected, rtol=0, atol=2 / 255)

  def test_png_files_hold_the_rounded_images(self):
    images = np.random.default_rng(0).uniform(-0.1, 1.1, [3, 5, 7, 3])
    files = reading.to_png(tf.constant(images, tf.float32)).numpy()
    for file, image in zip(files, images, strict=True):
      pixels = np.asarray(Image.open(io.BytesIO(file)))
      np.testing.assert_array_equal(
        pixels, np.round(np.clip(image, 0, 1) * 255)
      )

  def test_limits(self):
    for kind in ('PNG', 'JPEG', 'BMP', 'GIF'):
      for width, height, taken in (
        (1000, 500, True),
        (1001, 10, False),
        (10, 1001, False),
        (1000, 501, False),
      ):
        file = tiny.encoded(Image.new('L', (width, height)), kind)
        if taken:
          self.assertLen(self.read(tf.constant([file])), 1)
        else:
          self.assertIn(f'it has {width} x {height} pix', self._refused(file))

  def test_a_frame_larger_than_the_screen_of_a_gif(self):
    # Decoders make room for the frame: this file of a few KB would take 12 MB,
    # and one of 60 KB a gigabyte.
    file = bytearray(tiny.encoded(Image.new('L', (2000, 2000)), 'GIF'))
    self.assertLess(len(file), 10_000)
    file[6:10] = struct.pack('<HH', _SIZE, _SIZE)
    self.assertIn('it has 2000 x 2000 pixels', self._refused(bytes(file)))

  def test_a_gif_with_other_blocks_before_its_only_frame(self):
    file = tiny.encoded(
      _of_mode('P'), 'GIF', comment=b',' * 700, transparency=2
    )
    self.assertIn(b',,,,', file)  # Commas begin frames elsewhere.
    self.assertLen(self.read(tf.constant([file])), 1)

  def test_damaged_files_are_read_or_refused_by_their_number(self):
    rng = np.random.default_rng(0)
    kinds = [
      tiny.encoded(_of_mode('RGB'), kind)
      for kind in ('PNG', 'JPEG', 'BMP', 'GIF')
    ]
    refused = 0
    for i in range(_MUTATIONS):
      file = bytearray(kinds[i % len(kinds)])
      # Headers are short: half of the damage is done there.
      end = len(file) if i % 8 < 4 else min(len(file), 60)
      for place in rng.integers(2, end, 4):
        file[place] = rng.integers(256)
      if i % 3 == 0:
        del file[rng.integers(len(file)) :]
      try:
        self.read(tf.constant([kinds[0], bytes(file)]))
      except tf.errors.InvalidArgumentError as error:
        self.assertIn('[example 1: ', str(error))
        refused += 1
    self.assertBetween(refused, _MUTATIONS // 4, _MUTATIONS)

  def test_all_examples_are_read_in_their_order(self):
    pictures = [tiny.picture(i, _SIZE, _SIZE) for i in range(20)]
    found = self.read(tf.constant([tiny.encoded(x) for x in pictures]))
    expected = [_on_white(x) for x in pictures]
    np.testing.assert_allclose(found, expected, atol=1e-6)


if __name__ == '__main__':
  absltest.main()
