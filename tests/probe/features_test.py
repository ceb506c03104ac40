"""Features of a VIM's blocks: averages, no labels, nothing changed; tables."""

import itertools
from unittest import mock

import numpy as np
import tensorflow as tf

from tests import testing
from vim_tf.config import UserError
from vim_tf.probe import features
from vim_tf.vim import model as model_lib

_CODES = tf.constant(np.random.default_rng(1).integers(0, 11, [4, 9]), tf.int32)


def _model(num_classes: int = 5) -> model_lib.VIM:
  model = model_lib.VIM(testing.vim_config(num_classes=num_classes))
  model.build()
  testing.randomize(model)
  return model


class BlockFeaturesTest(tf.test.TestCase):
  def test_are_averages_of_a_full_pass(self):
    for num_classes in (0, 5):
      model = _model(num_classes)
      full = model.intermediates(_CODES, tf.fill([4], num_classes))
      for block in range(2):
        found = features.block_features(model, _CODES, block)
        self.assertEqual(list(found), [f'block_{i}' for i in range(block + 1)])
        for name, value in found.items():
          self.assertAllClose(value, full[name].numpy().mean(axis=1), atol=1e-6)
      self.assertEqual(
        list(features.block_features(model, _CODES)), ['block_0', 'block_1']
      )

  def test_class_is_never_fed(self):
    model = _model()
    expected = features.block_features(model, _CODES)['block_1']
    table = model.start_embedding.embeddings
    # Of all the rows of the class table 'no class' alone is read.
    table.assign(tf.concat([np.nan * table[:-1], table[-1:]], axis=0))
    self.assertAllEqual(
      features.block_features(model, _CODES)['block_1'], expected
    )

  def test_later_blocks_are_not_run(self):
    model = _model()
    expected = features.block_features(model, _CODES, 0)['block_0']
    for weight in model.transformer.blocks[1].weights:
      weight.assign(np.nan * weight)
    self.assertAllEqual(
      features.block_features(model, _CODES, 0)['block_0'], expected
    )
    # Nor are they in the graph.
    sizes = [
      len(
        tf.function(lambda c, k=k: features.block_features(model, c, k))
        .get_concrete_function(_CODES)
        .graph.get_operations()
      )
      for k in range(2)
    ]
    self.assertGreater(sizes[1], 1.5 * sizes[0])

  def test_under_xla(self):
    model = _model()
    compiled = tf.function(
      lambda codes: features.block_features(model, codes), jit_compile=True
    )
    expected = features.block_features(model, _CODES)
    for name, value in compiled(_CODES).items():
      self.assertAllClose(value, expected[name], atol=1e-5)

  def test_bfloat16_is_averaged_in_float32(self):
    model = model_lib.VIM(testing.vim_config(), dtype='mixed_bfloat16')
    model.build()
    testing.randomize(model)
    out = model.intermediates(_CODES, tf.fill([4], 5))['block_1']
    found = features.block_features(model, _CODES)['block_1']
    self.assertEqual(found.dtype, tf.float32)
    self.assertAllClose(
      found, tf.cast(out, tf.float32).numpy().mean(axis=1), atol=1e-5, rtol=1e-5
    )


class TabulateTest(tf.test.TestCase):
  def _batches(self, sign, count=5):
    """`count` images of one pixel with the values 1, 2, ... in threes."""
    values = sign * np.arange(1.0, count + 1).astype(np.float32)
    for first in range(0, count, 3):
      part = values[first : first + 3]
      missing = 3 - len(part)
      yield {
        'images': tf.constant(np.pad(part, [0, missing])[:, None, None, None]),
        'labels': tf.constant(np.pad(abs(part).astype(np.int32), [0, missing])),
        'mask': tf.constant(np.pad(np.ones(len(part)), [0, missing])),
      }

  def _tabulate(self, passes, count=5, may_lack=False):
    def compute(images):
      x = images[:, 0, 0]
      return {'x': x, 'both': tf.concat([x, x**2], axis=1)}

    folder = self.create_tempdir().full_path
    return features.tabulate(compute, passes, count, folder, may_lack)

  def test_every_pass_of_every_image(self):
    for limit in (features.MAX_MEMORY, 0):  # In memory, then in a file.
      with mock.patch.object(features, 'MAX_MEMORY', limit):
        table = self._tabulate([self._batches(1), self._batches(-1)])
      self.assertEqual(isinstance(table.features['x'], np.memmap), limit == 0)
      self.assertEqual((table.num_passes, table.num_images), (2, 5))
      expected = np.stack([np.arange(1, 6), -np.arange(1, 6)])
      self.assertAllEqual(table.features['x'][..., 0], expected)
      self.assertAllEqual(table.features['both'][..., 1], expected**2)
      self.assertAllEqual(table.labels, np.arange(1, 6))
      self.assertEqual(list(table.only(['both']).features), ['both'])

  def test_views(self):
    table = self._tabulate([self._batches(s) for s in (1, -1, 1)])
    some = np.array([4, 1])
    found, labels = table.views(some, augmented=False)
    self.assertAllEqual(found['x'][:, 0], [5, 2])
    self.assertAllEqual(labels, [5, 2])
    found, labels = table.views(some, augmented=True)
    self.assertAllEqual(found['x'][:, 0], [-5, -2, 5, 2])
    self.assertAllEqual(found['both'][:, 1], [25, 4, 25, 4])
    self.assertAllEqual(labels, [5, 2, 5, 2])

  def test_some_may_lack(self):
    table = self._tabulate([self._batches(1), self._batches(-1)], 7, True)
    self.assertEqual((table.num_passes, table.num_images), (2, 5))
    self.assertAllEqual(table.labels, np.arange(1, 6))
    with self.assertRaisesRegex(UserError, 'gave 4, but there are 5'):
      self._tabulate([self._batches(1), self._batches(-1, 4)], 7, True)

  def test_refuses_another_number_of_images(self):
    for count in (4, 7):
      with self.assertRaisesRegex(UserError, 'A pass over the images gave'):
        self._tabulate([self._batches(1)], count)
    endless = itertools.cycle(self._batches(1, 3))
    with self.assertRaisesRegex(UserError, 'A pass over the images gave'):
      self._tabulate([endless])


if __name__ == '__main__':
  tf.test.main()
