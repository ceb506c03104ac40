"""Test of the probes' whole way, on models and images made up here."""

import copy
import dataclasses
import io
import json
import pathlib

from absl.testing import parameterized
import numpy as np
from PIL import Image
import tensorflow as tf

from tests import testing
from vim_tf import presets
from vim_tf.config import UserError
from vim_tf.data import sources
from vim_tf.jobs import probe as probe_job
from vim_tf.jobs import probe_features, probe_figures, restore
from vim_tf.training import workdir as workdir_lib
from vim_tf.vim import model as vim_model
from vim_tf.vit_vqgan import model as vit_vqgan_model

_CLASSES = ('red', 'green', 'blue')
_SEEDS = 2


def _source(split: str, count: int, seed: int, **changes) -> sources.Source:
  """Noisy images of three colours."""
  rng = np.random.default_rng(seed)
  labels = np.arange(count) % len(_CLASSES)
  records = []
  for label in labels:
    pixels = rng.integers(0, 150, [8, 8, 3], np.uint8)
    pixels[..., label] += 105
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, 'png')
    records.append(file.getvalue())
  source = sources.Source(
    name='colours',
    split=split,
    version='1',
    class_names=_CLASSES,
    num_examples=count,
    flippable=(True,) * len(_CLASSES),
    labels=labels.astype(np.int32),
    records=records,
  )
  return dataclasses.replace(source, **changes)


def _models(num_classes: int = 3):
  """A tokenizer and a VIM that nobody trained, as if restored."""
  first, second = presets.stage1('tiny'), presets.stage2('tiny')
  tokenizer = vit_vqgan_model.ViTVQGAN(testing.vit_vqgan_config())
  vim = vim_model.VIM(
    testing.vim_config(grid_size=2, codebook_size=16, num_classes=num_classes)
  )
  for model in (tokenizer, vim):
    model.build()
    testing.randomize(model)
  first = dataclasses.replace(
    first,
    model=tokenizer.config,
    data=dataclasses.replace(first.data, image_size=8),
  )
  second = dataclasses.replace(
    second,
    model=vim.config,
    data=dataclasses.replace(second.data, image_size=8),
    label_drop=0.0,
  )
  return (
    restore.Restored(tokenizer, first, {}, 1),
    restore.Restored(vim, second, {}, 1),
  )


class ProbingTest(parameterized.TestCase, tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.models = _models()
    cls.train = _source('train', 60, 1)
    cls.held_out = _source('validation', 30, 2)
    cls.config = dataclasses.replace(
      presets.probe('tiny', cls.models[1].config),
      block='all',
      num_seeds=_SEEDS,
    )
    cls.weights = [copy.deepcopy(m.model.get_weights()) for m in cls.models]
    cls.path = pathlib.Path(tf.compat.v1.test.get_temp_dir()) / 'probing'
    cls.outcomes = cls._sweep(cls.config, cls.path)
    cls.figures = probe_figures.summarize(cls.outcomes)

  @classmethod
  def _sweep(cls, config, path, train=None, held_out=None, models=None):
    return probe_job.sweep(
      *(models or cls.models),
      train or cls.train,
      held_out or cls.held_out,
      config,
      path,
      tf.distribute.get_strategy(),
    )

  # ----------------------------------------------------------------- figures

  def test_probing_changes_no_weight(self):
    for model, before in zip(self.models, self.weights, strict=True):
      for now, then in zip(model.model.get_weights(), before, strict=True):
        self.assertAllEqual(now, then)

  def test_everything_is_measured(self):
    names = {'block_0', 'block_1', 'untrained_block_0', 'untrained_block_1'}
    names |= {'pixels', 'code_vectors', 'code_counts'}
    for outcome in self.outcomes:
      for by_name in (outcome.validation, outcome.top1, outcome.penalty):
        self.assertEqual(set(by_name), names)
      for name in names:
        self.assertAllClose(outcome.top1[name], outcome.right[name].mean())
        self.assertLessEqual(outcome.top1[name], outcome.top5[name])
    # Colours are told by pixels.
    self.assertGreater(self.figures['baselines']['pixels']['top1'], 0.9)
    self.assertAllClose(self.figures['largest_class'], 1 / 3)

  def test_untrained_models_differ_by_seed(self):
    one, other = (
      probe_features.untrained_extractor(*self.models, self.config, seed)(
        tf.fill([1, 8, 8, 3], 0.5)
      )
      for seed in (0, 1)
    )
    self.assertNotAllClose(one['untrained_block_0'], other['untrained_block_0'])

  def test_figures(self):
    figures = json.loads(json.dumps(self.figures))  # What is not JSON fails.
    self.assertEqual([row['block'] for row in figures['blocks']], [0, 1])
    for seed, best in enumerate(figures['best_block_by_seed']):
      validation = self.outcomes[seed].validation
      self.assertEqual(
        validation[f'block_{best}'],
        max(validation['block_0'], validation['block_1']),
      )
    chosen = [o.top1[o.best_block] for o in self.outcomes]
    self.assertAllClose(figures['top1'], np.mean(chosen))
    self.assertAllClose(
      figures['top1_standard_error'], np.std(chosen, ddof=1) / 2**0.5
    )
    margins = [o.top1[o.best_block] - o.top1['pixels'] for o in self.outcomes]
    pixels = figures['baselines']['pixels']
    self.assertAllClose(pixels['margin'], np.mean(margins))
    self.assertAllClose(
      pixels['margin_standard_error'], np.std(margins, ddof=1) / 2**0.5
    )
    share = figures['top1_image_error']
    self.assertBetween(share, 0.0, 0.5 / 29**0.5 + 1e-6)

  def test_goes_on_and_ends_alike(self):
    with self.assertLogs('absl', 'INFO') as logs:
      again = self._sweep(self.config, self.path)
    count = '\n'.join(logs.output).count('steps are done')
    self.assertEqual(count, _SEEDS)  # What was chosen is not trained again.
    for one, other in zip(again, self.outcomes):
      self.assertEqual(one.top1, other.top1)
      self.assertEqual(one.best_block, other.best_block)
    with self.assertRaisesRegex(workdir_lib.WorkdirError, "block='all'"):
      self._sweep(dataclasses.replace(self.config, block='best'), self.path)

  def test_best_block_alone_is_measured(self):
    self.enter_context(testing.eagerly())
    config = dataclasses.replace(
      self.config, block='best', num_seeds=1, passes=0, labels_per_class=9
    )
    (outcome,) = self._sweep(config, self.create_tempdir().full_path)
    self.assertEqual(set(outcome.validation), set(self.outcomes[0].validation))
    self.assertEqual(
      set(outcome.top1),
      {'pixels', 'code_vectors', 'code_counts'}
      | {outcome.best_block, outcome.best_untrained},
    )
    self.assertIsNone(probe_figures.summarize([outcome])['top1_standard_error'])

  def test_augmented_views_count_each(self):
    self.enter_context(testing.eagerly())
    config = dataclasses.replace(
      self.config, num_seeds=1, passes=3, views='augmented'
    )
    (outcome,) = self._sweep(config, self.create_tempdir().full_path)
    for name, right in outcome.right.items():
      self.assertLen(right, self.held_out.num_examples)
      self.assertAllClose(3 * right, np.round(3 * right))
      self.assertAllClose(outcome.top1[name], right.mean())
    # The crops of an image differ, and so do the answers for some images.
    shares = np.concatenate(list(outcome.right.values()))
    self.assertNotEmpty(set(np.round(3 * shares)) & {1, 2})

  # ------------------------------------------------------- warnings, refusals

  def test_warnings(self):
    tokenizer, vim = self.models
    with self.assertLogs('absl', 'WARNING') as logs:
      probe_features.warn(tokenizer, vim)
    text = '\n'.join(logs.output)
    self.assertIn('class-conditional', text)
    self.assertIn("never met 'no class'", text)
    self.assertNotIn('VGG16', text)
    config = presets.stage1('tiny')  # Its images are large enough for LPIPS.
    config = dataclasses.replace(
      config, losses=dataclasses.replace(config.losses, perceptual=0.1)
    )
    tokenizer = dataclasses.replace(tokenizer, config=config)
    with self.assertLogs('absl', 'WARNING') as logs:
      probe_features.warn(tokenizer, vim)
    self.assertIn(
      'trained with the perceptual loss, whose VGG16', logs.output[0]
    )
    with self.assertNoLogs('absl', 'WARNING'):
      probe_features.warn(*_models(num_classes=0))

  @parameterized.parameters(
    ({'block': '2'}, {}, {}, 'There is no block 2: the VIM has the blocks 0'),
    ({}, {'labels': [0, 1, 3]}, {}, 'have the label 3, but must have labels'),
    ({}, {'labels': [0, 1, -1]}, {}, 'have the label -1, but must have labels'),
    ({}, {'labels': [0, 1, 1]}, {}, "no image of the class 'blue'"),
    ({}, {}, {'labels': [0, 1, 1]}, "no image of the class 'blue'"),
    ({}, {}, {'class_names': ('a', 'b', 'c')}, 'has other classes'),
    ({}, {'class_names': ('image',)}, {}, 'no classes'),
    ({'validation_share': 0.1}, {}, {}, 'of each class is not one image'),
  )
  def test_refuses(self, changes, train, held_out, text):
    def small(source, changes):
      changes = dict(changes)
      if 'labels' in changes:
        changes['labels'] = np.array(changes['labels'], np.int32)
      return dataclasses.replace(
        source,
        **{
          'records': source.records[:3],
          'labels': source.labels[:3],
          'num_examples': 3,
          **changes,
        },
      )

    config = dataclasses.replace(self.config, baselines=False, **changes)
    with self.assertRaisesRegex(UserError, text) as caught:
      self._sweep(
        config,
        self.create_tempdir().full_path,
        small(self.train, train),
        small(self.held_out, held_out),
      )
    self.assertNotIn('\n', str(caught.exception))


if __name__ == '__main__':
  tf.test.main()
