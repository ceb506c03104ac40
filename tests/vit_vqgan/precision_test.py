"""Test of codes in bfloat16: those of float32, on a tokenizer that was trained.

On untrained models it would say little: their features lie close together, so
that any rounding changes codes.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from tests import testing
from vim_tf import presets
from vim_tf.config import CodebookConfig, OptimizerConfig
from vim_tf.training import optimizers
from vim_tf.vit_vqgan import model as model_lib
from vim_tf.vit_vqgan import step as step_lib

_STEPS = 180
_BATCH = 16


def _images(count, seed):
  """Patches of one colour each, of any colour: `[count, 16, 16, 3]`."""
  colors = np.random.default_rng(seed).uniform(size=[count, 4, 4, 3])
  return colors.repeat(4, axis=1).repeat(4, axis=2).astype(np.float32)


def _trained(config) -> model_lib.ViTVQGAN:
  """A tokenizer after some training in float32."""
  tf.keras.utils.set_random_seed(0)
  model = model_lib.ViTVQGAN(config.model)
  model.build()
  optimizer = optimizers.Optimizer(config.optimizer, model.trainable_variables)
  step = step_lib.TokenizerStep(config, model, optimizer)

  def run(kind, images, seeds):
    batch = {'images': images, 'seeds': seeds}
    return step.replica_step(kind, batch, tf.constant(0, tf.int64))

  compiled = tf.function(run, autograph=False)
  kinds = [step.step_kind(i) for i in range(_STEPS)]
  for i, kind in enumerate(kinds):
    seeds = tf.cast(tf.range(i * _BATCH, (i + 1) * _BATCH), tf.uint32)
    # A graph for a few steps takes longer than it saves.
    one_step = compiled if kinds.count(kind) > 10 else run
    one_step(kind, _images(_BATCH, i), seeds)
  return model


class PrecisionTest(tf.test.TestCase):
  def test_codes_of_bfloat16_are_those_of_float32(self):
    block = testing.transformer_config(num_blocks=1, width=32, mlp_width=64)
    config = presets.stage1('tiny')
    config = dataclasses.replace(
      config,
      model=dataclasses.replace(config.model, encoder=block, decoder=block),
      codebook=CodebookConfig(
        init_from_data=True,
        init_step=40,
        revival_interval=20,
        revival_steps=_STEPS,
      ),
      optimizer=OptimizerConfig(
        learning_rate=3e-3,
        decay='cosine',
        decay_end=_STEPS,
        clip_norm=1.0,
      ),
    )
    model = _trained(config)
    half = model_lib.ViTVQGAN(config.model, dtype='mixed_bfloat16')
    half.build()
    half.set_weights(model.get_weights())
    images = _images(128, seed=_STEPS)
    error = tf.reduce_mean((model.decode(model.encode(images)) - images) ** 2)
    self.assertLess(error, 0.5 * np.var(images))  # It has learned something.
    codes, rounded = model.encode(images).numpy(), half.encode(images).numpy()
    self.assertNotAllEqual(model.features(images), half.features(images))
    self.assertGreaterEqual(np.mean(codes == rounded), 0.99)
    self.assertGreater(len(np.unique(codes)), config.model.codebook_size // 2)
    self.assertGreaterEqual(len(np.unique(rounded)), len(np.unique(codes)))


if __name__ == '__main__':
  tf.test.main()
