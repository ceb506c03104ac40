"""Tests of the weights' meaning against the other model, written in NumPy."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests.interop import enhancing_reference as reference
from vim_tf.config import UserError
from vim_tf.interop import enhancing_transformers
from vim_tf.vit_vqgan import model as model_lib

_QKV = 'encoder.transformer.layers.1.0.fn.to_qkv.weight'


def _shapes(weights):
  return {name: value.shape for name, value in weights.items()}


def _import(weights) -> model_lib.ViTVQGAN:
  config = enhancing_transformers.read_config(_shapes(weights))
  model = model_lib.ViTVQGAN(config)
  model.build()
  enhancing_transformers.assign(model, _shapes(weights), weights.__getitem__)
  return model


class ParityTest(parameterized.TestCase, tf.test.TestCase):
  # At the small scale the norms' epsilons change everything.
  @parameterized.parameters(1.0, 0.003)
  def test_same_codes_and_images(self, scale):
    sizes = reference.Sizes(scale=scale)
    weights = reference.random_weights(sizes)
    model = _import(weights)
    rng = np.random.default_rng(1)
    images = rng.uniform(size=[6, 16, 16, 3]).astype(np.float32)
    images[0] = 0.0
    images[1] = 1.0
    images[2, :, :8] = 0.5
    expected = reference.encode(weights, images)
    self.assertGreater(len(np.unique(expected)), 8)
    codes = model.encode(tf.constant(images))
    self.assertAllEqual(codes, expected)
    pixels = reference.decode(weights, expected)
    found = model(tf.constant(images))['reconstruction']
    self.assertAllClose(found, pixels, atol=1e-5, rtol=0)
    self.assertAllClose(
      model.decode(codes), np.clip(pixels, 0, 1), atol=1e-5, rtol=0
    )
    self.assertBetween(np.mean((pixels > 0) & (pixels < 1)), 0.3, 1.0)


class SizesTest(parameterized.TestCase, tf.test.TestCase):
  def test_sizes_are_read_off_the_shapes(self):
    weights = reference.random_weights(
      reference.Sizes(image_size=24, patch_size=8, code_dim=4)
    )
    config = enhancing_transformers.read_config(_shapes(weights))
    self.assertEqual(config.image_size, 24)
    self.assertEqual(config.patch_size, 8)
    self.assertEqual(config.codebook_size, 32)
    self.assertEqual(config.code_dim, 4)
    for side, expected in (
      (config.encoder, (2, 1, 16, 24)),
      (config.decoder, (3, 2, 20, 28)),
    ):
      found = side.num_blocks, side.num_heads, side.width, side.mlp_width
      self.assertEqual(found, expected)
      self.assertEqual(side.attention_head_width, 64)
      self.assertEqual(side.activation, 'tanh')
      self.assertFalse(side.qkv_bias)
    self.assertFalse(config.logit_laplace)
    self.assertFalse(config.output_mlp)

  def test_every_tensor_is_used_or_named(self):
    weights = reference.random_weights(reference.Sizes())
    config = enhancing_transformers.read_config(_shapes(weights))
    used = [name for name in weights if not name.startswith('loss')]
    read = []

    def numbers(name):
      read.append(name)
      return weights[name]

    model = model_lib.ViTVQGAN(config)
    model.build()
    self.assertEqual(
      enhancing_transformers.assign(model, _shapes(weights), numbers),
      {'loss.perceptual_loss': 1, 'loss.discriminator': 2},
    )
    self.assertCountEqual(set(read), used)


class RefusalTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.parameters(
    ('quantizer.embedding.weight', 'no tensor quantizer.embedding.weight'),
    (_QKV, f'lacks the tensor {_QKV}.'),
    ('decoder.to_pixel.1.bias', 'lacks the tensor decoder.to_pixel.1.bias'),
  )
  def test_missing_tensors(self, name, message):
    weights = reference.random_weights(reference.Sizes())
    del weights[name]
    with self.assertRaisesRegex(UserError, message):
      _import(weights)

  @parameterized.parameters(
    (_QKV, (192, 17), r'do not fit .*to_qkv.weight \[192, 17\]'),
    ('encoder.en_pos_embedding', (1, 15, 16), '15 positions.*square'),
    ('encoder.en_pos_embedding', (16, 16), 'has 2 axes'),
    ('decoder.de_pos_embedding', (1, 9, 20), r'\[1, 9, 20\]'),
    ('encoder.to_patch_embedding.0.weight', (16, 3, 4, 8), r'\[16, 3, 4, 8\]'),
    (_QKV.replace('.1.0', '.0.0'), (180, 16), '180 rows.*64 wide'),
  )
  def test_other_shapes(self, name, shape, message):
    weights = reference.random_weights(reference.Sizes())
    weights[name] = np.zeros(shape, np.float32)
    with self.assertRaisesRegex(UserError, message):
      _import(weights)

  def test_tensors_without_a_place(self):
    weights = reference.random_weights(reference.Sizes())
    weights['encoder.transformer.layers.0.0.fn.to_qkv.bias'] = np.zeros(192)
    with self.assertRaisesRegex(UserError, 'no place for.*to_qkv.bias'):
      _import(weights)

  def test_numbers_that_are_not_finite(self):
    weights = reference.random_weights(reference.Sizes())
    weights['pre_quant.bias'][3] = np.nan
    with self.assertRaisesRegex(UserError, 'pre_quant.bias.*not finite'):
      _import(weights)


if __name__ == '__main__':
  tf.test.main()
