"""Test of the probe by running it, and both stages, on the digits."""

import dataclasses
import json
import shutil

from absl.testing import parameterized
import numpy as np
from PIL import Image
import tensorflow as tf

from tests import testing
from tests.experiments import running
import vim_tf
from vim_tf.data import pipeline, sources
from vim_tf.jobs import probe_features, restore
from vim_tf.training import workdir as workdir_lib

_SMALL = ('--batch_size=4', '--steps=2', '--decay_end=9', '--image_size=16')
_PROBE = ('--steps=30', '--batch_size=32')


class TrainProbeTest(running.Refused, parameterized.TestCase, tf.test.TestCase):
  leaves_folder = True

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root = testing.new_folder('probe')
    cls.binaries = {
      name: running.Binary(name)
      for name in ('train_vit_vqgan', 'train_vim', 'train_probe')
    }
    cls.tokenizer, cls.vim = cls.root / 'tokenizer', cls.root / 'vim'
    data = ('--preset=tiny', '--data=digits', f'--data_dir={cls.root / "data"}')
    with testing.eagerly():
      cls._train(
        'train_vit_vqgan', *data, *_SMALL, f'--workdir={cls.tokenizer}'
      )
      cls._train(
        'train_vim',
        *data,
        *_SMALL,
        f'--workdir={cls.vim}',
        f'--tokenizer={cls.tokenizer}',
        '--num_classes=10',
      )
    cls.trained = [running.snapshot(p) for p in (cls.tokenizer, cls.vim)]
    cls.out = cls.root / 'all'
    cls.result = cls._probe(f'--workdir={cls.out}', '--block=all', '--passes=0')
    assert cls.result.status == 0, cls.result.error
    cls.record = json.loads((cls.out / 'figures.json').read_text())

  @classmethod
  def _train(cls, name, *arguments):
    result = cls.binaries[name].run(*arguments)
    assert result.status == 0, result.error

  @classmethod
  def _probe(cls, *arguments):
    flags = ('--preset=tiny', *_PROBE, f'--vim={cls.vim}')
    return cls.binaries['train_probe'].run(*flags, *arguments)

  def test_what_is_left(self):
    figures = self.record['figures']
    self.assertEqual([row['block'] for row in figures['blocks']], [0, 1])
    self.assertEqual(figures['held_out_images'], 359)
    # A few steps are enough to tell digits by their pixels.
    self.assertGreater(figures['baselines']['pixels']['top1'], 0.7)
    self.assertIsNone(figures['top1_standard_error'])
    with Image.open(self.out / 'accuracy_by_block.png') as image:
      self.assertGreater(image.width, 300)
    _, vim = restore.both(self.vim)
    self.assertEqual(
      restore.fingerprint(vim.model),
      self.record['protocol']['vim_fingerprint'],
    )

  def test_its_run_classifies_as_it_was_measured(self):
    run = vim_tf.load(self.out)
    held_out = sources.load(run.config.data, run.config.data.eval_split)
    images, labels = pipeline.evaluation_arrays(held_out, run.config.data)
    found = run.classify(images)
    self.assertAllClose(found.sum(axis=1), np.ones([359]))
    self.assertAlmostEqual(
      np.mean(found.argmax(axis=1) == labels),
      self.record['figures']['top1'],
      delta=1e-6,
    )
    self.assertLen(run.class_names, 10)

  def test_goes_on_by_its_working_directory_alone(self):
    """Of a probe that is moved and done: to the same figures."""
    shutil.copytree(self.out, self._new)
    (self._new / 'figures.json').unlink()
    result = self.binaries['train_probe'].run(f'--workdir={self._new}')
    self.assertEqual(result.status, 0, result.error)
    self.assertEqual(
      json.loads((self._new / 'figures.json').read_text())['figures'],
      self.record['figures'],
    )
    result = self._probe(f'--workdir={self._new}', '--steps=40')
    self.assertEqual(result.status, 1, result.error)
    self.assertIn('run.num_steps=30, not 40', result.error_lines[0])

  def test_changes_nothing_in_what_is_probed(self):
    self.assertEqual(
      [running.snapshot(p) for p in (self.tokenizer, self.vim)], self.trained
    )

  def test_tells_of_the_perceptual_loss_behind_a_fine_tuned_decoder(self):
    behind, tuned = self._new / 'behind', self._new / 'tuned'
    for folder in (behind, tuned):
      shutil.copytree(self.tokenizer, folder)
    record = workdir_lib.read(behind)
    record['config']['losses']['perceptual'] = 0.1
    workdir_lib.write_json(behind / 'config.json', record)
    tokenizer = restore.tokenizer(tuned)
    self.assertFalse(probe_features.uses_labels(tokenizer))
    config = dataclasses.replace(
      tokenizer.config,
      finetune_decoder_of=str(behind),
      codebook=dataclasses.replace(
        tokenizer.config.codebook, init_from_data=False
      ),
    )
    tokenizer = dataclasses.replace(tokenizer, config=config)
    self.assertTrue(probe_features.uses_labels(tokenizer))

  # ---------------------------------------------------------- what is refused

  @parameterized.parameters(
    ('--block=2', 'There is no block 2: the VIM has the blocks 0 to 1.'),
    ('--block=middle', "block is 'middle', but must be an index from 0"),
    ('--eval_split=test', "no split 'test'"),
  )
  def test_refuses(self, flag, text):
    self._assert_refused(self._probe(f'--workdir={self._new}', flag), text)

  def test_refuses_another_kind_of_run(self):
    self._assert_refused(
      self.binaries['train_probe'].run(
        f'--workdir={self._new}', f'--vim={self.tokenizer}'
      ),
      "holds a run of kind 'vit_vqgan', not 'vim'",
    )
    self._assert_refused(
      self.binaries['train_probe'].run(f'--workdir={self._new}'),
      'No VIM was given: set --vim',
    )


if __name__ == '__main__':
  tf.test.main()
