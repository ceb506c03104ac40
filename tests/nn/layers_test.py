"""Tests of dense layers: how they start, and weights held over a loop."""

import contextlib

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import testing
from vim_tf.nn import layers

_WIDTH = 200
_HELD_WIDTH = 256  # TensorFlow makes constants of small tensors by itself.
_STEPS = 3


def _dense(name='dense'):
  return layers.dense(_WIDTH, _WIDTH, 'float32', name, stddev=0.3, bias=0.5)


class DenseTest(tf.test.TestCase):
  def test_new_weights_are_drawn(self):
    layer = _dense()
    # Keras keeps draws below two standard deviations, of 0.88 times the rest.
    self.assertAllClose(np.std(layer.kernel), 0.88 * 0.3, rtol=0.02)
    self.assertAllClose(np.mean(layer.kernel), 0.0, atol=0.01)
    self.assertAllEqual(layer.bias, np.full([_WIDTH], 0.5))

  def test_undrawn_weights(self):
    with layers.undrawn_weights():
      layer = _dense()
    self.assertAllEqual(layer.kernel, np.zeros([_WIDTH, _WIDTH]))
    # They compute like others once they are set, and others are drawn again.
    layer.kernel.assign(tf.eye(_WIDTH))
    self.assertAllClose(layer(tf.ones([1, _WIDTH])), np.full([1, _WIDTH], 1.5))
    self.assertNotAllEqual(_dense().kernel, np.zeros([_WIDTH, _WIDTH]))


class RMSNormTest(tf.test.TestCase):
  def test_equals_numpy_reference(self):
    layer, x = layers.RMSNorm(), np.random.default_rng(0).normal(size=[2, 3, 4])
    layer.build([None, 4])
    layer.gamma.assign([1, 2, 3, 4])
    root = np.sqrt(np.mean(x**2, axis=-1, keepdims=True))
    self.assertAllClose(layer(x), x / root * [1, 2, 3, 4], rtol=1e-5)


class _Stack(tf.keras.layers.Layer):
  """Two layers, of which one has no bias."""

  def build(self, input_shape):
    self.parts = [
      layers.HeldDense(_HELD_WIDTH, use_bias=bias, dtype=self.dtype_policy)
      for bias in (True, False)
    ]
    for part in self.parts:
      part.build(input_shape)

  def call(self, x):
    for part in self.parts:
      x = part(x)
    return x


def _stack(dtype='float32') -> _Stack:
  stack = _Stack(dtype=dtype)
  stack.build([None, _HELD_WIDTH])
  testing.randomize(stack, scale=_HELD_WIDTH**-0.5)
  return stack


def _looped(stack, frozen):
  """A function that applies the layers again and again, held or frozen."""

  @tf.function(
    input_signature=[tf.TensorSpec([None, _HELD_WIDTH])], autograph=False
  )
  def run(x):
    x = tf.cast(x, stack.compute_dtype)
    with layers.held_weights(stack, frozen):
      return tf.while_loop(
        lambda i, x: i < _STEPS, lambda i, x: (i + 1, stack(x)), (0, x)
      )[1]

  return run


def _inputs(rows=3):
  rng = np.random.default_rng(0)
  return rng.normal(size=[rows, _HELD_WIDTH]).astype(np.float32)


class HeldWeightsTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.product(frozen=(False, True), rows=(1, 2, 9))
  def test_computes_what_numpy_does(self, frozen, rows):
    stack = _stack()
    x = _inputs(rows)
    found = _looped(stack, frozen)(x)
    for _ in range(_STEPS):
      for part in stack.parts:
        x = x @ part.kernel.numpy()
        if part.use_bias:
          x += part.bias.numpy()
    self.assertAllClose(found, x, rtol=1e-4, atol=1e-4)

  @parameterized.parameters(False, True)
  def test_computes_in_bfloat16_what_the_layers_do(self, frozen):
    stack = _stack('mixed_bfloat16')
    expected = tf.cast(_inputs(), tf.bfloat16)
    for _ in range(_STEPS):
      expected = stack(expected)
    found = _looped(stack, frozen)(_inputs())
    self.assertEqual(found.dtype, tf.bfloat16)
    self.assertAllClose(found, expected, rtol=0.03, atol=0.03)

  @parameterized.parameters(False, True)
  def test_frozen_weights_stay(self, frozen):
    stack = _stack()
    run = _looped(stack, frozen)
    before = run(_inputs())
    for variable in stack.trainable_variables:
      variable.assign(0.5 * variable)
    if frozen:
      self.assertAllEqual(run(_inputs()), before)
    else:
      self.assertNotAllClose(run(_inputs()), before)

  @parameterized.product(
    frozen=(False, True), dtype=('float32', 'mixed_bfloat16')
  )
  def test_weights_are_read_before_the_loop(self, frozen, dtype):
    """What the loop itself makes of the variables does not show in it."""
    stack = _stack(dtype)
    expected = _looped(stack, frozen)(_inputs())

    def halve_after(x):
      x = stack(x)
      with tf.control_dependencies([x]):
        for variable in stack.trainable_variables:
          variable.assign(0.5 * variable)
      return x

    @tf.function(autograph=False)
    def run(x, held):
      x = tf.cast(x, stack.compute_dtype)
      with (
        layers.held_weights(stack, frozen) if held else contextlib.nullcontext()
      ):
        return tf.while_loop(
          lambda i, x: i < _STEPS,
          lambda i, x: (i + 1, halve_after(x)),
          (0, x),
        )[1]

    weights = stack.get_weights()
    self.assertAllClose(run(_inputs(), True), expected)
    self.assertNotAllEqual(stack.get_weights()[0], weights[0])
    stack.set_weights(weights)
    self.assertNotAllClose(run(_inputs(), False), expected)

  def test_size(self):
    weights = 2 * _HELD_WIDTH**2
    self.assertEqual(layers.dense_bytes(_stack()), 4 * weights)
    self.assertEqual(layers.dense_bytes(_stack('mixed_bfloat16')), 2 * weights)


if __name__ == '__main__':
  tf.test.main()
