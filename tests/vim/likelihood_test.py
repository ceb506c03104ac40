"""Tests of the likelihood in parts against the one of all logits."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from vim_tf.nn import layers
from vim_tf.vim import likelihood
from vim_tf.vim import model as model_lib

_BATCH, _LENGTH, _WIDTH, _CODES = 3, 4, 8, 11


def _head(dtype=None) -> layers.HeldDense:
  return layers.dense(_CODES, _WIDTH, dtype, 'head', stddev=1.0, bias=0.1)


def _inputs(dtype=tf.float32):
  rng = np.random.default_rng(0)
  x = rng.normal(size=[_BATCH, _LENGTH, _WIDTH])
  codes = rng.integers(0, _CODES, [_BATCH, _LENGTH])
  return tf.constant(x, dtype), tf.constant(codes, tf.int32)


def _in_parts(x, head, codes, most):
  with tf.GradientTape() as tape:
    tape.watch(x)
    nats, right = likelihood.of_codes(x, head, codes, most)
    loss = 0.3 * nats
  return nats, right, *tape.gradient(loss, [x, head.kernel, head.bias])


def _at_once(x, head, codes):
  with tf.GradientTape() as tape:
    tape.watch(x)
    logits = tf.cast(head(x), tf.float32)
    nats = tf.reduce_sum(model_lib.negative_log_likelihood(logits, codes))
    loss = 0.3 * nats
  right = np.sum(np.argmax(logits, -1) == codes.numpy())
  return nats, right, *tape.gradient(loss, [x, head.kernel, head.bias])


class LikelihoodTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(
    (100, False), (5, False), (5, True), (1, False), (12, True)
  )
  def test_sums_and_gradients_are_those_of_all_logits(self, most, jit_compile):
    head, (x, codes) = _head(), _inputs()
    best = tf.argmax(head(x), -1, tf.int32)
    codes = tf.concat([best[:1], codes[1:]], axis=0)  # Some are right.
    run = tf.function(
      lambda x, codes: _in_parts(x, head, codes, most),
      jit_compile=jit_compile,
      autograph=False,
    )
    expected = _at_once(x, head, codes)
    self.assertBetween(expected[1], _LENGTH, _BATCH * _LENGTH - 1)
    for one, other in zip(run(x, codes), expected, strict=True):
      self.assertAllClose(one, other, atol=1e-5, rtol=1e-5)

  @parameterized.parameters(100, 5)
  def test_in_bfloat16(self, most):
    head = _head('mixed_bfloat16')
    nats, _, *found = _in_parts(*_arguments(head, tf.bfloat16), most)
    expected_nats, _, *expected = _at_once(*_arguments(head, tf.bfloat16))
    self.assertAllClose(nats, expected_nats, rtol=1e-5)
    for one, other in zip(found, expected, strict=True):
      self.assertEqual(one.dtype, other.dtype)
      one, other = (tf.cast(x, tf.float32) for x in (one, other))
      self.assertLess(float(tf.norm(one - other) / tf.norm(other)), 0.01)


def _arguments(head, dtype):
  x, codes = _inputs(dtype)
  return x, head, codes


if __name__ == '__main__':
  tf.test.main()
