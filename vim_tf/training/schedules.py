"""Learning rates by step: linear warm-up, plateau, then a decay."""

import math

import tensorflow as tf

from vim_tf.config import OptimizerConfig


class Schedule(tf.keras.optimizers.schedules.LearningRateSchedule):
  """The schedule of an `OptimizerConfig` (paper 5.1 and 5.2).

  Args:
    config: Highest and final learning rate, warm-up and decay, in steps.
  """

  def __init__(self, config: OptimizerConfig):
    self.config = config

  def __call__(self, step: tf.Tensor) -> tf.Tensor:
    """The learning rate of a step, float32; steps count from 0."""
    config = self.config
    step = tf.cast(step, tf.float32)
    peak = config.learning_rate
    rate = tf.constant(peak, tf.float32)
    if config.decay != 'constant':
      start = max(config.decay_start, config.warmup_steps)
      progress = (step - start) / (config.decay_end - start)
      progress = tf.clip_by_value(progress, 0.0, 1.0)
      final = config.final_learning_rate
      if config.decay == 'cosine':
        share = 0.5 * (1.0 + tf.cos(math.pi * progress))
        rate = final + (peak - final) * share
      else:
        rate = peak * tf.exp(progress * math.log(final / peak))
    if config.warmup_steps:
      # The first update already moves: step 0 gets 1 / warmup_steps.
      rate *= tf.minimum(1.0, (step + 1.0) / config.warmup_steps)
    return rate

  def get_config(self):
    return {'config': self.config}
