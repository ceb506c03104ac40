"""Flags that become settings: true and false, and what is given twice."""

import dataclasses
import importlib
import json
import typing
from unittest import mock

from absl import flags
from absl.testing import absltest, flagsaver, parameterized
import tensorflow as tf

from experiments import flags as flags_lib
from tests.experiments import running
from vim_tf import config as config_lib
from vim_tf import machine, presets

_CONFIGS = {
  'train_vim': config_lib.Stage2Config,
  'train_probe': config_lib.ProbeConfig,
  'train_vit_vqgan': config_lib.Stage1Config,
}


def setUpModule():
  for name in _CONFIGS:
    running.Binary(name)  # Which leaves no flags behind.


def _settings(name: str) -> tuple[flags_lib.Setting, ...]:
  return importlib.import_module(f'experiments.{name}').SETTINGS


class FlagsTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    before = set(flags.FLAGS)
    flags_lib.define_run_flags(presets.STAGE1, 'tiny')
    for setting in _settings('train_vit_vqgan'):
      setting.define()
    cls.defined = set(flags.FLAGS) - before

  @classmethod
  def tearDownClass(cls):
    super().tearDownClass()
    for name in cls.defined:
      delattr(flags.FLAGS, name)

  def parse(self, *arguments: str) -> config_lib.Stage1Config:
    with flagsaver.flagsaver():
      flags.FLAGS(['binary', *arguments])
      return flags_lib.config_from_flags(
        presets.stage1,
        _settings('train_vit_vqgan'),
        'vit_vqgan',
        config_lib.Stage1Config,
      )

  @parameterized.parameters(
    (8, 'auto', True), (7, 'auto', False), (8, 'mirrored', False)
  )
  def test_a_batch_for_all_cores_gives_operations_one_thread(
    self, examples, strategy, alone
  ):
    threads = tf.config.threading
    with (
      flagsaver.flagsaver(),
      mock.patch.object(machine, 'cores', lambda: 8),
      mock.patch.object(threads, 'set_intra_op_parallelism_threads') as given,
    ):
      flags.FLAGS(['binary', f'--strategy={strategy}'])
      flags_lib.strategy_of_one_process(examples)
    self.assertEqual(given.call_args_list, [mock.call(1)] if alone else [])

  @parameterized.parameters(
    ('--flip', True),
    ('--flip=true', True),
    ('--noflip', False),
    ('--flip=false', False),
    ('--set=data.flip=true', True),
  )
  def test_a_flag_alone_is_true(self, argument, expected):
    start = f'--set=run.seed={int(expected)}'
    self.assertIs(self.parse(argument, start).data.flip, expected)

  def test_unset_it_leaves_the_preset(self):
    self.assertEqual(self.parse(), presets.stage1('tiny'))

  @parameterized.parameters(*_CONFIGS)
  def test_settings_that_are_true_or_false(self, name):
    for setting in _settings(name):
      config = _CONFIGS[name]
      *groups, last = setting.paths[0].split('.')
      for group in groups:
        config = typing.get_type_hints(config)[group]
      kind = typing.get_type_hints(config)[last]
      self.assertEqual(setting.boolean, kind is bool, setting.flag)

  @parameterized.parameters(
    ('--steps=9', '--set=run.num_steps=8', 'both set run.num_steps'),
    ('--seed=2', '--set=run.seed=2', 'both set run.seed'),
    ('--noflip', '--set=data.flip=true', 'both set data.flip'),
    ('--set=run.seed=1', '--set=run.seed=2', 'both set run.seed'),
    ('--preset=tiny', '--config={file}', 'both say what to start from'),
  )
  def test_what_is_given_twice_is_refused(self, one, other, message):
    file = self.create_tempfile(
      content=config_lib.to_json(presets.stage1('tiny'))
    ).full_path
    other = other.format(file=file)
    with self.assertRaisesRegex(config_lib.ConfigError, message) as raised:
      self.parse(one, other)
    shown = one if one != '--noflip' else '--flip=false'
    self.assertStartsWith(str(raised.exception), f'{shown} and {other} ')
    self.parse(one)  # Each alone is sound.
    self.parse(other)

  def test_what_follows_another_may_be_given_itself(self):
    flag = '--discriminator_learning_rate=0.5'
    for arguments in (
      ('--learning_rate=0.25', flag),
      (flag, '--learning_rate=0.25'),
      (
        '--learning_rate=0.25',
        '--set=discriminator_optimizer.learning_rate=0.5',
      ),
    ):
      config = self.parse(*arguments)
      self.assertEqual(config.optimizer.learning_rate, 0.25)
      self.assertEqual(config.discriminator_optimizer.learning_rate, 0.5)
    config = self.parse('--learning_rate=0.25')
    self.assertEqual(config.discriminator_optimizer.learning_rate, 0.25)

  def test_a_config_with_flags_on_top(self):
    preset = presets.stage1('tiny')
    run = dataclasses.replace(preset.run, seed=7)
    start = dataclasses.replace(preset, run=run)
    file = self.create_tempfile(content=json.dumps(config_lib.to_dict(start)))
    config = self.parse(f'--config={file.full_path}', '--steps=5')
    run = dataclasses.replace(run, num_steps=5)
    self.assertEqual(config, dataclasses.replace(start, run=run))
    with self.assertRaisesRegex(config_lib.ConfigError, 'Cannot read .*/none'):
      self.parse('--config=/none.json')


if __name__ == '__main__':
  absltest.main()
