"""Tests of the settings: JSON round trips, and refusals in one clear line."""

import dataclasses
import functools
import json
import os

from absl.testing import absltest, parameterized

from tools import settings_page
from vim_tf import config as config_lib
from vim_tf import presets

_TRANSFORMER = {'num_blocks': 1, 'num_heads': 2, 'width': 8, 'mlp_width': 16}
_MODEL = config_lib.TransformerConfig(**_TRANSFORMER)

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


class ValuesTest(ConfigTestCase):
  @parameterized.named_parameters(
    ('heads_divide', {'num_heads': 3}, ['width 8', '3 heads', 'head_width']),
    ('no_blocks', {'num_blocks': 0}, ['num_blocks is 0', 'at least 1']),
    ('no_heads', {'num_heads': 0}, ['num_heads is 0']),
    ('negative_head_width', {'head_width': -4}, ['head_width is -4']),
    ('activation', {'activation': 'swish'}, ['activation', 'swish', 'gelu']),
    ('dropout_of_all', {'dropout': 1.0}, ['dropout is 1.0', '[0, 1)']),
    ('negative_dropout', {'dropout': -0.1}, ['dropout is -0.1']),
    ('dropout_nan', {'dropout': float('nan')}, ['dropout is nan']),
  )
  def test_transformer(self, change, names):
    self.assert_refused(lambda: dataclasses.replace(_MODEL, **change), *names)

  def test_head_width_frees_from_dividing(self):
    config = dataclasses.replace(_MODEL, num_heads=3, head_width=5)
    self.assertEqual(config.attention_head_width, 5)
    self.assertEqual(_MODEL.attention_head_width, 4)

  @parameterized.named_parameters(
    ('patches', {'image_size': 20}, ['image_size 20', 'patch_size 8']),
    ('image_below_patch', {'image_size': 4}, ['image_size 4', 'patch_size 8']),
    ('no_patch', {'patch_size': 0}, ['patch_size is 0']),
    ('codebook', {'codebook_size': 1}, ['codebook_size is 1', 'at least 2']),
    ('code_dim', {'code_dim': 0}, ['code_dim is 0']),
    ('positions', {'positions': 'rotary'}, ['positions', 'rotary', 'sincos']),
    ('backbone', {'backbone': 'unet'}, ['backbone', 'unet', 'cnn']),
    ('cnn_none', {'cnn_multiplier': 0.0}, ['cnn_multiplier is 0.0']),
    ('cnn_part', {'cnn_multiplier': 0.3}, ['cnn_multiplier is 0.3', 'whole']),
    (
      'cnn_infinite',
      {'cnn_multiplier': float('inf')},
      ['cnn_multiplier is inf'],
    ),
    (
      'cnn_patch',
      {'backbone': 'cnn', 'image_size': 24, 'patch_size': 6},
      ['patch_size is 6', 'one of 1, 2, 4, 8, 16, 32'],
    ),
    (
      'cnn_large_patch',
      {'backbone': 'cnn', 'patch_size': 64},
      ['patch_size is 64', 'at most five times'],
    ),
    (
      'sincos_width',
      {
        'positions': 'sincos',
        'decoder': dataclasses.replace(_MODEL, width=6),
      },
      ['decoder.width is 6', 'multiple of 4'],
    ),
  )
  def test_vit_vqgan(self, change, names):
    config = config_lib.ViTVQGANConfig(_MODEL, _MODEL)
    self.assert_refused(lambda: dataclasses.replace(config, **change), *names)

  def test_sizes_that_follow(self):
    config = config_lib.ViTVQGANConfig(
      _MODEL, _MODEL, image_size=24, patch_size=8
    )
    self.assertEqual((config.grid_size, config.num_codes), (3, 9))
    self.assertEqual(config_lib.VIMConfig(_MODEL, grid_size=3).num_codes, 9)

  @parameterized.named_parameters(
    ('grid_size', {'grid_size': 0}, ['grid_size is 0']),
    ('codebook_size', {'codebook_size': 1}, ['codebook_size is 1']),
    ('num_classes', {'num_classes': -1}, ['num_classes is -1']),
    ('positions', {'positions': ''}, ['positions', 'factorized']),
  )
  def test_vim(self, change, names):
    config = config_lib.VIMConfig(_MODEL)
    self.assert_refused(lambda: dataclasses.replace(config, **change), *names)

  @parameterized.parameters(
    *(
      field.name
      for field in dataclasses.fields(config_lib.LossConfig)
      if field.type is float
    )
  )
  def test_no_loss_weight_is_negative(self, name):
    self.assert_refused(
      lambda: config_lib.LossConfig(**{name: -0.1}), f'{name} is -0.1'
    )
    self.assert_refused(
      lambda: config_lib.LossConfig(**{name: float('nan')}), f'{name} is nan'
    )

  @parameterized.named_parameters(
    ('r1_interval', {'r1_interval': 0}, ['r1_interval is 0', 'at least 1']),
    ('r1_gamma', {'r1_gamma': -1.0}, ['r1_gamma is -1.0']),
    ('start_step', {'start_step': -1}, ['start_step is -1']),
    ('loss', {'loss': 'wasserstein'}, ['AdversarialConfig.loss', 'hinge']),
    ('discriminator', {'discriminator': 'x'}, ['discriminator', 'patchgan']),
    ('channels', {'channel_multiplier': 0.0}, ['channel_multiplier is 0.0']),
  )
  def test_adversarial(self, change, names):
    self.assert_refused(lambda: config_lib.AdversarialConfig(**change), *names)

  @parameterized.named_parameters(
    ('name', {'name': ''}, ['data.name is empty']),
    ('image_size', {'image_size': 0}, ['image_size is 0']),
    ('crop', {'crop': 'corner'}, ['crop', 'corner', 'random_resized']),
    ('min_scale', {'min_scale': 0.0}, ['min_scale is 0.0', '(0, 1]']),
    ('max_shift', {'max_shift': -1}, ['max_shift is -1']),
  )
  def test_data(self, change, names):
    self.assert_refused(lambda: config_lib.DataConfig(**change), *names)

  @parameterized.named_parameters(
    ('interval', {'revival_interval': -1}, ['revival_interval is -1']),
    ('steps', {'revival_steps': -1}, ['revival_steps is -1']),
    (
      'revival_without_steps',
      {'revival_interval': 50},
      ['revival_interval is 50', 'revival_steps is 0'],
    ),
    ('init_step', {'init_step': 10}, ['init_step is 10', 'init_from_data']),
    ('kmeans', {'init_kmeans': 1}, ['init_kmeans is 1', 'init_from_data']),
  )
  def test_codebook(self, change, names):
    self.assert_refused(lambda: config_lib.CodebookConfig(**change), *names)

  @parameterized.named_parameters(
    (
      'name',
      {'name': 'sgd'},
      ['OptimizerConfig.name', 'sgd', 'adafactor', 'lamb'],
    ),
    ('decay', {'decay': 'step'}, ['OptimizerConfig.decay', 'cosine']),
    ('learning_rate', {'learning_rate': 0.0}, ['learning_rate is 0.0']),
    ('beta_1', {'beta_1': 1.0}, ['beta_1 is 1.0', '[0, 1)']),
    ('beta_2', {'beta_2': -0.5}, ['beta_2 is -0.5']),
    ('ema_decay', {'ema_decay': 1.5}, ['ema_decay is 1.5']),
    ('weight_decay', {'weight_decay': -1e-4}, ['weight_decay is -0.0001']),
    ('clip_norm', {'clip_norm': -1.0}, ['clip_norm is -1.0']),
    ('accumulate', {'accumulate': 0}, ['accumulate is 0']),
    (
      'decay_within_warmup',
      {'decay': 'cosine', 'warmup_steps': 10, 'decay_end': 10},
      ['decay_end is 10', 'warm-up', 'step 10'],
    ),
    (
      'exponential_to_zero',
      {'decay': 'exponential', 'decay_end': 10},
      ['final_learning_rate is 0'],
    ),
  )
  def test_optimizer(self, change, names):
    self.assert_refused(lambda: config_lib.OptimizerConfig(**change), *names)

  @parameterized.parameters(
    ('num_steps', 0),
    ('batch_size', 0),
    ('seed', -1),
    ('steps_per_loop', 0),
    ('log_every', 0),
    ('checkpoint_every', 0),
    ('keep_checkpoints', 0),
    ('eval_examples', 0),
    ('eval_every', -1),
    ('picture_every', -1),
    ('precision', 'float16'),
  )
  def test_run(self, name, value):
    self.assert_refused(lambda: config_lib.RunConfig(**{name: value}), name)


class StagesTest(ConfigTestCase):
  def test_stage1_refuses_data_of_another_size(self):
    config = presets.stage1('tiny')
    data = dataclasses.replace(config.data, image_size=32)
    self.assert_refused(
      lambda: dataclasses.replace(config, data=data),
      'data.image_size is 32',
      '16 pixels',
    )

  def test_stage1_refuses_a_likelihood_without_its_outputs(self):
    config = presets.stage1('tiny')
    losses = dataclasses.replace(config.losses, logit_laplace=0.1)
    self.assert_refused(
      lambda: dataclasses.replace(config, losses=losses),
      'losses.logit_laplace',
      'model.logit_laplace',
    )

  @parameterized.named_parameters(
    (
      'images_too_small_for_lpips',
      {'image_size': 8},
      {'perceptual': 0.1},
      {},
      ['image_size is 8', 'perceptual', 'at least 16'],
    ),
    (
      'images_too_small_for_patchgan',
      {'image_size': 16},
      {'adversarial': 0.1},
      {'adversarial.discriminator': '"patchgan"'},
      ['image_size is 16', 'patchgan', 'at least 24'],
    ),
    (
      'images_that_stylegan2_cannot_halve',
      {'image_size': 36},
      {'adversarial': 0.1},
      {},
      ['image_size is 36', 'stylegan2', '4, 5, 6 or 7 times'],
    ),
    (
      'averaged_discriminator',
      {},
      {'adversarial': 0.1},
      {'discriminator_optimizer.ema_decay': '0.9'},
      ['discriminator_optimizer.ema_decay', 'set it to 0'],
    ),
    (
      'accumulating_discriminator',
      {},
      {'adversarial': 0.1},
      {'discriminator_optimizer.accumulate': '2'},
      ['discriminator_optimizer.accumulate', 'optimizer.accumulate'],
    ),
  )
  def test_stage1_refuses(self, sizes, losses, others, names):
    changes = {
      f'{group}.{name}': str(value)
      for name, value in sizes.items()
      for group in ('data', 'model')
    }
    changes.update(others)
    config = config_lib.replace(presets.stage1('tiny'), changes)
    weights = dataclasses.replace(config.losses, **losses)
    self.assert_refused(
      lambda: dataclasses.replace(config, losses=weights), *names
    )

  @parameterized.parameters(4, 16, 20, 24, 28, 48, 64, 160, 256)
  def test_stage1_takes_what_stylegan2_can_halve(self, size):
    config = config_lib.replace(
      presets.stage1('tiny'),
      {
        'data.image_size': str(size),
        'model.image_size': str(size),
        'losses.adversarial': '0.1',
      },
    )
    self.assertEqual(config.model.image_size, size)

  def test_stage1_refuses_help_for_a_codebook_that_stays(self):
    config = presets.stage1('tiny')
    self.assertTrue(config.codebook.init_from_data)
    self.assert_refused(
      lambda: dataclasses.replace(config, finetune_decoder_of='run'),
      'finetune_decoder_of',
      'init_from_data',
      'revival_interval',
    )

  def test_stage2_refuses_label_drop_without_classes(self):
    config = presets.stage2('tiny')
    model = dataclasses.replace(config.model, num_classes=0)
    self.assert_refused(
      lambda: dataclasses.replace(config, model=model),
      'label_drop',
      'num_classes 0',
    )
    self.assert_refused(
      lambda: dataclasses.replace(config, label_drop=1.0), 'label_drop is 1.0'
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
    ('patch_size', 8, ['grid_size is 4', '2 for its tokenizer']),
    ('codebook_size', 64, ['codebook_size is 32', '64 for its tokenizer']),
  )
  def test_refuses_stages_that_do_not_match(self, name, value, names):
    tokenizer = presets.stage1('tiny').model
    tokenizer = dataclasses.replace(tokenizer, **{name: value})
    self.assert_refused(
      lambda: config_lib.check_stages_match(tokenizer, presets.stage2('tiny')),
      *names,
    )

  def test_refuses_images_of_another_size(self):
    tokenizer = dataclasses.replace(
      presets.stage1('tiny').model, image_size=32, patch_size=8
    )
    self.assert_refused(
      lambda: config_lib.check_stages_match(tokenizer, presets.stage2('tiny')),
      'image_size is 16',
      '32 for its tokenizer',
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
