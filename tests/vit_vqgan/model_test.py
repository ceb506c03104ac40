"""Tests of the stage-1 model: shapes, consistency and its options."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import testing
from vim_tf.vit_vqgan import model as model_lib
from vim_tf.vit_vqgan import vit


def _images(batch: int = 3) -> tf.Tensor:
  return tf.random.stateless_uniform([batch, 8, 8, 3], [1, 2])


def _model(**kwargs) -> model_lib.ViTVQGAN:
  model = model_lib.ViTVQGAN(testing.vit_vqgan_config(**kwargs))
  model.build()
  testing.randomize(model)
  return model


class ModelTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.named_parameters(
    ('default', {}),
    ('plain_outputs', {'logit_laplace': False}),
    ('no_output_mlp', {'output_mlp': False}),
    ('sincos', {'positions': 'sincos'}),
    ('factorized', {'positions': 'factorized'}),
    ('not_normalised', {'l2_normalize': False}),
    (
      'wider_decoder',
      {
        'decoder': testing.transformer_config(
          num_blocks=1, width=24, num_heads=3, head_width=4
        )
      },
    ),
  )
  def test_shapes_and_consistency(self, options):
    model = _model(**options)
    images = _images()
    # Codes that are met, also where lengths count: the outputs themselves.
    features = tf.reshape(model.features(images), [12, 4])
    model.quantizer.codebook.assign(tf.concat([features, features[:4]], 0))
    num_weights = len(model.weights)
    out = model(images)
    self.assertLen(model.weights, num_weights)  # All were made by build.
    self.assertEqual(out['reconstruction'].shape, images.shape)
    self.assertEqual(out['reconstruction'].dtype, tf.float32)
    self.assertEqual(out['codes'].shape, [3, 4])
    self.assertEqual(out['features'].shape, [3, 4, 4])
    self.assertEqual(out['commitment'].shape, [3])
    codes = model.encode(images)
    self.assertEqual(codes.dtype, tf.int32)
    self.assertAllEqual(codes, out['codes'])
    decoded = model.decode(codes)
    expected = np.clip(out['reconstruction'], 0.0, 1.0)
    self.assertAllClose(decoded, expected, atol=1e-5)
    self.assertNotAllClose(decoded[0], decoded[1])
    if options.get('logit_laplace', True):
      self.assertEqual(out['mu'].shape, images.shape)
      self.assertEqual(out['log_scale'].shape, images.shape)
      mean = 1.0 / (1.0 + np.exp(-out['mu'].numpy().astype(np.float64)))
      image = (mean - 0.1) / 0.8  # The inverse of the paper's squeeze.
      self.assertAllClose(out['reconstruction'], image, atol=1e-5)
    else:
      self.assertNotIn('mu', out)

  def test_conformance(self):
    # Codes may flip in bfloat16; what goes into the quantizer may not.
    testing.check_layer(
      self,
      lambda **kwargs: model_lib.ViTVQGAN(testing.vit_vqgan_config(), **kwargs),
      (_images(),),
      atol=1e-4,
      bfloat16_atol=0.2,
      compared=lambda out: out['features'],
    )

  def test_conformance_of_encoder_and_decoder(self):
    one = testing.transformer_config(num_blocks=1)
    config = testing.vit_vqgan_config(encoder=one, positions='sincos')
    testing.check_layer(
      self,
      lambda **kwargs: vit.ViTEncoder(config, **kwargs),
      (_images(),),
      bfloat16_atol=0.2,
    )
    config = testing.vit_vqgan_config(decoder=one, output_mlp=False)
    testing.check_layer(
      self,
      lambda **kwargs: vit.ViTDecoder(config, recompute=True, **kwargs),
      (tf.random.stateless_normal([2, 4, 16], [1, 2]),),
      bfloat16_atol=0.2,
    )

  def test_codes_and_patches_are_in_raster_order(self):
    # With the attention silent and no positions, a code is that of its patch.
    model = _model(positions='sincos')
    for side in (model.encoder, model.decoder):
      for block in side.trunk.transformer.blocks:
        block.attention.out.kernel.assign(tf.zeros([16, 16]))
      side.trunk.positions.vectors = lambda width: tf.zeros([4, width])
    images = _images(1).numpy()
    codes = model.encode(images).numpy()[0]
    decoded = model.decode(codes[None]).numpy()[0]
    for i in range(4):
      row, column = (4 * part for part in divmod(i, 2))
      patch = images[0, row : row + 4, column : column + 4]
      tiled = np.tile(patch, [2, 2, 1])[None]
      self.assertAllEqual(model.encode(tiled)[0], [codes[i]] * 4)
      alone = model.decode(tf.fill([1, 4], codes[i]))[0]
      self.assertAllClose(
        alone[:4, :4], decoded[row : row + 4, column : column + 4], atol=1e-5
      )

  def test_gradients_reach_every_weight(self):
    model = _model()
    with tf.GradientTape() as tape:
      out = model(_images())
      loss = sum(
        tf.reduce_mean(out[name])
        for name in ('reconstruction', 'log_scale', 'commitment', 'codebook')
      )
    gradients = tape.gradient(loss, model.trainable_variables)
    for gradient, variable in zip(gradients, model.trainable_variables):
      self.assertIsNotNone(gradient, variable.name)

  def test_bfloat16_keeps_images_as_fine_as_they_came(self):
    # Around mid-grey 2x - 1 has bits that bfloat16 has not got for x.
    config = testing.vit_vqgan_config()
    encoder = vit.ViTEncoder(config, dtype='mixed_bfloat16')
    encoder.build()
    grey = tf.fill([1, 8, 8, 3], 0.5)
    nearly = tf.fill([1, 8, 8, 3], 0.5 + 1 / 1024)
    testing.randomize(encoder, scale=10.0)
    encoder.embed.bias.assign(tf.zeros([16]))
    encoder.trunk.positions.table.assign(tf.zeros([4, 16]))
    self.assertNotAllClose(encoder(grey), encoder(nearly), atol=1e-3)

  def test_encoder_of_bfloat16_ends_in_float32(self):
    """Blocks that add nothing leave features as exact as float32's."""
    found = []
    for dtype in ('float32', 'mixed_bfloat16'):
      model = model_lib.ViTVQGAN(testing.vit_vqgan_config(), dtype=dtype)
      model.build()
      testing.randomize(model)
      for block in model.encoder.trunk.transformer.blocks:
        for layer in (block.attention.out, block.mlp.out):
          layer.kernel.assign(tf.zeros_like(layer.kernel))
          layer.bias.assign(tf.zeros_like(layer.bias))
      found.append(model.features(_images()))
    self.assertAllClose(*found, atol=1e-5)

  def test_outputs_of_bfloat16_are_float32(self):
    model = model_lib.ViTVQGAN(
      testing.vit_vqgan_config(), dtype='mixed_bfloat16'
    )
    out = model(_images())
    for name, value in out.items():
      expected = tf.int32 if name == 'codes' else tf.float32
      self.assertEqual(value.dtype, expected, name)
    for side in (model.encoder, model.decoder):
      (block, *_) = side.trunk.transformer.blocks
      for layer in (block.attention.qkv, block.mlp.hidden, block.mlp.out):
        self.assertEqual(layer.compute_dtype, 'bfloat16', layer.name)
    self.assertEqual(model.decode(out['codes']).dtype, tf.float32)

  def test_last_layer_is_the_kernel_that_makes_pixels(self):
    decoder = _model().decoder
    self.assertEqual(decoder.last_layer.shape, [16, 6 * 4**2])


if __name__ == '__main__':
  tf.test.main()
