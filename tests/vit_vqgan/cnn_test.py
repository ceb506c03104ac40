"""Tests of the CNN backbone: sizes, reach, gradients, and a whole model."""

import math

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import testing
from vim_tf import presets
from vim_tf.config import CNN_CHANNELS, replace
from vim_tf.training import optimizers
from vim_tf.vit_vqgan import cnn
from vim_tf.vit_vqgan import model as model_lib
from vim_tf.vit_vqgan import step as step_lib

# Groups of three channels. Of single ones, as with 8, the norm would undo
# what comes before, and biases would have no gradient.
_BASE = 6
_FACTOR = _BASE / CNN_CHANNELS


def _images(size: int = 8, batch: int = 2) -> tf.Tensor:
  return tf.random.stateless_uniform([batch, size, size, 3], [1, 2])


def _sides(image_size, patch_size, scale=0.3):
  """A built encoder and decoder with random weights."""
  encoder = cnn.CNNEncoder(image_size, patch_size, multiplier=_FACTOR)
  decoder = cnn.CNNDecoder(image_size, patch_size, 6, multiplier=_FACTOR)
  for side in (encoder, decoder):
    side.build(None)
    testing.randomize(side, scale=scale)
  return encoder, decoder


def _published_counts(multipliers, channels, outputs):
  """Weights of the encoder and the decoder, from VQGAN's Table 7."""
  widths = [channels * multiplier for multiplier in multipliers]
  width = widths[-1]

  def conv(before, after, size=3):
    return size**2 * before * after + after

  def block(before, after):
    skip = conv(before, after, 1) if before != after else 0
    norms = 2 * before + 2 * after
    return norms + conv(before, after) + conv(after, after) + skip

  middle = 2 * block(width, width) + 2 * width + 4 * conv(width, width, 1)
  encoder = conv(3, widths[0])
  before = widths[0]
  for level, after in enumerate(widths):
    encoder += conv(before, before) if level else 0
    encoder += block(before, after) + block(after, after)
    before = after
  encoder += middle + 2 * width + conv(width, width)
  decoder = conv(width, width) + middle
  for level, after in reversed(list(enumerate(widths))):
    decoder += block(before, after) + 2 * block(after, after)
    decoder += conv(after, after) if level else 0
    before = after
  decoder += 2 * widths[0] + conv(widths[0], outputs)
  return encoder, decoder


def _counts(*layers):
  return tuple(
    sum(math.prod(weight.shape) for weight in layer.weights) for layer in layers
  )


class BackboneTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(
    (1, (1,)),
    (4, (1, 2, 4)),
    (8, (1, 2, 2, 4)),
    (16, (1, 1, 2, 2, 4)),
  )
  def test_shapes_and_counts(self, patch_size, multipliers):
    size, factor = 2 * patch_size, multipliers[-1]
    grid = size // patch_size
    encoder, decoder = _sides(size, patch_size)
    num_weights = len(encoder.weights), len(decoder.weights)
    images = _images(size)
    features = encoder(images)
    outputs = decoder(features)
    self.assertEqual(encoder.width, factor * _BASE)
    self.assertEqual(decoder.width, factor * _BASE)
    self.assertEqual(features.shape, [2, grid**2, factor * _BASE])
    self.assertEqual(outputs.shape, [2, size, size, 6])
    # All variables were made by build.
    self.assertEqual((len(encoder.weights), len(decoder.weights)), num_weights)

  def test_shapes_are_static_inside_a_graph(self):
    encoder, decoder = _sides(4, 2)

    @tf.function(
      input_signature=[tf.TensorSpec([None, 4, 4, 3])], autograph=False
    )
    def reconstruct(images):
      features = encoder(images)
      self.assertEqual(features.shape.as_list(), [None, 4, 2 * _BASE])
      outputs = decoder(features)
      self.assertEqual(outputs.shape.as_list(), [None, 4, 4, 6])
      return outputs

    reconstruct.get_concrete_function()

  def test_counts_of_weights_at_256_pixels(self):
    totals = []
    for multiplier in (1, 2):
      with tf.Graph().as_default():  # Nothing is allocated.
        encoder = cnn.CNNEncoder(256, 8, multiplier)
        decoder = cnn.CNNDecoder(256, 8, 6, multiplier)
        encoder.build(None)
        decoder.build(None)
      counts = _counts(encoder, decoder)
      expected = _published_counts((1, 2, 2, 4), 128 * multiplier, 6)
      self.assertEqual(counts, expected)
      totals.append(sum(counts))
    self.assertAllClose(totals[1] / totals[0], 4.0, atol=0.02)

  def test_conformance(self):
    size = {'image_size': 4, 'patch_size': 2, 'multiplier': _FACTOR}
    # Weights far above those of training; what they give is of the order 10.
    testing.check_layer(
      self,
      lambda **kwargs: cnn.CNNEncoder(**size, **kwargs),
      (_images(4),),
      atol=1e-4,
      bfloat16_atol=0.1,
      compared=lambda x: x / 10.0,
    )
    testing.check_layer(
      self,
      lambda **kwargs: cnn.CNNDecoder(**size, channels=6, **kwargs),
      (tf.random.stateless_normal([2, 4, 2 * _BASE], [1, 2]),),
      atol=1e-4,
      bfloat16_atol=0.1,
      compared=lambda x: x / 10.0,
    )

  def test_every_pixel_reaches_every_code_and_back(self):
    encoder, decoder = _sides(32, 4)
    change = _change(encoder, _images(32, 1), (0, 3, 3))
    self.assertAllGreater(change, 0.0)
    vectors = tf.random.stateless_normal([1, 64, 4 * _BASE], [1, 2])
    change = _change(decoder, vectors, (0, 9))
    self.assertAllGreater(change, 0.0)

  def test_codes_and_pixels_are_in_raster_order(self):
    # Along the skips alone, what is far counts only by the last norm.
    encoder, decoder = _sides(32, 4)
    for layer in [*encoder.submodules, *decoder.submodules]:
      if hasattr(layer, 'second'):  # A residual block.
        kernel = layer.second.conv.kernel
      elif hasattr(layer, 'qkv'):  # The attention.
        kernel = layer.out.kernel
      else:
        continue
      kernel.assign(tf.zeros_like(kernel))
    row, column = 1, 6
    change = _change(encoder, _images(32, 1), (0, 4 * row + 1, 4 * column + 1))
    change = change.reshape([8, 8])
    self.assertGreater(change[row, column], 4 * change[column, row])
    vectors = tf.random.stateless_normal([1, 64, 4 * _BASE], [1, 2])
    change = _change(decoder, vectors, (0, 8 * row + column))
    change = change.reshape([8, 4, 8, 4]).max(axis=(1, 3))
    self.assertGreater(change[row, column], 4 * change[column, row])

  def test_gradients_reach_every_variable(self):
    encoder, decoder = _sides(8, 4)
    variables = encoder.trainable_variables + decoder.trainable_variables
    images = _images()
    with tf.GradientTape() as tape:
      outputs = decoder(encoder(images))
      loss = tf.reduce_mean((outputs - tf.tile(images, [1, 1, 1, 2])) ** 2)
    for gradient, variable in zip(tape.gradient(loss, variables), variables):
      self.assertIsNotNone(gradient, variable.name)
      self.assertAllEqual(np.isfinite(gradient), np.ones(variable.shape, bool))
      self.assertGreater(np.abs(gradient).max(), 1e-6, variable.name)

  @parameterized.parameters((3, 0.5), (6, 0.0))
  def test_untrained_decoder_is_gray_and_takes_a_colour(self, channels, gray):
    decoder = cnn.CNNDecoder(8, 4, channels, multiplier=1 / 8)
    decoder.build(None)
    vectors = tf.random.stateless_normal([2, 4, 64], [1, 2])
    self.assertAllClose(
      decoder(vectors), np.full([2, 8, 8, channels], gray), atol=0.03
    )
    color = np.linspace(-1.0, 1.0, channels).astype(np.float32)
    decoder.start_from(tf.constant(color))
    self.assertAllClose(
      decoder(vectors), np.tile(color, [2, 8, 8, 1]), atol=0.03
    )
    self.assertEqual(decoder.last_layer.shape, [3, 3, 16, channels])
    decoder.last_layer.assign(tf.zeros_like(decoder.last_layer))
    self.assertAllClose(decoder(vectors), np.tile(color, [2, 8, 8, 1]))

  def test_bfloat16_computes_in_bfloat16_but_for_norms(self):
    dtype = 'mixed_bfloat16'
    encoder = cnn.CNNEncoder(8, 4, multiplier=_FACTOR, dtype=dtype)
    decoder = cnn.CNNDecoder(8, 4, 3, multiplier=_FACTOR, dtype=dtype)
    features = encoder(_images())
    self.assertEqual(features.dtype, tf.bfloat16)
    self.assertEqual(decoder(features).dtype, tf.float32)
    for layer in [*encoder.submodules, *decoder.submodules]:
      if isinstance(layer, tf.keras.layers.GroupNormalization):
        self.assertEqual(layer.compute_dtype, 'float32')
      elif isinstance(layer, tf.keras.layers.Layer):
        self.assertEqual(layer.compute_dtype, 'bfloat16', layer.name)

  def test_bfloat16_keeps_images_as_fine_as_they_came(self):
    # Around mid-grey 2x - 1 has bits that bfloat16 has not got for x.
    encoder = cnn.CNNEncoder(8, 4, multiplier=_FACTOR, dtype='mixed_bfloat16')
    encoder.build(None)
    seen = []
    encoder.stem.call = lambda x: seen.append(x) or tf.zeros([1, 8, 8, _BASE])
    encoder(tf.fill([1, 8, 8, 3], 0.5 + 1 / 1024))
    self.assertAllEqual(seen[0], np.full([1, 8, 8, 3], 1 / 512))


def _change(side, inputs, index):
  """How far the outputs move when the inputs at one index do."""
  moved = inputs.numpy()
  moved[index] += 1.0
  return np.abs(side(moved) - side(inputs)).max(axis=-1)[0]


class WholeModelTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters((2, 'float32'), (1, 'mixed_bfloat16'))
  def test_encodes_decodes_and_trains(self, patch_size, dtype):
    changes = {
      'model.backbone': 'cnn',
      'model.cnn_multiplier': '0.5',
      'model.patch_size': str(patch_size),
      'model.image_size': str(4 * patch_size),
      'data.image_size': str(4 * patch_size),
      'model.logit_laplace': 'true',
      'losses.logit_laplace': '0.1',
    }
    config = replace(presets.stage1('tiny'), changes)
    tf.keras.utils.set_random_seed(1)
    model = model_lib.ViTVQGAN(config.model, dtype=dtype)
    model.build()
    images = _images(4 * patch_size, 4)
    num_weights = len(model.weights)
    codes = model.encode(images)
    self.assertEqual(codes.shape, [4, 16])
    self.assertEqual(codes.dtype, tf.int32)
    decoded = model.decode(codes)
    self.assertEqual(decoded.shape, images.shape)
    self.assertEqual(decoded.dtype, tf.float32)
    self.assertAllInRange(decoded, 0.0, 1.0)
    self.assertLen(model.weights, num_weights)
    color = tf.constant([0.2, 0.5, 0.8])
    model.start_from(color)
    self.assertAllClose(
      model.decode(codes), tf.broadcast_to(color, images.shape), atol=0.05
    )

    optimizer = optimizers.Optimizer(
      replace(config.optimizer, {'warmup_steps': '0', 'decay': 'constant'}),
      model.trainable_variables,
    )
    step = step_lib.TokenizerStep(config, model, optimizer)
    batch = {'images': images, 'seeds': tf.constant(range(4), tf.uint32)}
    before = [weight.numpy() for weight in model.trainable_variables]

    def train():
      return step.replica_step('plain', batch, tf.constant(0, tf.int64))

    losses = [float(train()['loss']) for _ in range(3)]
    self.assertAllEqual(np.isfinite(losses), [True] * 3)
    self.assertLess(losses[2], losses[0])
    for old, weight in zip(before, model.trainable_variables):
      self.assertNotAllEqual(old, weight, weight.name)

  def test_a_part_of_the_channels(self):
    config = testing.vit_vqgan_config(backbone='cnn', cnn_multiplier=0.25)
    model = model_lib.ViTVQGAN(config)
    self.assertEqual(model.encoder.width, 128)  # 0.25 x 128 x 4.
    self.assertEqual(model.decoder.width, 128)


if __name__ == '__main__':
  tf.test.main()
