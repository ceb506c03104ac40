"""Tests of the import of a whole checkpoint: what is left, what is refused."""

import hashlib
import os
import pathlib

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests.interop import enhancing_reference as reference
from vim_tf.config import UserError
from vim_tf.interop import imported_run
from vim_tf.jobs import restore
from vim_tf.training import workdir as workdir_lib


class ImportedRunTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self._folder = pathlib.Path(self.create_tempdir())
    self._path = self._folder / 'vitvq.ckpt'
    self._workdir = self._folder / 'runs' / 'imported'
    self._weights = reference.random_weights(reference.Sizes())

  def _write(self, **contents):
    reference.write_checkpoint(self._path, self._weights, **contents)

  def _assert_refused(self, message: str):
    with self.assertRaisesRegex(UserError, message) as caught:
      imported_run.import_checkpoint(self._path, self._workdir)
    self.assertLen(str(caught.exception).splitlines(), 1)
    self.assertFalse(self._workdir.exists())
    self.assertEmpty(list(self._folder.glob('runs/*')))

  def test_what_is_left(self):
    self._write()
    source = imported_run.import_checkpoint(self._path, self._workdir)
    self.assertEqual(os.listdir(self._workdir.parent), ['imported'])
    restored = restore.tokenizer(self._workdir)
    self.assertEqual(restored.step, 1234)
    self.assertEqual(restored.record['source'], source)
    self.assertEqual(
      source,
      {
        'format': 'enhancing-transformers',
        'file': 'vitvq.ckpt',
        'sha256': hashlib.sha256(self._path.read_bytes()).hexdigest(),
        'steps': 1234,
        'epochs': 3,
        'tensors': len(self._weights) - 3,
        'dropped': {'loss.perceptual_loss': 1, 'loss.discriminator': 2},
      },
    )
    self.assertEqual(restored.config.losses.logit_laplace, 0.0)
    with self.subTest('a second import does not overwrite'):
      before = workdir_lib.read(self._workdir)
      with self.assertRaisesRegex(UserError, 'exists already'):
        imported_run.import_checkpoint(self._path, self._workdir)
      self.assertEqual(workdir_lib.read(self._workdir), before)

  def test_steps_may_be_unknown(self):
    self._write(global_step=None, epoch='three')
    self._workdir.mkdir(parents=True)  # An empty folder may be there.
    source = imported_run.import_checkpoint(self._path, self._workdir)
    self.assertIsNone(source['steps'])
    self.assertIsNone(source['epochs'])
    restored = restore.tokenizer(self._workdir)
    self.assertEqual(restored.step, 1)
    self.assertAllClose(
      restored.model.quantizer.codebook,
      self._weights['quantizer.embedding.weight'],
    )

  def test_no_checkpoint_of_lightning(self):
    for contents in ({'state_dict': None}, {'state_dict': [1]}):
      self._write(**contents)
      self._assert_refused('cannot be imported. It has no state_dict')
    self._write(state_dict={'encoder.x': 5})
    self._assert_refused('encoder.x in its state_dict is of type int')
    self._write(state_dict={7: np.zeros(3)})
    self._assert_refused('7 in its state_dict is of type Tensor')

  def test_damaged_numbers(self):
    self._write()
    content = bytearray(self._path.read_bytes())
    bias = self._weights['pre_quant.bias'].tobytes()
    content[content.index(bias)] ^= 255
    self._path.write_bytes(content)
    self._assert_refused('vitvq.ckpt has no numbers in .*data/.*Bad CRC')

  def test_a_file_in_place_of_the_workdir(self):
    self._write()
    self._workdir = self._path
    with self.assertRaisesRegex(UserError, 'exists already'):
      imported_run.import_checkpoint(self._path, self._path)


if __name__ == '__main__':
  tf.test.main()
