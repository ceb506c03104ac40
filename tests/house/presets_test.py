"""Tests of the presets' sizes: parameter counts and shapes, without weights.

The models are built inside a `tf.Graph`, where variables are symbolic: no
memory is taken, whatever the size. The counts are written out here from the
sizes of the paper's Table 2, not from the configs.
"""

import functools

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from vim_tf import presets
from vim_tf.nn import layers
from vim_tf.vim import model as vim_model
from vim_tf.vit_vqgan import model as vit_vqgan_model

_CLASSES = 1000
_CODES = 8192
_CODE_DIM = 32

# Table 2: blocks, heads, width and hidden width, with the attention's inner
# width: that of the model, but for Large, whose heads are 64 wide.
_SMALL = (8, 512, 2048, 512)
_BASE = (12, 768, 3072, 768)
_LARGE = (32, 1280, 5120, 16 * 64)
_VIM_BASE = (24, 1536, 6144, 1536)
_VIM_LARGE = (36, 2048, 8192, 2048)

_STAGE1_SIZES = {
  'vit_vqgan_ss': (_SMALL, _SMALL, 8),
  'vit_vqgan_bb': (_BASE, _BASE, 8),
  'vit_vqgan_sl': (_SMALL, _LARGE, 8),
  'vit_vqgan_ss_16x16': (_SMALL, _SMALL, 16),
  'vit_vqgan_bb_16x16': (_BASE, _BASE, 16),
  'vit_vqgan_sl_16x16': (_SMALL, _LARGE, 16),
}
_STAGE2_SIZES = {
  'vim_base': (_VIM_BASE, 32, _CLASSES),
  'vim_large': (_VIM_LARGE, 32, _CLASSES),
  'vim_base_16x16': (_VIM_BASE, 16, _CLASSES),
  'vim_large_16x16': (_VIM_LARGE, 16, _CLASSES),
  'vim_base_unconditional': (_VIM_BASE, 32, 0),
  'vim_large_probe': (_VIM_LARGE, 32, 0),
}
_OURS = ('small', 'tiny')  # Not the paper's; run below.


def _dense(inputs: int, outputs: int) -> int:
  return (inputs + 1) * outputs


def _stack(blocks: int, width: int, hidden: int, inner: int) -> int:
  """A Transformer with all biases and norms, and the norm after it."""
  norm = 2 * width
  attention = _dense(width, 3 * inner) + _dense(inner, width)
  mlp = _dense(width, hidden) + _dense(hidden, width)
  return blocks * (2 * norm + attention + mlp) + norm


def _stage1_side(sizes, patch: int, channels: int) -> int:
  """Encoder or decoder with positions, output MLP and its end at the pixels."""
  _, width, hidden, _ = sizes
  positions = (256 // patch) ** 2 * width
  output_mlp = _dense(width, hidden) + _dense(hidden, width)
  if channels == 3:
    pixels = _dense(3 * patch**2, width)
  else:
    pixels = _dense(width, channels * patch**2)
  return _stack(*sizes) + positions + output_mlp + pixels


def _published_style(sizes) -> int:
  """Kernels, positions, projection and codebook: no bias, no norm."""
  blocks, width, hidden, inner = sizes
  per_block = 4 * width * inner + 2 * width * hidden
  return (
    blocks * per_block
    + 2 * width * hidden
    + 1024 * width
    + 3 * 8**2 * width
    + width * _CODE_DIM
    + _CODES * _CODE_DIM
  )


def _count(layer) -> int:
  return sum(int(np.prod(weight.shape)) for weight in layer.weights)


@functools.cache
def _stage1(name: str) -> tuple[tf.Graph, vit_vqgan_model.ViTVQGAN]:
  with tf.Graph().as_default() as graph, layers.undrawn_weights():
    model = vit_vqgan_model.ViTVQGAN(presets.stage1(name).model)
    model.build()
  return graph, model


@functools.cache
def _stage2(name: str) -> tuple[tf.Graph, vim_model.VIM]:
  with tf.Graph().as_default() as graph, layers.undrawn_weights():
    model = vim_model.VIM(presets.stage2(name).model)
    model.build()
  return graph, model


class CoverageTest(tf.test.TestCase):
  def test_every_preset_is_counted(self):
    self.assertEqual({*_STAGE1_SIZES, *_OURS}, set(presets.STAGE1))
    self.assertEqual({*_STAGE2_SIZES, *_OURS}, set(presets.STAGE2))


class Stage1Test(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(*_STAGE1_SIZES)
  @tf.autograph.experimental.do_not_convert  # Converting takes long.
  def test_parameters_and_shapes(self, name):
    encoder, decoder, patch = _STAGE1_SIZES[name]
    num_codes = (256 // patch) ** 2
    graph, model = _stage1(name)
    with graph.as_default():
      self.assertEqual(_count(model.encoder), _stage1_side(encoder, patch, 3))
      self.assertEqual(_count(model.decoder), _stage1_side(decoder, patch, 6))
      self.assertEqual(_count(model.to_code), _dense(encoder[1], _CODE_DIM))
      self.assertEqual(_count(model.from_code), _dense(_CODE_DIM, decoder[1]))
      self.assertEqual(_count(model.quantizer), _CODES * _CODE_DIM)
      before = len(model.weights)
      images = tf.compat.v1.placeholder(tf.float32, [2, 256, 256, 3])
      codes = model.encode(images)
      decoded = model.decode(codes)
      self.assertLen(model.weights, before)  # All were made by build.
    self.assertEqual(codes.shape, [2, num_codes])
    self.assertEqual(codes.dtype, tf.int32)
    self.assertEqual(decoded.shape, [2, 256, 256, 3])

  @parameterized.parameters(
    ('vit_vqgan_bb', _BASE, 90.9e6), ('vit_vqgan_ss', _SMALL, 28.2e6)
  )
  def test_encoder_side_is_that_of_the_paper(self, name, sizes, published):
    # Base: 91M in Table 2. Small is 32M there, which no reading explains.
    self.assertEqual(round(_published_style(sizes) / 1e5), published / 1e5)
    _, model = _stage1(name)
    weights = [
      *model.encoder.weights,
      *model.to_code.weights,
      *model.quantizer.weights,
    ]
    count = sum(int(np.prod(w.shape)) for w in weights)
    matrices = sum(int(np.prod(w.shape)) for w in weights if w.shape.rank > 1)
    self.assertEqual(matrices, _published_style(sizes))
    # Biases and norms add less than half a percent.
    self.assertAllClose(count, published, rtol=5e-3)
    if name == 'vit_vqgan_bb':
      self.assertEqual(round(count / 1e6), 91)

  def test_large_decoder_is_that_of_the_paper(self):
    _, model = _stage1('vit_vqgan_sl')
    count = _count(model.decoder)
    self.assertAllClose(count, 599e6, rtol=0.01)


class Stage2Test(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(*_STAGE2_SIZES)
  @tf.autograph.experimental.do_not_convert
  def test_parameters_and_shapes(self, name):
    sizes, grid, classes = _STAGE2_SIZES[name]
    width = sizes[1]
    expected = (
      _stack(*sizes)
      + _CODES * width  # Embeddings.
      + (classes + 1) * width  # The last row is 'no class'.
      + 2 * grid * width  # A vector for each row and each column.
      + _dense(width, _CODES)
    )
    graph, model = _stage2(name)
    with graph.as_default():
      self.assertEqual(_count(model), expected)
      before = len(model.weights)
      codes = tf.compat.v1.placeholder(tf.int32, [2, grid**2])
      out = {}
      logits = model(codes, tf.zeros([2], tf.int32), out=out)
      self.assertLen(model.weights, before)
    self.assertEqual(logits.shape, [2, grid**2, _CODES])
    self.assertEqual(logits.dtype, tf.float32)
    self.assertEqual(out[f'block_{sizes[0] - 1}'].shape, [2, grid**2, width])
    self.assertNotIn(f'block_{sizes[0]}', out)

  @parameterized.parameters(
    ('vim_base', _VIM_BASE, 708e6), ('vim_large', _VIM_LARGE, 1850e6)
  )
  def test_count_is_that_of_plain_blocks(self, name, sizes, plain):
    # The paper's 650M and 1697M do not follow from its sizes: these do.
    blocks, width, hidden, inner = sizes
    self.assertEqual((hidden, inner), (4 * width, width))
    closed = (
      12 * blocks * width**2
      + 2 * _CODES * width  # Embeddings in and out, not tied.
      + 1024 * width  # A full table of positions.
      + _CLASSES * width
    )
    self.assertAllClose(closed, plain, rtol=2e-3)
    _, model = _stage2(name)
    self.assertAllClose(_count(model), closed, rtol=3e-3)


class OursTest(tf.test.TestCase, parameterized.TestCase):
  # The width of the quickstart's models: millions of parameters.
  @parameterized.parameters(('small', 64, 8_000_000), ('tiny', 16, 200_000))
  def test_both_stages_run(self, name, image_size, most_parameters):
    stage1 = vit_vqgan_model.ViTVQGAN(presets.stage1(name).model)
    stage2 = vim_model.VIM(presets.stage2(name).model)
    stage1.build()
    stage2.build()
    images = tf.random.stateless_uniform([2, image_size, image_size, 3], [1, 2])
    codes = stage1.encode(images)
    self.assertEqual(stage1.decode(codes).shape, images.shape)
    logits = stage2(codes, tf.constant([0, 9]))
    self.assertEqual(logits.shape, [*codes.shape, stage1.config.codebook_size])
    self.assertLess(_count(stage1) + _count(stage2), most_parameters)


if __name__ == '__main__':
  tf.test.main()
