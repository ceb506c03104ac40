"""Tests of fused elementwise functions against their plain form."""

import math

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from vim_tf.nn import fusion, randomness, transformer


def _erf(x):
  return np.vectorize(math.erf)(x)


def _gelu(x):
  return 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)))


def _gelu_slope(x):
  density = np.exp(-0.5 * x**2) / math.sqrt(2.0 * math.pi)
  return 0.5 * (1.0 + _erf(x / math.sqrt(2.0))) + x * density


class FusionTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self._x = rng.normal(size=[4, 33]).astype(np.float32)
    self._dy = rng.normal(size=[4, 33]).astype(np.float32)

  def _both(self, function, x, *others):
    with tf.GradientTape() as tape:
      tape.watch(x)
      y = function(x, *others)
    return y, tape.gradient(y, x, tf.cast(self._dy, x.dtype))

  def test_gelu_and_its_gradient_are_those_of_the_formula(self):
    function = fusion.fused(transformer.ACTIVATIONS['gelu'])
    y, dx = self._both(function, tf.constant(self._x))
    self.assertAllClose(y, _gelu(self._x), atol=1e-6)
    self.assertAllClose(dx, self._dy * _gelu_slope(self._x), atol=1e-6)

  def test_bfloat16_is_rounded_once(self):
    x = tf.cast(self._x, tf.bfloat16)
    function = fusion.fused(transformer.ACTIVATIONS['gelu'])
    y, dx = self._both(function, x)
    exact = tf.cast(_gelu(np.float64(tf.cast(x, tf.float32))), tf.bfloat16)
    self.assertEqual(y.dtype, tf.bfloat16)
    self.assertEqual(dx.dtype, tf.bfloat16)
    # float32 and float64 may fall on two sides of the middle.
    self.assertGreater(np.mean(y.numpy() == exact.numpy()), 0.98)

  def test_other_arguments_have_no_gradient(self):
    function = fusion.fused(lambda x, scale: x * scale)
    scale = tf.constant([2.0])
    with tf.GradientTape() as tape:
      tape.watch(scale)
      y = function(tf.constant(self._x), scale)
    self.assertAllClose(y, 2.0 * self._x)
    self.assertIsNone(tape.gradient(y, scale))

  @parameterized.parameters(0.0, 0.3)
  def test_mlp_in_training_equals_itself_step_by_step(self, dropout):
    mlp = transformer.MLP(16, 'gelu', dropout=dropout)
    x = tf.constant(self._x)
    mlp.build(x.shape)
    seeds = tf.constant([1, 2, 3, 4], tf.uint32) if dropout else None

    def by_hand():
      hidden = transformer.ACTIVATIONS['gelu'](mlp.hidden(x))
      if dropout:
        stream = tf.constant(5, tf.uint32)
        hidden = randomness.dropped(hidden, dropout, seeds, stream)
      return mlp.out(hidden)

    def run(function):
      with tf.GradientTape() as tape:
        tape.watch(x)
        y = function()
      return y, tape.gradient(y, [x, *mlp.trainable_variables])

    fused, fused_gradients = run(
      tf.function(lambda: mlp(x, seeds=seeds, stream=5, training=True))
    )
    plain, plain_gradients = run(by_hand)
    self.assertAllClose(fused, plain, atol=1e-6)
    for one, other in zip(fused_gradients, plain_gradients, strict=True):
      self.assertAllClose(one, other, atol=1e-5)

  def test_without_training_nothing_needs_xla(self):
    mlp = transformer.MLP(16, 'gelu', dropout=0.3)
    mlp.build([4, 33])

    def compiled_calls(training):
      graph = tf.function(
        lambda: mlp(tf.constant(self._x), training=training)
      ).get_concrete_function()
      functions = graph.graph.as_graph_def().library.function
      return sum('_XlaMustCompile' in f.attr for f in functions)

    self.assertEqual(compiled_calls(None), 0)
    self.assertGreater(compiled_calls(True), 0)

  @parameterized.parameters('jit_compile', 'tpu', 'alone')
  def test_a_program_of_xla_holds_no_other(self, where):
    function = fusion.fused(transformer.ACTIVATIONS['gelu'])

    def step(x):
      with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
      return tape.gradient(y, x, tf.constant(self._dy))

    spec = tf.TensorSpec(self._x.shape)
    if where == 'tpu':  # What TPUStrategy makes of a replica's function.
      with tf.Graph().as_default() as graph:
        tf.compat.v1.tpu.rewrite(step, [tf.zeros(spec.shape)])
    else:
      compiled = tf.function(step, jit_compile=where == 'jit_compile')
      graph = compiled.get_concrete_function(spec).graph
    library = graph.as_graph_def().library.function
    nested = sum('_XlaMustCompile' in f.attr for f in library)
    self.assertEqual(nested, 2 if where == 'alone' else 0)


if __name__ == '__main__':
  tf.test.main()
