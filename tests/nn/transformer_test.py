"""Tests of blocks and stacks: sizes, causality, caches and recomputation."""

import functools
import re

from absl.testing import parameterized
import numpy as np
import scipy.special
import tensorflow as tf

from tests import testing
from vim_tf.nn import transformer

_WIDTH = 16


def _inputs(length: int = 4) -> tf.Tensor:
  return tf.random.stateless_normal([3, length, _WIDTH], [1, 2])


def _stack(
  causal=False, recompute=False, grid_size=2, **sizes
) -> transformer.Transformer:
  layer = transformer.Transformer(
    testing.transformer_config(**sizes),
    causal=causal,
    recompute=recompute,
    grid_size=grid_size,
  )
  layer.build([None, None, _WIDTH])
  testing.randomize(layer)
  return layer


def _origin(tensor: tf.Tensor) -> tf.Operation:
  """The operation that computes what a function returns."""
  while tensor.op.type == 'Identity':
    (tensor,) = tensor.op.inputs
  return tensor.op


def _normalized(x):
  deviation = np.sqrt(x.var(-1, keepdims=True) + 1e-6)
  return (x - x.mean(-1, keepdims=True)) / deviation


def _swiglu(x):
  return x[..., :8] * scipy.special.expit(x[..., :8]) * x[..., 8:]


class MLPTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(
    ('gelu', lambda x: x * scipy.special.ndtr(x)),
    ('tanh', np.tanh),
    ('relu', lambda x: np.maximum(x, 0)),
    ('swiglu', _swiglu),
  )
  def test_equals_numpy_reference(self, activation, function):
    layer = transformer.MLP(8, activation)
    layer.build([None, None, _WIDTH])
    testing.randomize(layer)
    x = _inputs().numpy()
    hidden = function(x @ layer.hidden.kernel.numpy() + layer.hidden.bias)
    expected = hidden @ layer.out.kernel.numpy() + layer.out.bias
    self.assertAllClose(layer(x), expected, atol=1e-5)

  def test_conformance(self):
    testing.check_layer(
      self,
      lambda **kwargs: transformer.MLP(8, 'tanh', dropout=0.1, **kwargs),
      (_inputs(),),
    )


class TransformerTest(tf.test.TestCase, parameterized.TestCase):
  def test_block_conformance(self):
    testing.check_layer(
      self,
      lambda **kwargs: transformer.Block(
        testing.transformer_config(dropout=0.1, activation='relu'),
        causal=True,
        **kwargs,
      ),
      (_inputs(),),
    )

  @parameterized.parameters((False, False), (True, True))
  def test_conformance(self, causal, recompute):
    testing.check_layer(
      self,
      lambda **kwargs: transformer.Transformer(
        testing.transformer_config(num_blocks=1, dropout=0.2, head_width=4),
        causal=causal,
        recompute=recompute,
        **kwargs,
      ),
      (_inputs(), tf.constant([1, 2, 3], tf.uint32)),
    )

  def test_conformance_of_a_float32_stream(self):
    testing.check_layer(
      self,
      lambda **kwargs: transformer.Transformer(
        testing.transformer_config(), float32_stream=True, **kwargs
      ),
      (_inputs(),),
      bfloat16_atol=0.05,
    )

  def test_float32_stream(self):
    """What bfloat16 blocks are added to keeps every bit; without it, not."""
    x = 1.0 + 2.0**-20 * tf.reshape(tf.range(32.0), [1, 2, 16])
    for float32_stream in (True, False):
      layer = transformer.Transformer(
        testing.transformer_config(),
        float32_stream=float32_stream,
        dtype='mixed_bfloat16',
      )
      layer.build([None, 2, 16])
      for block in layer.blocks:
        self.assertEqual(block.mlp.hidden.compute_dtype, 'bfloat16')
        for part in (block.attention.out, block.mlp.out):
          part.kernel.assign(tf.zeros_like(part.kernel))
      out = {}
      layer(x, out=out)
      same = np.array_equal(tf.cast(out['block_1'], tf.float32), x)
      self.assertEqual(same, float32_stream)

  def test_blocks_are_pre_norm_with_residuals(self):
    layer = _stack(num_blocks=1)
    (block,) = layer.blocks
    x = _inputs().numpy()
    out = {}
    found = layer(x, out=out)
    # Norms were randomised, so their scales and offsets count as well.
    normalized = _normalized(x) * block.attention_norm.gamma
    x = x + block.attention(normalized + block.attention_norm.beta).numpy()
    normalized = _normalized(x) * block.mlp_norm.gamma
    x = x + block.mlp(normalized + block.mlp_norm.beta).numpy()
    self.assertAllClose(out['block_0'], x, atol=1e-5)
    expected = _normalized(x) * layer.norm.gamma + layer.norm.beta
    self.assertAllClose(found, expected, atol=1e-4)

  def test_modern_blocks_have_as_many_matrices_weights(self):
    paper, modern = (
      sum(
        np.prod(v.shape)
        for v in _stack(mlp_width=24, block=block).trainable_variables
        if v.shape.rank == 2
      )
      for block in ('paper', 'modern')
    )
    self.assertEqual(modern, paper)

  def test_conformance_of_modern_blocks(self):
    config = testing.transformer_config(block='modern', dropout=0.1)
    testing.check_layer(
      self,
      lambda **kwargs: transformer.Transformer(
        config, causal=True, recompute=True, grid_size=2, **kwargs
      ),
      (_inputs(), tf.constant([1, 2, 3], tf.uint32)),
      bfloat16_atol=0.2,
    )


class DropoutTest(tf.test.TestCase):
  def test_every_dropout_draws_from_a_stream_of_its_own(self):
    # Zero weights but for biases: what is left is the masks of the residuals.
    layer = _stack(dropout=0.5)
    for block in layer.blocks:
      block.attention.out.kernel.assign(tf.zeros([16, 16]))
      block.attention.out.bias.assign(tf.ones([16]))
      block.mlp.out.kernel.assign(tf.zeros([32, 16]))
      block.mlp.out.bias.assign(100.0 * tf.ones([16]))
    x = tf.zeros([1, 64, _WIDTH])
    out = {}
    layer(x, tf.constant([3], tf.uint32), out)
    first = out['block_0'].numpy()
    second = out['block_1'].numpy() - first
    masks = np.stack(
      [x.reshape(-1) for y in (first, second) for x in (y % 100, y // 100)]
    )
    correlations = np.corrcoef(masks > 0) - np.eye(4)
    self.assertAllClose(correlations, np.zeros([4, 4]), atol=0.12)


class RecomputeTest(tf.test.TestCase, parameterized.TestCase):
  def _gradients(self, layer, x, seeds):
    with tf.GradientTape(persistent=True) as tape:  # As training steps have it.
      tape.watch(x)
      y = layer(x, seeds)
      loss = tf.reduce_sum(y * tf.reshape(tf.range(16.0), [1, 1, 16]))
    return y, tape.gradient(loss, [x, *layer.trainable_variables])

  @parameterized.parameters(
    ('eager', False, 2),
    ('eager', True, 2),
    ('function', False, 1),
    ('function', True, 2),
    ('xla', True, 2),
  )
  def test_changes_no_output_and_no_gradient(
    self, mode, with_seeds, num_blocks
  ):
    x = _inputs()
    seeds = tf.constant([1, 2, 3], tf.uint32) if with_seeds else None
    found = []
    for recompute in (False, True):
      layer = _stack(
        num_blocks=num_blocks, causal=True, recompute=recompute, dropout=0.2
      )

      def gradients(x, layer=layer):
        return self._gradients(layer, x, seeds)

      if mode != 'eager':
        compiled = mode == 'xla' and recompute
        gradients = tf.function(
          gradients, jit_compile=compiled, autograph=False
        )
      found.append(gradients(x))
    (y, expected), (other, recomputed) = found
    self.assertAllClose(other, y, atol=1e-5)
    self.assertLen(recomputed, len(expected))
    for one, two in zip(recomputed, expected):
      self.assertIsNotNone(two)
      self.assertAllClose(one, two, atol=1e-4, rtol=1e-4)

  def test_within_a_loop_of_micro_batches(self):
    found = []
    for recompute in (False, True):
      layer = _stack(num_blocks=1, recompute=recompute, dropout=0.2)

      @tf.function
      def gradients(x, seeds, layer=layer):
        sums = [tf.zeros_like(v) for v in layer.trainable_variables]
        for i in tf.range(3):
          part, seed = x[i : i + 1], seeds[i : i + 1]
          part = tf.ensure_shape(part, [1, 4, 16])
          _, (_, *new) = self._gradients(layer, part, seed)
          sums = [a + b for a, b in zip(sums, new)]
        return sums

      found.append(gradients(_inputs(), tf.constant([1, 2, 3], tf.uint32)))
    for one, two in zip(*found):
      self.assertAllClose(one, two, atol=1e-4, rtol=1e-4)

  def test_weights_have_their_gradients_before_the_next_block(self):
    """So that no compiler keeps what was recomputed to the end."""
    layer = _stack(num_blocks=2, recompute=True)
    run = tf.function(
      lambda x: self._gradients(layer, x, None)[1], autograph=False
    )
    graph = run.get_concrete_function(_inputs())
    origins = {
      variable.ref(): _origin(gradient)
      for variable, gradient in zip(
        layer.trainable_variables, graph.graph.outputs[1:], strict=True
      )
    }
    first, last = (
      [origins[v.ref()] for v in block.trainable_variables]
      for block in layer.blocks
    )
    before, left = set(), first[:1]
    while left:
      op = left.pop()
      if op not in before:
        before.add(op)
        left += [tensor.op for tensor in op.inputs]
    self.assertContainsSubset(last, before)

  @parameterized.parameters(False, True)
  def test_compiled_blocks_round_alike(self, float32_stream):
    """A loop over bfloat16 blocks has the types that a row of them has."""
    found = []
    for recompute in (False, True):
      layer = transformer.Transformer(
        testing.transformer_config(num_blocks=2),
        recompute=recompute,
        float32_stream=float32_stream,
        dtype='mixed_bfloat16',
      )
      layer.build([None, None, _WIDTH])
      testing.randomize(layer)
      run = tf.function(
        lambda x, layer=layer: self._gradients_bfloat16(layer, x),
        jit_compile=True,
        autograph=False,
      )
      found.append(run(_inputs()))
    for one, other in zip(*found, strict=True):
      self.assertEqual(one.dtype, tf.float32)
      self.assertLess(float(tf.norm(one - other)), 0.05 * float(tf.norm(other)))

  def test_a_compiled_program_has_one_block_and_no_tables(self):
    length, programs = 64, []
    for num_blocks in (2, 4):
      layer = _stack(
        num_blocks=num_blocks, causal=True, recompute=True, dropout=0.2
      )
      run = tf.function(
        functools.partial(self._gradients, layer),
        jit_compile=True,
        autograph=False,
      )
      programs.append(
        run.experimental_get_compiler_ir(
          tf.TensorSpec([3, length, _WIDTH]), tf.TensorSpec([3], tf.uint32)
        )(stage='hlo')
      )
    one, other = (program.count(' dot(') for program in programs)
    self.assertEqual(one, other)
    self.assertGreater(one, 0)
    sizes = [
      np.prod([int(n) for n in shape.split(',') if n])
      for shape in re.findall(r'\[([\d,]*)\]\S* constant\(', programs[0])
    ]
    self.assertLess(max(sizes), length**2)

  def test_a_loop_takes_every_weight_or_refuses(self):
    layer = _stack(recompute=True)
    block = layer.blocks[0]
    block.more = {'weight': block.add_weight('more', [2])}
    run = tf.function(layer, jit_compile=True, autograph=False)
    with self.assertRaisesRegex(ValueError, 'more:0 is no attribute'):
      run(_inputs())

  def _gradients_bfloat16(self, layer, x):
    with tf.GradientTape(persistent=True) as tape:
      loss = tf.reduce_mean(tf.square(tf.cast(layer(x), tf.float32)))
    return tape.gradient(loss, layer.trainable_variables)


if __name__ == '__main__':
  tf.test.main()
