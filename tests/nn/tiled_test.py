"""Tests of attention in tiles against the table of all pairs."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from vim_tf.nn import tiled

_SHAPE = [2, 3, 10, 4]  # Batch, heads, length, head width.


def _inputs(dtype=tf.float32):
  """Queries, keys, values, and a gradient of the result."""
  rng = np.random.default_rng(0)
  return [tf.constant(2.0 * rng.normal(size=_SHAPE), dtype) for _ in range(4)]


def _plain(queries, keys, values, causal):
  scores = tf.cast(tf.matmul(queries, keys, transpose_b=True), tf.float32)
  if causal:
    seen = np.tril(np.ones([_SHAPE[2]] * 2, bool))
    scores = tf.where(seen, scores, -np.inf)
  return tf.matmul(tf.cast(tf.nn.softmax(scores), values.dtype), values)


def _both(function, queries, keys, values, dy):
  with tf.GradientTape() as tape:
    sources = [queries, keys, values]
    tape.watch(sources)
    y = function(*sources)
  return [y, *tape.gradient(y, sources, dy)]


class TiledTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.product(causal=[False, True], tile=[3, 5, 16])
  def test_values_and_gradients_are_those_of_the_whole_table(
    self, causal, tile
  ):
    inputs = _inputs()
    found = _both(lambda *x: tiled.attend(*x, causal, tile), *inputs)
    expected = _both(lambda *x: _plain(*x, causal), *inputs)
    for one, other in zip(found, expected, strict=True):
      self.assertAllClose(one, other, atol=1e-5, rtol=1e-5)

  def test_large_scores_overflow_nothing(self):
    queries, keys, values, dy = _inputs()
    inputs = 100.0 * queries, keys, values, dy
    found = _both(lambda *x: tiled.attend(*x, True, 4), *inputs)
    expected = _both(lambda *x: _plain(*x, True), *inputs)
    for one, other in zip(found, expected, strict=True):
      self.assertAllClose(one, other, atol=1e-3, rtol=1e-3)

  @parameterized.parameters(False, True)
  def test_compiled_in_bfloat16(self, causal):
    run = tf.function(
      lambda *x: _both(lambda *x: tiled.attend(*x, causal, 4), *x),
      jit_compile=True,
      autograph=False,
    )
    found = run(*_inputs(tf.bfloat16))
    expected = _both(lambda *x: _plain(*x, causal), *_inputs())
    for one, other in zip(found, expected, strict=True):
      self.assertEqual(one.dtype, tf.bfloat16)
      error = tf.norm(tf.cast(one, tf.float32) - other) / tf.norm(other)
      self.assertLess(float(error), 0.02)

  @parameterized.parameters((tf.float32, True), (tf.bfloat16, False))
  def test_precision_where_float32_products_are_of_float32(self, dtype, high):
    """That of bfloat16 is the least, or libtpu compiles no attention."""
    switch = tf.config.experimental.enable_tensor_float_32_execution
    self.addCleanup(switch, True)
    switch(False)
    run = tf.function(
      lambda *x: _both(lambda *x: tiled.attend(*x, True, 5), *x),
      jit_compile=True,
      autograph=False,
    )
    specs = [tf.TensorSpec(_SHAPE, dtype)] * 4
    program = run.experimental_get_compiler_ir(*specs)(stage='hlo')
    products = [line for line in program.splitlines() if ' dot(' in line]
    self.assertNotEmpty(products)
    for line in products:
      self.assertEqual('precision={highest,highest}' in line, high, line)


if __name__ == '__main__':
  tf.test.main()
