"""Tests that 2 and 4 replicas train as one does, both stages.

Each micro-batch is of four images wherever it is run: as one of four on one
device, one of two on two, the only one on each of four. Hence also the groups
of StyleGAN2's minibatch standard deviation are the same.
"""

import pathlib

from absl.testing import parameterized
import tensorflow as tf

from tests import testing
from tests.experiments import tiny_runs
from tests.jobs import comparing
from vim_tf import presets
from vim_tf.config import ConfigError, replace
from vim_tf.jobs import train_tokenizer, train_vim
from vim_tf.training import strategy as strategy_lib

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
  'codebook.init_kmeans': '2',
  'codebook.revival_interval': '1',
  'codebook.revival_steps': '100',
}


class ReplicasTest(parameterized.TestCase, tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root = testing.new_folder('replicas')
    runs = tiny_runs.shared()
    cls.images, cls.tokenizer = runs.images, runs.tokenizer
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
      train_tokenizer.train(config, str(path), comparing.strategy(replicas))
      return path
    changes |= {
      'tokenizer': str(cls.tokenizer),
      'model.num_classes': '2',
      'model.transformer.num_blocks': '1',
    }
    config = replace(presets.stage2('tiny'), {**comparing.SHORT_RUN, **changes})
    train_vim.train(config, str(path), comparing.strategy(replicas))
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
      strategy_lib.describe(comparing.strategy(CPU_DEVICES), 16),
      '4 replica(s), here on CPU:0, CPU:1, CPU:2, CPU:3, batch 16 in all, '
      '4 each',
    )

  def test_batch_that_does_not_divide(self):
    with self.assertRaisesRegex(ConfigError, '18 does not divide over 4'):
      strategy_lib.describe(comparing.strategy(CPU_DEVICES), 18)


if __name__ == '__main__':
  testing.main(CPU_DEVICES)
