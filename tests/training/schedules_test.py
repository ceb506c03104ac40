"""Tests of the learning rates: closed forms, and the paper's own."""

import math

from absl.testing import parameterized
import tensorflow as tf

from vim_tf import presets
from vim_tf.config import OptimizerConfig
from vim_tf.training import schedules


def _rate(config, step):
  return float(schedules.Schedule(config)(tf.constant(step, tf.int64)))


class ScheduleTest(parameterized.TestCase, tf.test.TestCase):
  def _check(self, config, expected):
    for step, rate in expected.items():
      self.assertAllClose(
        _rate(config, step), rate, rtol=1e-5, atol=0.0, msg=f'step {step}'
      )

  def test_constant_without_warmup(self):
    self._check(OptimizerConfig(learning_rate=0.3), {0: 0.3, 10**6: 0.3})

  @parameterized.parameters(('constant', 0), ('cosine', 100))
  def test_warmup_is_linear_and_ends_at_the_peak(self, decay, end):
    config = OptimizerConfig(
      learning_rate=0.8, warmup_steps=4, decay=decay, decay_end=end
    )
    self._check(config, {0: 0.2, 1: 0.4, 2: 0.6, 3: 0.8, 4: 0.8})

  def test_cosine(self):
    config = OptimizerConfig(
      learning_rate=1.0,
      warmup_steps=10,
      decay='cosine',
      decay_start=20,
      decay_end=60,
      final_learning_rate=0.2,
    )
    fall = {
      20 + i: 0.2 + 0.8 * (1 + math.cos(math.pi * i / 40)) / 2
      for i in range(0, 41, 5)
    }
    self._check(config, {4: 0.5, 9: 1.0, 15: 1.0, **fall, 61: 0.2, 999: 0.2})

  def test_exponential(self):
    config = OptimizerConfig(
      learning_rate=1.0,
      warmup_steps=2,
      decay='exponential',
      decay_start=10,
      decay_end=20,
      final_learning_rate=0.01,
    )
    fall = {10 + i: 10.0 ** (-2 * i / 10) for i in range(11)}
    self._check(config, {0: 0.5, 1: 1.0, 9: 1.0, **fall, 21: 0.01, 99: 0.01})

  def test_decay_waits_for_warmup(self):
    config = OptimizerConfig(
      learning_rate=1.0, warmup_steps=10, decay='cosine', decay_end=20
    )
    self._check(config, {9: 1.0, 10: 1.0, 15: 0.5})
    self.assertLess(_rate(config, 20), 1e-6)

  @parameterized.parameters(
    'vit_vqgan_ss', 'vit_vqgan_bb', 'vit_vqgan_sl', 'vit_vqgan_ss_16x16'
  )
  def test_paper_stage1(self, name):
    """Paper 5.1: 1e-4 after 50k steps, by cosine to 5e-5 at 500k."""
    config = presets.stage1(name)
    expected = {
      0: 1e-4 / 50_000,
      24_999: 0.5e-4,
      49_999: 1e-4,
      50_000: 1e-4,
      275_000: 7.5e-5,
      500_000: 5e-5,
      600_000: 5e-5,
    }
    self._check(config.optimizer, expected)
    self._check(config.discriminator_optimizer, expected)

  @parameterized.parameters('vim_base', 'vim_large', 'vim_base_unconditional')
  def test_paper_stage2(self, name):
    """Paper 5.2: 4.5e-4 after 5k, from 80k exponentially to 1e-5 at 450k."""
    self._check(
      presets.stage2(name).optimizer,
      {
        0: 4.5e-4 / 5_000,
        2_499: 2.25e-4,
        4_999: 4.5e-4,
        80_000: 4.5e-4,
        265_000: math.sqrt(4.5e-4 * 1e-5),
        450_000: 1e-5,
        500_000: 1e-5,
      },
    )

  def test_the_same_in_a_graph(self):
    config = presets.stage1('vit_vqgan_ss').optimizer
    compiled = tf.function(schedules.Schedule(config))
    for step in (0, 60_000, 499_999):
      self.assertAllClose(
        compiled(tf.constant(step, tf.int64)), _rate(config, step), rtol=1e-6
      )


if __name__ == '__main__':
  tf.test.main()
