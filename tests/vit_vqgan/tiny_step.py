"""A tiny training step of stage 1, with all that it trains, for tests."""

import numpy as np
import tensorflow as tf

from tests import testing
from vim_tf import presets
from vim_tf.config import Stage1Config, replace
from vim_tf.training import optimizers
from vim_tf.vit_vqgan import model as model_lib
from vim_tf.vit_vqgan import step as step_lib


def config(**changes) -> Stage1Config:
  """The tiny preset with one block a stack and a tiny discriminator."""
  changes = {
    'model.encoder.num_blocks': '1',
    'model.decoder.num_blocks': '1',
    'adversarial.channel_multiplier': str(1 / 128),
    **{name: str(value) for name, value in changes.items()},
  }
  return replace(presets.stage1('tiny'), changes)


def adversarial(**changes) -> Stage1Config:
  return config(**{'losses.adversarial': 0.5, **changes})


def batch(size, count=8, seed=0):
  """Images of four even squares each."""
  images = np.random.default_rng(seed).uniform(size=[count, 2, 2, 3])
  images = images.repeat(size // 2, axis=1).repeat(size // 2, axis=2)
  return {
    'images': tf.constant(images, tf.float32),
    'labels': tf.zeros([count], tf.int32),  # Data have them; no step may mind.
    'seeds': tf.cast(tf.range(count), tf.uint32),
  }


def perceptual(one, other):
  return 3.0 * tf.reduce_mean(tf.abs(one - other) ** 3, axis=[1, 2, 3])


class Parts:
  """A step and what it trains."""

  def __init__(self, config, descent=False, average=False):
    tf.keras.utils.set_random_seed(1)
    self.config = config
    self.model = model_lib.ViTVQGAN(config.model)
    self.model.build()
    self.average = None
    if average:
      self.average = model_lib.ViTVQGAN(config.model)
      self.average.build()
      self.average.set_weights(self.model.get_weights())

    def optimizer(settings, variables, averages=None):
      if descent:
        return testing.Descent(variables)
      return optimizers.Optimizer(settings, variables, averages)

    self.discriminator = judge = None
    if config.losses.adversarial:
      self.discriminator = step_lib.make_discriminator(
        config.adversarial, config.model.image_size, 'float32'
      )
      judge = optimizer(
        config.discriminator_optimizer, self.discriminator.trainable_variables
      )
    self.step = step_lib.TokenizerStep(
      config,
      self.model,
      optimizer(
        config.optimizer,
        self.model.trainable_variables,
        self.average.trainable_variables if average else None,
      ),
      self.average,
      perceptual if config.losses.perceptual else None,
      self.discriminator,
      judge,
    )

  def run(self, batch, step=0, kind=None):
    """One step, op by op; its metrics as numbers."""
    kind = kind or self.step.step_kind(step)
    metrics = self.step.replica_step(kind, batch, tf.constant(step, tf.int64))
    for name, value in metrics.items():
      assert value.shape == [], name
    return {name: float(value) for name, value in metrics.items()}


def values(variables):
  return [variable.numpy() for variable in variables]
