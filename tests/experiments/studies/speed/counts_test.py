"""Formulas of FLOPs and bytes, against the operations of traced graphs."""

from absl.testing import parameterized
import tensorflow as tf

from experiments.studies.speed import counts, rows
from tests import testing
from vim_tf import config as config_lib
from vim_tf.config import AdversarialConfig, TransformerConfig
from vim_tf.jobs import replica_functions, train_tokenizer
from vim_tf.nn import transformer
from vim_tf.vim import model as vim_model
from vim_tf.vit_vqgan import lpips
from vim_tf.vit_vqgan import model as vit_vqgan_model
from vim_tf.vit_vqgan import step as step_lib

_BATCH = 2
_TINY = rows.tiny()


def graph_flops(function, *inputs: tf.Tensor) -> int:
  """FLOPs of all products and convolutions of a traced function.

  They are counted from the shapes of the operations' own tensors. What nothing
  depends on is left out, as TensorFlow leaves it out.
  """
  traced = tf.function(function, autograph=False).get_concrete_function(*inputs)
  total = 0
  for op in _needed(traced.graph):
    if op.type == 'MatMul':
      rows = op.inputs[0].shape[0 if op.get_attr('transpose_a') else 1]
      total += 2 * op.outputs[0].shape.num_elements() * rows
    elif op.type == 'BatchMatMulV2':
      depth = op.inputs[0].shape[-2 if op.get_attr('adj_x') else -1]
      total += 2 * op.outputs[0].shape.num_elements() * depth
    elif op.type == 'Conv2D':
      total += _convolution(op.inputs[1].shape, op.outputs[0].shape)
    elif op.type == 'Conv2DBackpropInput':
      total += _convolution(op.inputs[1].shape, op.inputs[2].shape)
    elif op.type == 'Conv2DBackpropFilter':
      total += _convolution(op.outputs[0].shape, op.inputs[2].shape)
  return total


def _needed(graph) -> list[tf.Operation]:
  """The operations that outputs and side effects depend on."""
  found = {}
  waiting = [x.op for x in graph.outputs] + list(graph.control_outputs)
  while waiting:
    op = waiting.pop()
    if op.name not in found:
      found[op.name] = op
      waiting += [x.op for x in op.inputs] + list(op.control_inputs)
  return list(found.values())


def _convolution(kernel: tf.TensorShape, output: tf.TensorShape) -> int:
  return 2 * output.num_elements() * kernel[:3].num_elements()


def _images(size: int) -> tf.Tensor:
  return tf.zeros([_BATCH, size, size, 3])


class ForwardTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.parameters(False, True)
  def test_blocks(self, causal):
    config = testing.transformer_config(head_width=5)
    layer = transformer.Transformer(config, causal=causal)
    layer.build([None, None, config.width])
    length = 7
    found = graph_flops(layer, tf.zeros([_BATCH, length, config.width]))
    expected = _BATCH * counts.blocks(config, length, causal=False)
    self.assertEqual(found, expected)
    # Of the pairs of positions, those that causal attention need not compute.
    unseen = length**2 - length * (length + 1) // 2
    inner = config.num_heads * config.attention_head_width
    self.assertEqual(
      counts.blocks(config, length, causal=False)
      - counts.blocks(config, length, causal=True),
      config.num_blocks * 4 * unseen * inner,
    )

  @parameterized.parameters(
    {}, {'logit_laplace': False}, {'output_mlp': False, 'codebook_size': 40}
  )
  def test_tokenizer(self, **changes):
    wide = testing.transformer_config(width=24, num_blocks=3)
    config = testing.vit_vqgan_config(decoder=wide, image_size=12, **changes)
    model = vit_vqgan_model.ViTVQGAN(config)
    model.build()
    images = _images(config.image_size)
    codes = tf.zeros([_BATCH, config.num_codes], tf.int32)
    self.assertEqual(
      graph_flops(model.encode, images), _BATCH * counts.encode(config)
    )
    self.assertEqual(
      graph_flops(model.features, images), _BATCH * counts.features(config)
    )
    self.assertEqual(
      graph_flops(model.decode, codes), _BATCH * counts.decode(config)
    )

  def test_vim(self):
    config = testing.vim_config(grid_size=4)
    model = vim_model.VIM(config)
    model.build()
    codes = tf.zeros([_BATCH, config.num_codes], tf.int32)
    found = graph_flops(model, codes, tf.zeros([_BATCH], tf.int32))
    saved = counts.blocks(config.transformer, config.num_codes, causal=False)
    saved -= counts.blocks(config.transformer, config.num_codes, causal=True)
    self.assertEqual(found, _BATCH * (counts.vim(config) + saved))

  @parameterized.parameters((16, 1 / 32), (24, 1 / 64), (64, 1 / 16))
  def test_discriminator(self, size, multiplier):
    config = AdversarialConfig(channel_multiplier=multiplier)
    model = step_lib.make_discriminator(config, size, 'float32')
    found = graph_flops(model, _images(size))
    self.assertEqual(found, _BATCH * counts.discriminator(config, size))

  def test_other_discriminators_are_refused(self):
    config = AdversarialConfig(discriminator='patchgan')
    with self.assertRaisesRegex(config_lib.ConfigError, 'patchgan'):
      counts.discriminator(config, 64)

  @parameterized.parameters(16, 40)
  def test_lpips(self, size):
    network = lpips.LPIPS()
    found = graph_flops(network.features, _images(size))
    self.assertEqual(found, _BATCH * counts.lpips(size))


class StepTest(parameterized.TestCase, tf.test.TestCase):
  """Whole training steps hold what the formulas say, and hardly more."""

  @parameterized.parameters(
    'perceptual', 'adversarial', 'perceptual+adversarial+r1'
  )
  def test_stage1(self, kind):
    settings = rows.Settings(image_size=32, kind=kind)
    config = rows.stage1_config(_TINY.stage1, settings)
    function = replica_functions.stage1_steps(
      config, _BATCH, (kind,), train_tokenizer.load_perceptual(config)
    )[kind]
    found = _step_flops(function)
    expected = _BATCH * counts.stage1_step(config, kind)
    # Of pixels no gradient is needed.
    self.assertAllClose(found / expected, 1.0, atol=0.002)

  def test_stage2(self):
    config = _TINY.stage2
    found = _step_flops(replica_functions.stage2_step(config, _BATCH))
    stack, codes = config.model.transformer, config.model.num_codes
    unseen = counts.blocks(stack, codes, causal=False)
    unseen -= counts.blocks(stack, codes, causal=True)
    expected = counts.stage2_step(config.model) + 3 * unseen
    self.assertEqual(found, _BATCH * expected)


def _step_flops(function: replica_functions.ReplicaFunction) -> int:
  inputs = tf.nest.map_structure(rows.example, function.specs)
  return graph_flops(function.run, *inputs)


class SamplingTest(tf.test.TestCase):
  def test_reads_the_weights_once_a_position(self):
    """One block of width 4 with 1 head, an MLP of 8, 9 codes out of 11."""
    config = config_lib.VIMConfig(
      TransformerConfig(1, 1, 4, 8), grid_size=3, codebook_size=11
    )
    matrices = 4 * 12 + 4 * 4 + 4 * 8 + 8 * 4 + 4 * 11
    cached = sum(2 * 4 * (position + 1) for position in range(9))
    for count in (1, 6):
      work = counts.sampling(config, count, 'float32')
      self.assertEqual(work.bytes, 4 * (9 * matrices + count * cached))
      self.assertEqual(work.flops, count * (9 * 2 * matrices + 2 * cached))
      half = counts.sampling(config, count, 'bfloat16')
      self.assertEqual(half.bytes, work.bytes / 2)

  def test_limit(self):
    rates = {'float32': 10.0, 'bfloat16': 40.0, 'memory': 5.0}
    self.assertEqual(counts.Work(200.0).limit(rates), ('float32', 20.0))
    self.assertEqual(
      counts.Work(200.0, 'bfloat16', 50.0).limit(rates), ('memory', 10.0)
    )


if __name__ == '__main__':
  tf.test.main()
