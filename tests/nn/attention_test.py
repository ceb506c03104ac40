"""Tests of attention against NumPy, and of its cache against the full pass."""

import functools

from absl.testing import parameterized
import numpy as np
import scipy.special
import tensorflow as tf

from tests import testing
from vim_tf.nn import attention

_BATCH, _LENGTH, _WIDTH, _HEADS, _HEAD_WIDTH = 3, 5, 12, 2, 4
_GRID = 3  # More than the elements fill.


def _inputs() -> tf.Tensor:
  rng = np.random.default_rng(1)
  return tf.constant(rng.normal(size=[_BATCH, _LENGTH, _WIDTH]), tf.float32)


def _layer(**kwargs) -> attention.MultiHeadAttention:
  layer = attention.MultiHeadAttention(_HEADS, _HEAD_WIDTH, **kwargs)
  layer.build([None, None, _WIDTH])
  testing.randomize(layer)
  return layer


def _decode(layer, x, cache, positions):
  """Outputs `[batch, window, width]` of inputs of the same shape."""
  rows = tf.reshape(x, [-1, _WIDTH])
  y, cache = layer.decode(rows, cache, layer.places(cache, positions))
  return tf.reshape(y, tf.shape(x)), cache


def _reference(layer, x) -> np.ndarray:
  """Attention position by position, in float64."""
  x = np.asarray(x, np.float64)
  qkv = x @ layer.qkv.kernel.numpy()
  if layer.qkv_bias:
    qkv = qkv + layer.qkv.bias.numpy()
  inner = _HEADS * _HEAD_WIDTH
  out = np.zeros([_BATCH, _LENGTH, inner])
  for b in range(_BATCH):
    for h in range(_HEADS):
      columns = np.arange(h * _HEAD_WIDTH, (h + 1) * _HEAD_WIDTH)
      q, k, v = (qkv[b][:, columns + part * inner] for part in range(3))
      if layer.modern:
        q = _turned(q, layer.query_norm.gamma.numpy(), layer.causal)
        k = _turned(k, layer.key_norm.gamma.numpy(), layer.causal)
      for i in range(_LENGTH):
        seen = i + 1 if layer.causal else _LENGTH
        scores = k[:seen] @ q[i] / np.sqrt(_HEAD_WIDTH)
        out[b, i, columns] = scipy.special.softmax(scores) @ v[:seen]
  return out @ layer.out.kernel.numpy() + layer.out.bias.numpy()


def _turned(x, gamma, start) -> np.ndarray:
  """Normalised and turned element by element, as complex numbers."""
  x = gamma * x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True))
  pairs = x[:, :2] + 1j * x[:, 2:]  # One turns by row, one by column.
  for i in range(_LENGTH):
    row, column = divmod(i - start, _GRID) if i >= start else (-1, -1)
    pairs[i] *= np.exp(1j * np.array([row, column]))
  return np.concatenate([pairs.real, pairs.imag], axis=-1)


class MultiHeadAttentionTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.product(
    causal=[False, True], qkv_bias=[False, True], modern=[False, True]
  )
  def test_equals_numpy_reference(self, causal, qkv_bias, modern):
    layer = _layer(
      causal=causal, qkv_bias=qkv_bias, modern=modern, grid_size=_GRID
    )
    x = _inputs()
    self.assertAllClose(layer(x), _reference(layer, x), atol=1e-5)

  @parameterized.parameters(False, True)
  def test_conformance(self, causal):
    testing.check_layer(
      self,
      lambda **kwargs: attention.MultiHeadAttention(
        _HEADS, _HEAD_WIDTH, causal=causal, **kwargs
      ),
      (_inputs(),),
    )

  @parameterized.product(
    how=((False, False), (True, False), (False, True)),
    dtype=('float32', 'mixed_bfloat16'),
  )
  def test_decode_equals_full_pass(self, how, dtype):
    """In windows of two, of which each sequence has its own place."""
    jit_compile, in_place = how
    layer = _layer(causal=True, dtype=dtype)
    x = _inputs()
    step = tf.function(
      functools.partial(_decode, layer),
      jit_compile=jit_compile,
      autograph=False,
    )
    # A longer cache than needed: what is not written must not be seen.
    cache = layer.new_cache(_BATCH, in_place).grown(_LENGTH + 2)
    full = tf.cast(layer(x), tf.float32)
    atol = 1e-5 if dtype == 'float32' else 0.02
    for i in range(_LENGTH + _BATCH - 2):
      firsts = np.clip(i - np.arange(_BATCH), 0, _LENGTH - 2)
      positions = tf.constant(firsts[:, None] + [0, 1], tf.int32)
      inputs = tf.gather(x, positions, batch_dims=1)
      # A wrong input leaves no trace once the right one has come.
      wrong = tf.stack([inputs[:, 0], -inputs[:, 1]], axis=1)
      y, cache = step(wrong, cache, positions)
      expected = tf.gather(full, firsts, batch_dims=1)
      self.assertAllClose(tf.cast(y[:, 0], tf.float32), expected, atol=atol)
    y, cache = step(inputs, cache, positions)
    self.assertAllClose(tf.cast(y, tf.float32), full[:, -2:], atol=atol)
    self.assertAllEqual(cache.keys[:, :, _LENGTH:], tf.zeros([3, 2, 2, 4]))

  def test_caches_that_are_written_in_place_share_no_memory(self):
    """Neither with each other nor with those of the call before."""
    layers = [_layer(causal=True) for _ in range(2)]

    @tf.function(autograph=False)
    def caches_after_one_position(x, position):
      caches = [layer.new_cache(_BATCH, True).grown(5) for layer in layers]
      return [
        _decode(layer, x, cache, position)[1]
        for layer, cache in zip(layers, caches)
      ]

    for position in (3, 1):
      one, other = caches_after_one_position(
        _inputs()[:, :1], tf.fill([_BATCH, 1], position)
      )
      for cache in (one.keys, one.values, other.keys, other.values):
        written = np.any(cache.numpy() != 0.0, axis=(0, 1, 3))
        self.assertAllEqual(np.flatnonzero(written), [position])
      self.assertNotAllClose(one.keys, one.values)


if __name__ == '__main__':
  tf.test.main()
