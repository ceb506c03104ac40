"""Tests of what is taken out of image files, and of what is refused."""

import io
import struct
import zlib

from absl.testing import absltest
import numpy as np
from PIL import Image
import tensorflow as tf

from export import headers, reading, settings
from tests.data import odd_pictures
from tests.export import tiny

_SIZE = odd_pictures.SIZE
_LIMITS = settings.Settings(max_side=1000, max_pixels=500_000, max_scans=20)
_MUTATIONS = 48
_GOOD = odd_pictures.encode(odd_pictures.noise('RGB'))


def _segment(marker: int, content: bytes) -> bytes:
  return struct.pack('>BBH', 0xFF, marker, len(content) + 2) + content


class ReadingTest(absltest.TestCase):
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
    with self.assertRaises(tf.errors.InvalidArgumentError) as caught:
      self.read(tf.constant([_GOOD, file, _GOOD]))
    self.assertIn('[example 1: ', str(caught.exception))
    return str(caught.exception).split('[example 1: ')[1].split(']\n')[0]

  def test_other_kinds_are_refused(self):
    for name, file in odd_pictures.refused().items():
      self.assertRegex(
        self._refused(file),
        f'it is a {name} image: convert it|the bytes are not a JPEG or PNG',
      )

  def test_png_files_hold_the_rounded_images(self):
    images = np.random.default_rng(0).uniform(-0.1, 1.1, [3, 5, 7, 3])
    files = reading.to_png(tf.constant(images, tf.float32)).numpy()
    for file, image in zip(files, images, strict=True):
      pixels = np.asarray(Image.open(io.BytesIO(file)))
      np.testing.assert_array_equal(
        pixels, np.round(np.clip(image, 0, 1) * 255)
      )

  def test_limits(self):
    for kind in ('PNG', 'JPEG'):
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

  def test_scans(self):
    """Those of the image count, wherever the bytes of others lie."""
    photo = odd_pictures.encode(
      odd_pictures.noise('RGB'), 'JPEG', progressive=True
    )
    start = photo.rindex(b'\xff\xda')
    other = photo[:-2] + photo[start:-2] * (20 - photo.count(b'\xff\xda'))
    scans = photo[start:-2] * 100
    taken = {
      'the most': other + photo[-2:],
      'in a film': photo + b'\xff\xda\0\0' * 10_000,
      'in a thumbnail': photo[:2] + _segment(0xE1, scans[:60_000]) + photo[2:],
      'in a comment': other + _segment(0xFE, scans) + photo[-2:],
    }
    refused = {
      'one more': other + photo[start:],
      'behind an end in a comment': other
      + _segment(0xFE, b'\xff\xd9')
      + photo[start:],
      'behind what has no length': other + b'\xff\1\xff\xd0' + photo[start:],
      'behind filling bytes': other + b'\xff\xff' + photo[start:],
      'one after another': photo[:-2] + scans,
      'behind many comments': photo[:2]
      + _segment(0xFE, b'') * 10_000
      + photo[2:-2]
      + scans,
    }
    for name, file in taken.items():
      with self.subTest(name):
        found = self.read(tf.constant([file]))
        np.testing.assert_allclose(
          found[0], odd_pictures.by_pillow(file), rtol=0, atol=2.01 / 255
        )
    for name, file in refused.items():
      with self.subTest(name):
        self.assertIn('it has more than 20 scans', self._refused(file))

  def test_packed_texts(self):
    rows = np.zeros([_SIZE, 3 * _SIZE], np.uint8)
    text = zlib.compress(bytes(1000))
    for name, head in ((b'zTXt', b'a\0\0'), (b'iTXt', b'a\0\1\0\0\0')):
      chunks = [(name, head + text)] * 21
      self.assertLen(
        self.read(tf.constant([odd_pictures.png(8, 2, rows, chunks[:20])])), 1
      )
      self.assertIn(
        'it has more than 20 texts',
        self._refused(odd_pictures.png(8, 2, rows, chunks)),
      )

  def test_a_photograph_of_24_megapixels_is_taken(self):
    header = tiny.encoded(Image.new('1', (8, 8)))
    for width, height, taken in ((6048, 4024, True), (8160, 6120, False)):
      sides = struct.pack('>II', width, height)
      found = headers.problem(
        tf.constant(header[:16] + sides + header[24:]), settings.DEFAULTS
      )
      self.assertEqual(found == '', taken, found)


if __name__ == '__main__':
  absltest.main()
