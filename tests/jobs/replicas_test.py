"""Tests that 2 and 4 replicas train and measure as one does, both stages.

Each micro-batch is of four images wherever it is run: as one of four on one
device, one of two on two, the only one on each of four. Hence also the groups
of StyleGAN2's minibatch standard deviation are the same.
"""

import functools
import pathlib
import shutil

from absl.testing import parameterized
import tensorflow as tf

from tests.experiments import tiny_runs
from tests.jobs import comparing
from vim_tf import presets
from vim_tf.config import ConfigError, SamplingConfig, replace
from vim_tf.data import codes as codes_lib
from vim_tf.data import pipeline, sources
from vim_tf.jobs import encode as encode_job
from vim_tf.jobs import (
  evaluate_likelihood,
  evaluate_reconstructions,
  evaluate_samples,
  restore,
  train_tokenizer,
  train_vim,
)
from vim_tf.jobs import probe as probe_job
from vim_tf.jobs import sample as sample_job
from vim_tf.training import strategy as strategy_lib
from vim_tf.training import workdir as workdir_lib

CPU_DEVICES = 4
_STAGE1 = {
  **comparing.SHORT_RUN,
  'data.image_size': '8',
  'model.image_size': '8',
  'model.encoder.num_blocks': '1',
  'model.decoder.num_blocks': '1',
  'losses.adversarial': '0.1',
  'adversarial.channel_multiplier': str(1 / 64),
  'adversarial.r1_interval': '1',
  'codebook.revival_interval': '1',
  'codebook.revival_steps': '100',
}


def _strategy(replicas: int) -> tf.distribute.Strategy:
  if replicas == 1:
    return strategy_lib.make('one_device')
  return tf.distribute.MirroredStrategy([f'cpu:{i}' for i in range(replicas)])


class ReplicasTest(parameterized.TestCase, tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root = pathlib.Path(tf.compat.v1.test.get_temp_dir()) / 'replicas'
    shutil.rmtree(cls.root, ignore_errors=True)
    cls.images = cls.root / 'images'
    tiny_runs.make_images(cls.images)
    cls.tokenizer = cls.root / 'tokenizer'
    tiny_runs.make_tokenizer(cls.tokenizer, cls.images)
    cls.expected = {
      stage: cls._train(stage, 1, f'{stage}-1') for stage in (1, 2)
    }

  @classmethod
  def _train(cls, stage: int, replicas: int, name: str) -> pathlib.Path:
    changes = {
      'data.name': f'folder:{cls.images}',
      'optimizer.accumulate': str(CPU_DEVICES // replicas),
    }
    path = cls.root / name
    if stage == 1:
      config = replace(presets.stage1('tiny'), {**_STAGE1, **changes})
      train_tokenizer.train(config, str(path), _strategy(replicas))
      return path
    changes |= {
      'tokenizer': str(cls.tokenizer),
      'model.num_classes': '2',
      'model.transformer.num_blocks': '1',
    }
    config = replace(presets.stage2('tiny'), {**comparing.SHORT_RUN, **changes})
    train_vim.train(config, str(path), _strategy(replicas))
    return path

  @parameterized.product(stage=(1, 2), replicas=(2, CPU_DEVICES))
  def test_equal_to_one(self, stage, replicas):
    found = self._train(stage, replicas, f'{stage}-{replicas}')
    told = comparing.assert_close(self, found, self.expected[stage])
    print(f'stage {stage}, {replicas} replicas: {told}')

  def test_the_updates_are_there_to_be_compared(self):
    rows = comparing.timeless_rows(self.expected[1])
    steps = [row for row in rows if 'loss' in row]
    self.assertEqual(
      [row['step'] for row in steps if 'discriminator/r1' in row],
      [1, 2, 3, 4, 5],
    )
    self.assertEqual(
      [row['step'] for row in steps if 'codes_replaced' in row], [1, 2, 3, 4, 5]
    )
    self.assertGreater(steps[2]['codes_replaced'], 0)
    names = comparing.read_checkpoint(self.expected[1])
    self.assertTrue(any(name.startswith('average/') for name in names))

  def test_batches_are_told(self):
    self.assertEqual(
      strategy_lib.describe(_strategy(CPU_DEVICES), 16),
      '4 replica(s), here on CPU:0, CPU:1, CPU:2, CPU:3, batch 16 in all, '
      '4 each',
    )

  def test_batch_that_does_not_divide(self):
    with self.assertRaisesRegex(ConfigError, '18 does not divide over 4'):
      strategy_lib.describe(_strategy(CPU_DEVICES), 18)


class JobsTest(parameterized.TestCase, tf.test.TestCase):
  """All that runs a model without training it.

  The held-out images are 11 and the batches 4 and 64, so that the last ones are
  short, and do not divide over the replicas.
  """

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root = pathlib.Path(tf.compat.v1.test.get_temp_dir()) / 'spread'
    shutil.rmtree(cls.root, ignore_errors=True)
    cls.root.mkdir()
    cls.runs = tiny_runs.shared()
    for name, network in (
      ('means', tiny_runs.Means(2)),
      ('brightness', tiny_runs.Brightness()),
    ):
      tf.saved_model.save(network, str(cls.root / name))

  @classmethod
  @functools.cache
  def _expected(cls, job: str):
    return getattr(cls, f'_{job}')(1, f'{job}-1')

  @classmethod
  def _restored(cls, replicas: int):
    with _strategy(replicas).scope():
      return restore.both(cls.runs.vim)

  @classmethod
  def _in_training(cls, replicas: int, name: str):
    tokenizer, vim = cls._restored(replicas)
    data = tokenizer.config.data
    source = sources.load(data, data.eval_split)
    found = []
    for figures in (
      train_tokenizer.Figures(tokenizer.model),
      train_vim.Figures(vim.model, tokenizer.model),
    ):
      batches = pipeline.evaluation_batches(
        source, data, batch_size=figures.batch_size
      )
      found.append(figures(batches))
    return found

  @classmethod
  def _reconstruction(cls, replicas: int, name: str):
    tokenizer, _ = cls._restored(replicas)
    result, picture = evaluate_reconstructions.evaluate(
      tokenizer,
      evaluate_reconstructions.Protocol(
        batch_size=4, network=f'file:{cls.root}/means', precisions=True
      ),
    )
    return result['figures'], picture

  @classmethod
  def _likelihood(cls, replicas: int, name: str):
    models = cls._restored(replicas)
    return evaluate_likelihood.evaluate(
      *models, evaluate_likelihood.Protocol(batch_size=4, passes=1)
    )['figures']

  @classmethod
  def _generation(cls, replicas: int, name: str):
    result, _ = evaluate_samples.evaluate(
      *cls._restored(replicas),
      evaluate_samples.Protocol(
        num_samples=11,
        batch_size=4,
        acceptance=0.5,
        classifier=f'file:{cls.root}/brightness',
        network='efficientnet_lite0',
      ),
    )
    return result['figures']

  @classmethod
  def _encode(cls, replicas: int, name: str):
    tokenizer, _ = cls._restored(replicas)
    encode_job.encode(tokenizer, cls.root / name, crops=2, batch_size=6)
    return codes_lib.Cache(cls.root / name).fingerprint

  @classmethod
  def _sample(cls, replicas: int, name: str):
    out = cls.root / name
    sample_job.sample(
      cls.runs.vim,
      out,
      count=3,
      batch_size=4,
      config=SamplingConfig(guidance_scale=1.5),
      complete=str(next((cls.runs.images / 'train').glob('*/*.png'))),
      keep_rows=1,
      strategy=_strategy(replicas),
    )
    again = out.with_name(f'{name}-again')
    sample_job.sample_again(
      out / 'samples.json', cls.runs.vim, again, strategy=_strategy(1)
    )
    rows = [workdir_lib.read_json(x / 'samples.json') for x in (out, again)]
    assert rows[0]['samples'] == rows[1]['samples']
    return [row['codes'] for row in rows[0]['samples']]

  @classmethod
  def _probe(cls, replicas: int, name: str):
    vim = restore.vim(cls.runs.unconditional)
    config = replace(
      presets.probe('tiny', vim.config),
      {
        'vim': str(cls.runs.unconditional),
        'network': 'efficientnet_lite0',
        'run.num_steps': '20',
        'run.batch_size': '8',
      },
    )
    return probe_job.probe(config, cls.root / name, _strategy(replicas))

  @parameterized.product(
    job=(
      'in_training',
      'reconstruction',
      'likelihood',
      'generation',
      'encode',
      'sample',
      'probe',
    ),
    replicas=(2, CPU_DEVICES),
  )
  def test_equal_to_one(self, job, replicas):
    found = getattr(self, f'_{job}')(replicas, f'{job}-{replicas}')
    ours, theirs = map(_numbers, (found, self._expected(job)))
    self.assertEqual(ours.keys(), theirs.keys())
    for key, value in theirs.items():
      if isinstance(value, str):
        self.assertEqual(ours[key], value, key)
      else:
        self.assertAllClose(ours[key], value, 1e-5, 1e-5, key)


def _numbers(value, name: str = '') -> dict:
  """The leaves of a result by where they stand."""
  if isinstance(value, dict):
    items = value.items()
  elif isinstance(value, (list, tuple)):
    items = enumerate(value)
  else:
    return {name: value}
  found = {}
  for key, item in items:
    found.update(_numbers(item, f'{name}/{key}'))
  return found


if __name__ == '__main__':
  cpu = tf.config.list_physical_devices('CPU')[0]
  tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * CPU_DEVICES
  )
  tf.test.main()
