"""Tests of the settings: JSON round trips, and refusals in one clear line."""

import dataclasses
import functools
import json
import operator
import os

from absl.testing import absltest, parameterized

from tools import settings_page
from vim_tf import config as config_lib
from vim_tf import presets, settings

_TRANSFORMER = {'num_blocks': 1, 'num_heads': 2, 'width': 8, 'mlp_width': 16}
_MODEL = config_lib.TransformerConfig(**_TRANSFORMER)
_TOKENIZER = config_lib.ViTVQGANConfig(_MODEL, _MODEL)
_CODEBOOK = config_lib.CodebookConfig()
_OPTIMIZER = config_lib.OptimizerConfig()

_PRESETS = [
  *(('stage1', name) for name in presets.STAGE1),
  *(('stage2', name) for name in presets.STAGE2),
]


class ConfigTestCase(parameterized.TestCase):
  def assert_refused(self, function, *names):
    """Checks for one line of message that names each of `names`."""
    with self.assertRaises(config_lib.ConfigError) as context:
      function()
    message = str(context.exception)
    self.assertNotIn('\n', message)
    self.assertNotEmpty(message)
    for name in names:
      self.assertIn(name, message)


class JSONTest(ConfigTestCase):
  @parameterized.parameters(*_PRESETS)
  def test_round_trip_of_every_preset(self, stage, name):
    config = getattr(presets, stage)(name)
    text = config_lib.to_json(config)
    self.assertEqual(config_lib.from_json(type(config), text), config)
    self.assertTrue(text.endswith('}\n'))
    # Every setting is there, also those left at their defaults.
    values = json.loads(text)
    for field in dataclasses.fields(config):
      self.assertIn(field.name, values)

  def test_round_trip_keeps_every_bit_of_a_float(self):
    config = config_lib.LossConfig(l2=0.1 + 0.2)
    text = config_lib.to_json(config)
    self.assertEqual(config_lib.from_json(config_lib.LossConfig, text), config)

  def test_whole_numbers_stand_for_floats(self):
    config = config_lib.from_dict(
      config_lib.TransformerConfig,
      {**dataclasses.asdict(_MODEL), 'dropout': 0},
    )
    self.assertIsInstance(config.dropout, float)

  @parameterized.named_parameters(
    ('unknown_key', {'widht': 8}, ['TransformerConfig', 'widht', 'mlp_width']),
    ('string_for_int', {'width': '8'}, ['TransformerConfig.width', 'int']),
    ('float_for_int', {'width': 8.5}, ['TransformerConfig.width', '8.5']),
    ('bool_for_int', {'width': True}, ['TransformerConfig.width', 'True']),
    ('bool_for_float', {'dropout': True}, ['TransformerConfig.dropout']),
    ('int_for_bool', {'qkv_bias': 1}, ['TransformerConfig.qkv_bias', 'bool']),
    ('null', {'activation': None}, ['TransformerConfig.activation', 'None']),
  )
  def test_refuses_one_wrong_entry(self, change, names):
    values = {**dataclasses.asdict(_MODEL), **change}
    self.assert_refused(
      lambda: config_lib.from_dict(config_lib.TransformerConfig, values),
      *names,
    )

  def test_places_are_where_the_user_means(self):
    config = config_lib.replace(
      presets.stage2('tiny'),
      {
        'tokenizer': '~/runs/tokenizer',
        'codes': 'a:b/~',
        'data.name': 'folder:~/photos',
        'data.data_dir': 'gs://bucket/data',
      },
    )
    home = os.path.expanduser('~')
    self.assertEqual(config.tokenizer, f'{home}/runs/tokenizer')
    self.assertEqual(config.codes, 'a:b/~')
    self.assertEqual(config.data.name, f'folder:{home}/photos')
    self.assertEqual(config.data.data_dir, 'gs://bucket/data')
    for name, path in (
      ('tokenizer', 'gs://bucket/run'),
      ('codes', 's3://bucket/codes'),
      ('data.name', 'folder:gs://bucket/photos'),
    ):
      self.assert_refused(
        functools.partial(config_lib.replace, config, {name: path}),
        f'{name} is {path}',
        'on a local disk',
      )

  def test_refuses_a_missing_key_and_says_where(self):
    values = config_lib.to_dict(presets.stage1('tiny'))
    del values['model']['encoder']['width']
    self.assert_refused(
      lambda: config_lib.from_dict(config_lib.Stage1Config, values),
      'Stage1Config.model.encoder',
      'width',
    )

  def test_refuses_a_value_for_a_group(self):
    values = {**config_lib.to_dict(presets.stage1('tiny')), 'model': 3}
    self.assert_refused(
      lambda: config_lib.from_dict(config_lib.Stage1Config, values),
      'Stage1Config.model',
    )

  @parameterized.parameters('', '{', '[]', '3', 'null', '{"num_blocks": 1,\n}')
  def test_refuses_what_is_not_a_json_object(self, text):
    self.assert_refused(
      lambda: config_lib.from_json(config_lib.TransformerConfig, text),
      'JSON',
    )


def _outside(bounds, kind):
  """Values of a type that lie just outside of bounds."""
  if bounds.choices:
    yield 'another'
  step = 1 if kind is int else 1e-6
  if bounds.least is not None:
    yield kind(bounds.least - step)
  if bounds.most is not None:
    yield kind(bounds.most + step)
  for bound in (bounds.above, bounds.below):
    if bound is not None:
      yield kind(bound)
  if kind is float and bounds != settings.Range():
    yield float('nan')


class ValuesTest(ConfigTestCase):
  def test_values_outside_of_what_is_declared_are_refused(self):
    """Which ranges these are stands in docs/settings.md; see PageTest."""
    stage1, stage2 = presets.stage1('tiny'), presets.stage2('tiny')
    probe = presets.probe('tiny', stage2)
    tried = 0
    for whole in (stage1, stage2, probe, config_lib.SamplingConfig()):
      for one in settings.settings_of(type(whole)):
        group, _, name = one.path.rpartition('.')
        config = operator.attrgetter(group)(whole) if group else whole
        for value in _outside(one.range, one.type):
          self.assert_refused(
            functools.partial(dataclasses.replace, config, **{name: value}),
            f'{type(config).__name__}.{name} is {value!r}',
            str(one.range),
          )
          tried += 1
    self.assertGreater(tried, 100)

  @parameterized.parameters(
    ({'least': 0, 'below': 1}, [0, 0.5], [-1, 1], 'in [0, 1)'),
    ({'above': 0, 'most': 1}, [0.5, 1], [0, 2], 'in (0, 1]'),
    ({'least': 2}, [2, 9], [1], 'at least 2'),
    ({'choices': ('a', 'b')}, ['a', 'b'], ['c', ''], 'one of a, b'),
  )
  def test_ranges(self, bounds, inside, outside, text):
    found = settings.Range(**bounds)
    self.assertTrue(all(map(found.holds, inside)))
    self.assertFalse(any(map(found.holds, outside)))
    self.assertEqual(str(found), text)

  @parameterized.parameters(
    (_MODEL, {'num_heads': 3}, ['width 8', '3 heads', 'head_width']),
    (_TOKENIZER, {'image_size': 20}, ['image_size 20', 'patch_size 8']),
    (_TOKENIZER, {'image_size': 4}, ['image_size 4', 'patch_size 8']),
    (_TOKENIZER, {'cnn_multiplier': 0.3}, ['is 0.3', 'whole']),
    (_TOKENIZER, {'cnn_multiplier': float('inf')}, ['cnn_multiplier is inf']),
    (
      _TOKENIZER,
      {'backbone': 'cnn', 'image_size': 24, 'patch_size': 6},
      ['patch_size is 6', 'one of 1, 2, 4, 8, 16, 32'],
    ),
    (
      _TOKENIZER,
      {'backbone': 'cnn', 'patch_size': 64},
      ['patch_size is 64', 'at most five times'],
    ),
    (
      _TOKENIZER,
      {'positions': 'sincos', 'decoder': dataclasses.replace(_MODEL, width=6)},
      ['decoder.width is 6', 'multiple of 4'],
    ),
    (config_lib.DataConfig(), {'name': ''}, ['data.name is empty']),
    (_CODEBOOK, {'revival_interval': 50}, ['is 50', 'revival_steps is 0']),
    (_CODEBOOK, {'init_step': 10}, ['init_step is 10', 'init_from_data']),
    (_CODEBOOK, {'init_kmeans': 1}, ['init_kmeans is 1', 'init_from_data']),
    (
      _OPTIMIZER,
      {'decay': 'cosine', 'warmup_steps': 10, 'decay_end': 10},
      ['decay_end is 10', 'warm-up', 'step 10'],
    ),
    (
      _OPTIMIZER,
      {'decay': 'exponential', 'decay_end': 10},
      ['final_learning_rate is 0'],
    ),
  )
  def test_what_does_not_fit_together(self, config, change, names):
    self.assert_refused(lambda: dataclasses.replace(config, **change), *names)

  def test_sizes_that_follow(self):
    config = dataclasses.replace(_TOKENIZER, image_size=24, patch_size=8)
    self.assertEqual((config.grid_size, config.num_codes), (3, 9))
    self.assertEqual(config_lib.VIMConfig(_MODEL, grid_size=3).num_codes, 9)
    config = dataclasses.replace(_MODEL, num_heads=3, head_width=5)
    self.assertEqual(config.attention_head_width, 5)
    self.assertEqual(_MODEL.attention_head_width, 4)


_GAN = {'losses.adversarial': '0.1'}


def _images_of(size):
  return {f'{group}.image_size': str(size) for group in ('data', 'model')}


class StagesTest(ConfigTestCase):
  @parameterized.parameters(
    ({'data.image_size': '32'}, ['data.image_size is 32', '16 pixels']),
    (
      {'losses.logit_laplace': '0.1', 'model.logit_laplace': 'false'},
      ['losses.logit_laplace', 'model.logit_laplace'],
    ),
    (
      {**_images_of(8), 'losses.perceptual': '0.1'},
      ['image_size is 8', 'perceptual', 'at least 16'],
    ),
    (
      {**_GAN, 'adversarial.discriminator': 'patchgan'},
      ['image_size is 16', 'patchgan', 'at least 24'],
    ),
    (
      {**_GAN, **_images_of(36)},
      ['image_size is 36', 'stylegan2', '4, 5, 6 or 7 times'],
    ),
    (
      {**_GAN, 'discriminator_optimizer.ema_decay': '0.9'},
      ['discriminator_optimizer.ema_decay', 'set it to 0'],
    ),
    (
      {**_GAN, 'discriminator_optimizer.accumulate': '2'},
      ['discriminator_optimizer.accumulate', 'optimizer.accumulate'],
    ),
    (
      {'finetune_decoder_of': 'run'},
      ['finetune_decoder_of', 'init_from_data', 'revival_interval'],
    ),
  )
  def test_stage1_refuses(self, changes, names):
    self.assert_refused(
      lambda: config_lib.replace(presets.stage1('tiny'), changes), *names
    )

  @parameterized.parameters(4, 16, 20, 24, 28, 48, 64, 160, 256)
  def test_stage1_takes_what_stylegan2_can_halve(self, size):
    changes = {**_GAN, **_images_of(size)}
    config = config_lib.replace(presets.stage1('tiny'), changes)
    self.assertEqual(config.model.image_size, size)

  def test_stage2_refuses_label_drop_without_classes(self):
    config = presets.stage2('tiny')
    model = dataclasses.replace(config.model, num_classes=0)
    self.assert_refused(
      lambda: dataclasses.replace(config, model=model),
      'label_drop',
      'num_classes 0',
    )

  @parameterized.parameters(
    ('vit_vqgan_ss', 'vim_base'),
    ('vit_vqgan_ss', 'vim_large_probe'),
    ('vit_vqgan_bb_16x16', 'vim_large_16x16'),
    ('tiny', 'tiny'),
  )
  def test_presets_that_belong_together_match(self, tokenizer, vim):
    config_lib.check_stages_match(
      presets.stage1(tokenizer).model, presets.stage2(vim)
    )

  @parameterized.parameters(
    ({'patch_size': 8}, ['grid_size is 4', '2 for its tokenizer']),
    ({'codebook_size': 64}, ['codebook_size is 32', '64 for its tokenizer']),
    (
      {'image_size': 32, 'patch_size': 8},
      ['image_size is 16', '32 for its tokenizer'],
    ),
  )
  def test_refuses_stages_that_do_not_match(self, changes, names):
    tokenizer = dataclasses.replace(presets.stage1('tiny').model, **changes)
    self.assert_refused(
      lambda: config_lib.check_stages_match(tokenizer, presets.stage2('tiny')),
      *names,
    )

  def test_presets_refuse_an_unknown_name(self):
    self.assert_refused(
      lambda: presets.stage1('vim_base'), 'vim_base', 'vit_vqgan_ss'
    )
    self.assert_refused(lambda: presets.stage2('huge'), 'huge', 'vim_large')


class PageTest(ConfigTestCase):
  def test_the_page_in_the_docs_is_of_these_settings(self):
    self.assertEqual(
      settings_page.PAGE.read_text(),
      settings_page.page(),
      'run ./bazelw run //tools:settings_page',
    )


class ReplaceTest(ConfigTestCase):
  @parameterized.parameters(
    ('model.encoder.width', '64', 64),
    ('losses.l1', '1', 1.0),
    ('optimizer.learning_rate', '3e-4', 3e-4),
    ('model.l2_normalize', 'false', False),
    ('data.name', 'cifar10', 'cifar10'),
    ('data.name', '"folder:a b"', 'folder:a b'),
    ('data.train_split', 'train[:10%]', 'train[:10%]'),
  )
  def test_changes_one_setting(self, path, text, expected):
    config = presets.stage1('tiny')
    changed = config_lib.replace(config, {path: text})
    *groups, name = path.split('.')
    value = config_lib.to_dict(changed)
    before = config_lib.to_dict(config)
    for group in groups:
      value, before = value[group], before[group]
    self.assertEqual(value[name], expected)
    self.assertIs(type(value[name]), type(expected))
    self.assertNotEqual(changed, config)
    # Setting it back gives the first config: nothing else has changed.
    self.assertEqual(
      config_lib.replace(changed, {path: json.dumps(before[name])}), config
    )

  @parameterized.named_parameters(
    ('unknown', 'model.widht', '1', ['Stage1Config.model', 'widht', 'encoder']),
    ('unknown_group', 'modle.width', '1', ['Stage1Config', 'modle', 'model']),
    ('empty', '', '1', ['Stage1Config']),
    ('group', 'model.encoder', '1', ['model.encoder', 'group']),
    ('below', 'run.seed.x', '1', ['Stage1Config.run.seed', 'single value']),
    ('type', 'run.seed', 'abc', ['Stage1Config.run.seed', 'abc', 'int']),
    ('range', 'losses.l2', '-1', ['l2 is -1.0', 'at least 0']),
    ('sizes', 'model.encoder.num_heads', '5', ['width 32', '5 heads']),
    ('stages', 'data.image_size', '32', ['data.image_size is 32']),
  )
  def test_refuses(self, path, text, names):
    config = presets.stage1('tiny')
    self.assert_refused(
      lambda: config_lib.replace(config, {path: text}), *names
    )


if __name__ == '__main__':
  absltest.main()
