"""Tests of `train_vit_vqgan`: its flags, what it refuses, fine-tuning."""

import contextlib
import hashlib
import os
import pathlib
import pickle
import shutil
import sys

from absl.testing import parameterized
import numpy as np
import tensorflow as tf
from tensorflow.python.framework import config as tf_config

from tests import testing
from tests.experiments import running, tiny_runs
from vim_tf import config as config_lib
from vim_tf import presets
from vim_tf.config import Stage1Config
from vim_tf.jobs import restore
from vim_tf.training import workdir as workdir_lib
from vim_tf.vit_vqgan import lpips

# What is chosen by preset or with --set, and what belongs to one network only.
_WITHOUT_FLAG = (
  'model.encoder.',
  'model.decoder.',
  'discriminator_optimizer.ema_decay',
  'discriminator_optimizer.accumulate',
  'finetune_decoder_of',  # Is a flag, but chooses other defaults as well.
)
_SMALL = ('--batch_size=4', '--log_every=1', '--checkpoint_every=1')


class _BinaryTest(running.Refused, parameterized.TestCase, tf.test.TestCase):
  leaves_folder = True

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root = testing.new_folder(cls.__name__)
    cls.images = tiny_runs.shared().images
    cls.binary = running.Binary('train_vit_vqgan')
    cls.tiny = ('--preset=tiny', f'--data=folder:{cls.images}', *_SMALL)

  def _run(self, *arguments):
    return self.binary.run(f'--workdir={self._new}', *arguments)

  def _config(self, path) -> Stage1Config:
    return workdir_lib.read_config(path, 'vit_vqgan', Stage1Config)


class FlagsTest(_BinaryTest):
  def test_every_setting_has_a_flag(self):
    settings = workdir_lib.flat(config_lib.to_dict(presets.stage1('tiny')))
    expected = {path for path in settings if not path.startswith(_WITHOUT_FLAG)}
    table = sys.modules['experiments.train_vit_vqgan'].SETTINGS
    self.assertEqual({path for s in table for path in s.paths}, expected)
    self.assertLen({setting.flag for setting in table}, len(table))
    for setting in table:
      self.assertRegex(setting.help, r"^\[[a-z' ]+\] .+\.\)?$")

  def test_full_loss_by_flags(self):
    """Two steps, the second with every term; the flags are the settings."""
    workdir = self.root / 'full'
    weights = pathlib.Path(lpips.DEFAULT_PATH)
    with testing.eagerly():
      result = self.binary.run(
        f'--workdir={workdir}',
        *self.tiny,
        '--steps=2',
        '--logit_laplace=true',
        '--logit_laplace_weight=0.1',
        '--perceptual_weight=0.1',
        '--perceptual_start_step=1',
        f'--lpips_file={weights}',
        f'--lpips_sha256={hashlib.sha256(weights.read_bytes()).hexdigest()}',
        '--adversarial_weight=0.1',
        '--adversarial_start_step=1',
        '--gan_loss=hinge',
        '--r1_interval=1',
        '--r1_gamma=5',
        '--adaptive_weight=true',
        '--discriminator_augment=true',
        '--learning_rate=0.002',
        '--discriminator_learning_rate=0.0003',
        '--beta_2=0.95',
        '--decay=constant',
        '--clip_norm=1',
        '--accumulate=2',
        '--ema_decay=0.9',
        '--recompute=true',
        '--precision=bfloat16',
        '--init_from_data=false',
        '--revival_interval=1',
        '--revival_steps=1',
        '--output_mlp=false',
      )
    self.assertEqual(result.status, 0, result.error)
    first, second = (
      row for row in workdir_lib.read_metrics(workdir) if 'loss' in row
    )
    terms = {
      'perceptual',
      'adversarial',
      'adaptive_weight',
      'codes_replaced',
      'discriminator/loss',
      'discriminator/r1',
      'discriminator/accuracy',
      'discriminator/real_logits',
      'discriminator/fake_logits',
      'discriminator/gradient_norm',
    }
    self.assertContainsSubset(terms, second)
    self.assertNoCommonElements(terms, first)
    for name in ('l1', 'l2', 'logit_laplace', 'codebook', 'commitment'):
      self.assertIn(name, first)
    self.assertTrue(np.all(np.isfinite(list(second.values()))), second)
    config = self._config(workdir)
    self.assertEqual(config.adversarial.loss, 'hinge')
    self.assertFalse(config.model.output_mlp)
    ours, theirs = config.optimizer, config.discriminator_optimizer
    self.assertEqual((ours.learning_rate, theirs.learning_rate), (2e-3, 3e-4))
    self.assertEqual((ours.beta_2, theirs.beta_2), (0.95, 0.95))
    self.assertEqual((ours.clip_norm, theirs.clip_norm), (1.0, 0.0))
    self.assertEqual((ours.accumulate, theirs.accumulate), (2, 1))

  def test_options_work_together(self):
    """With all of them on, as a graph, the first terms are those without."""
    full = (
      *self.tiny,
      '--steps=1',
      '--image_size=32',
      '--patch_size=8',
      '--logit_laplace=true',
      '--logit_laplace_weight=0.1',
      '--adversarial_weight=0.1',
      '--discriminator=patchgan',
      '--ema_decay=0.9',
      '--set=model.encoder.num_blocks=1',
      '--set=model.decoder.num_blocks=1',
    )
    options = (
      '--clip_norm=0.1',
      '--discriminator_clip_norm=0.1',
      '--accumulate=4',
      '--recompute=true',
      '--deterministic=true',
    )
    self.addCleanup(tf_config.disable_op_determinism)  # Of the process.
    rows = []
    for name, more, mode in (
      ('plain', (), testing.eagerly()),
      ('options', options, contextlib.nullcontext()),
    ):
      workdir = self.root / f'together_{name}'
      with mode:
        result = self.binary.run(f'--workdir={workdir}', *full, *more)
      self.assertEqual(result.status, 0, result.error)
      row, _ = workdir_lib.read_metrics(workdir)
      del row['images_per_second']
      rows.append(row)
    self.assertContainsSubset({'logit_laplace', 'discriminator/r1'}, rows[0])
    self.assertAllClose(*rows, rtol=1e-3, atol=1e-5)

  @parameterized.parameters(
    (['--l2_weight=-1'], ['l2 is -1.0', 'at least 0']),
    (['--accumulate=3'], ['4 images', 'accumulate=3']),
    (['--lpips_sha256=ab'], ['weights_file', 'go together']),
    (
      ['--lpips_file=/no', '--lpips_sha256=ab', '--perceptual_weight=0.1'],
      ['/no', 'No such file'],
    ),
  )
  def test_refuses(self, arguments, texts):
    """By name of a flag; config_test has what does not fit together."""
    self._assert_refused(self._run(*self.tiny, *arguments), *texts)

  def test_refuses_weights_of_lpips(self):
    """Of a wrong hash, and what has the hash but holds something else."""
    file = pathlib.Path(self.create_tempfile().full_path)
    file.write_bytes(pickle.dumps({'VGG16_0': {}}))
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    flags = (*self.tiny, '--perceptual_weight=0.1', f'--lpips_file={file}')
    self._assert_refused(
      self._run(*flags, f'--lpips_sha256={"0" * 64}'),
      *(str(file), found, '0' * 64, 'perceptual weight to 0'),
    )
    self._assert_refused(
      self._run(*flags, f'--lpips_sha256={found}'), str(file), 'lack'
    )

  def test_limits_are_those_of_what_is_limited(self):
    self.assertEqual(config_lib.MIN_PERCEPTUAL_SIZE, lpips.MIN_IMAGE_SIZE)


class FinetuneTest(_BinaryTest):
  """A run of two steps, and the fine-tuning of its decoder for two more."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.start, cls.tuned = cls.root / 'start', cls.root / 'tuned'
    with testing.eagerly():
      result = cls.binary.run(
        *(f'--workdir={cls.start}', *cls.tiny, '--steps=2'),
        *('--revival_interval=1', '--revival_steps=1', '--codebook_size=48'),
        *('--set=model.encoder.width=16', '--ema_decay=0.998'),
      )
    assert result.status == 0, result.error
    result = cls._finetune(f'--workdir={cls.tuned}', '--seed=3')
    assert result.status == 0, result.error

  @classmethod
  def _finetune(cls, *arguments, **kwargs):
    with testing.eagerly():
      return cls.binary.run(
        f'--finetune_decoder_of={cls.start}', *arguments, **kwargs
      )

  def test_settings_are_those_of_the_start(self):
    start, tuned = self._config(self.start), self._config(self.tuned)
    self.assertEqual(start.model.codebook_size, 48)
    self.assertEqual(start.codebook.revival_interval, 1)
    self.assertEqual(
      config_lib.to_dict(tuned),
      {
        **config_lib.to_dict(start),
        'codebook': config_lib.to_dict(config_lib.CodebookConfig()),
        'run': {**config_lib.to_dict(start.run), 'seed': 3},
        'finetune_decoder_of': str(self.start),
      },
    )
    self.assertEqual(
      workdir_lib.read(self.tuned)['start_fingerprint'],
      restore.fingerprint(restore.tokenizer(self.start).model),
    )

  def test_codes_stay_and_the_decoder_changes(self):
    start = restore.tokenizer(self.start).model
    tuned = restore.tokenizer(self.tuned).model
    images = np.random.default_rng(1).uniform(size=[8, 16, 16, 3])
    images = images.astype('f')
    codes = start.encode(images)
    self.assertGreater(len(np.unique(codes)), 1)
    self.assertAllEqual(codes, tuned.encode(images))
    self.assertNotAllEqual(start.decode(codes), tuned.decode(codes))
    trained = {variable.ref() for variable in start.decoder_variables}
    kept = 0
    for old, new in zip(start.weights, tuned.weights, strict=True):
      if old.ref() in trained:
        self.assertNotAllEqual(old, new, old.name)
      else:
        self.assertAllEqual(old, new, old.name)
        kept += 1
    self.assertGreater(kept, 10)

  def test_average_follows_the_decoder(self):
    """The average of update n keeps min(decay, n / (n + 9)) of the last."""
    self.assertEqual(self._config(self.tuned).optimizer.ema_decay, 0.998)
    expected = restore.tokenizer(self.start).model.get_weights()
    for n in (1, 2):
      keep = n / (n + 9)
      weights = self._weights(n, 'model')
      expected = [
        keep * old + (1 - keep) * new
        for old, new in zip(expected, weights, strict=True)
      ]
      found = self._weights(n, 'average')
      for a, b in zip(found, expected, strict=True):
        self.assertAllClose(a, b, atol=1e-6)
      same = [np.allclose(*pair, atol=1e-7) for pair in zip(found, weights)]
      self.assertNotIn(False, same[:3])  # Of the encoder.
      self.assertIn(False, same)

  def _weights(self, step, name):
    """Weights of a checkpoint, in the order of the model's."""
    model = restore.tokenizer(self.start).model
    path = self.tuned / 'checkpoints' / f'step-{step:09d}' / 'checkpoint'
    checkpoint = tf.train.Checkpoint(**{name: model})
    checkpoint.read(str(path)).expect_partial()
    return [weight.numpy() for weight in model.weights]

  def test_goes_on_to_the_same_weights(self):
    """From another folder, after a kill between steps 1 and 2."""
    killed = self.root / 'killed'
    shutil.copytree(self.tuned, killed)
    shutil.rmtree(killed / 'checkpoints' / 'step-000000002')
    with testing.eagerly():
      result = self.binary.run(
        '--workdir=killed',
        '--finetune_decoder_of=start',
        '--seed=3',
        folder=str(self.root),
      )
    self.assertEqual(result.status, 0, result.error)
    expected = restore.tokenizer(self.tuned)
    found = restore.tokenizer(killed)
    self.assertEqual((found.step, expected.step), (2, 2))
    for a, b in zip(expected.model.weights, found.model.weights, strict=True):
      self.assertAllEqual(a, b, a.name)

  def test_refuses_a_start_that_was_trained_on(self):
    moved = self.root / 'moved'
    shutil.copytree(self.start, moved)
    tuned = self.root / 'tuned_of_moved'
    arguments = (f'--workdir={tuned}', f'--finetune_decoder_of={moved}')
    with testing.eagerly():
      self.assertEqual(self.binary.run(*arguments).status, 0)
    shutil.rmtree(moved / 'checkpoints' / 'step-000000002')
    result = self.binary.run(*arguments)
    self.assertEqual(result.status, 1)
    self.assertLen(result.error_lines, 1)
    self.assertIn('start_fingerprint', result.error_lines[0])

  @parameterized.named_parameters(
    (
      'sizes',
      ['--codebook_size=64'],
      ['model.codebook_size is 64, but 48', 'leave that setting'],
    ),
    (
      'preset',
      ['--preset=tiny', '--init_from_data=false'],
      ['model.encoder.width is 32, but 16', '--preset'],
    ),
    ('codebook', ['--init_from_data=true'], ['keeps the codes']),
    ('no_run', ['--finetune_decoder_of=none'], ['not a working directory']),
  )
  def test_refuses(self, arguments, texts):
    start = f'--finetune_decoder_of={self.start}'
    self._assert_refused(self._run(start, *arguments), *texts)
    self.assertTrue(os.path.isdir(self.start))


if __name__ == '__main__':
  tf.test.main()
