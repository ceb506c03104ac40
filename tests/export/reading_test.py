"""Tests of what is taken out of image files, and of what is refused."""

import io

from absl.testing import absltest
import numpy as np
from PIL import Image
import tensorflow as tf

from export import reading, settings
from tests.data import odd_pictures
from tests.export import tiny

_SIZE = odd_pictures.SIZE
_LIMITS = settings.Limits(side=1000, pixels=500_000)
_MUTATIONS = 48
_GOOD = odd_pictures.encode(odd_pictures.noise('RGB'))


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

  def test_pixels_are_those_of_pillow(self):
    files = odd_pictures.exact()
    found = self.read(tf.constant(list(files.values())))
    for (name, file), image in zip(files.items(), found, strict=True):
      with self.subTest(name):  # What is laid on white is rounded to bytes.
        np.testing.assert_allclose(
          image, odd_pictures.by_pillow(file), rtol=0, atol=0.51 / 255
        )

  def test_jpeg_is_close_to_pillows(self):
    files = odd_pictures.close()
    found = self.read(tf.constant(list(files.values())))
    for (name, file), image in zip(files.items(), found, strict=True):
      with self.subTest(name):
        np.testing.assert_allclose(
          image, odd_pictures.by_pillow(file), rtol=0, atol=2.01 / 255
        )

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

  def test_damaged_files_are_read_or_refused_by_their_number(self):
    rng = np.random.default_rng(0)
    kinds = [_GOOD, *odd_pictures.close().values()]
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
    expected = [np.asarray(x) / 255.0 for x in pictures]
    np.testing.assert_allclose(found, expected, atol=1e-6)


if __name__ == '__main__':
  absltest.main()
