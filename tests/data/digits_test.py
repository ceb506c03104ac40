"""The digits: classes, split, sizes, and the way to a source."""

import tempfile

from absl.testing import absltest
import numpy as np
import sklearn.datasets

from vim_tf import config
from vim_tf.data import digits, pipeline, sources


class DigitsTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = tempfile.mkdtemp(dir=absltest.get_default_test_tmpdir())
    cls.config = config.DataConfig(
      name='digits', image_size=16, data_dir=folder
    )
    cls.sources = {
      split: sources.load(cls.config, split)
      for split in ('train', 'validation')
    }
    cls.images = {
      split: pipeline.evaluation_arrays(source, cls.config)
      for split, source in cls.sources.items()
    }
    cls.original = sklearn.datasets.load_digits()

  def test_every_digit_is_in_one_split(self):
    sizes = {name: len(labels) for name, (_, labels) in self.images.items()}
    self.assertEqual(sum(sizes.values()), 1797)
    shown = np.concatenate([images for images, _ in self.images.values()])
    labels = np.concatenate([labels for _, labels in self.images.values()])
    expected = np.stack(
      [digits.enlarge(image, 16) for image in self.original.images]
    )

    def bag(images, labels):
      return sorted(
        (int(label), np.round(image * scale).astype(np.uint8).tobytes())
        for image, label in zip(images, labels)
      )

    scale = 255.0
    found = bag(shown, labels)
    scale = 1.0
    self.assertEqual(found, bag(expected, self.original.target))

  def test_a_fifth_of_each_class_is_held_out(self):
    whole = np.bincount(self.original.target)
    held = np.bincount(self.images['validation'][1])
    np.testing.assert_allclose(held / whole, 0.2, atol=0.01)
    np.testing.assert_array_equal(
      digits.held_out(self.original.target),
      digits.held_out(self.original.target),
    )

  def test_source(self):
    source = self.sources['train']
    self.assertEqual(source.class_names, digits.CLASS_NAMES)
    self.assertFalse(any(source.flippable))
    self.assertIn('CC BY 4.0', source.licence)
    self.assertNotEqual(
      source.fingerprint, self.sources['validation'].fingerprint
    )

  def test_enlarging_keeps_what_is_seen(self):
    for index in (0, 100, 1000):
      original = self.original.images[index] * (255 / 16)
      large = digits.enlarge(self.original.images[index], 64)
      self.assertEqual((large.shape, large.dtype), ((64, 64, 3), np.uint8))
      np.testing.assert_array_equal(large[..., 0], large[..., 1])
      np.testing.assert_array_equal(large[..., 0], large[..., 2])
      means = large[..., 0].reshape(8, 8, 8, 8).mean(axis=(1, 3))
      self.assertGreater(
        np.corrcoef(means.ravel(), original.ravel())[0, 1], 0.97
      )
      np.testing.assert_array_equal(
        digits.enlarge(self.original.images[index], 8)[..., 0],
        np.round(original),
      )

  def test_refuses_no_size(self):
    with self.assertRaisesRegex(ValueError, 'at least 1'):
      digits.make_config(0)


if __name__ == '__main__':
  absltest.main()
