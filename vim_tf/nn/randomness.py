"""Random numbers that belong to an example, not to a batch or a replica.

`tf.random.stateless_*` takes one seed for a whole tensor, so what an example
draws would depend on its place in the batch. Here every example carries its
own 32-bit seed, and its numbers are a hash of (seed, stream, position): the
same whatever shares its batch, on any number of replicas, compiled or not,
because integer arithmetic is exact. The hash is the finaliser of MurmurHash3
(Appleby, 2011) with a second key mixed in half-way.
"""

import functools
import math

import tensorflow as tf

from vim_tf.nn import fusion

_GOLDEN = 0x9E3779B9  # 2**32 / golden ratio: spreads consecutive positions.
_HALF_STEP = 2.0**-25  # Of the uniform numbers.


def _xor_shift(x: tf.Tensor, bits: int) -> tf.Tensor:
  return tf.bitwise.bitwise_xor(
    x, tf.bitwise.right_shift(x, tf.constant(bits, tf.uint32))
  )


def _times(x: tf.Tensor, factor: int) -> tf.Tensor:
  return x * tf.constant(factor, tf.uint32)


def mix(x: tf.Tensor) -> tf.Tensor:
  """Hashes each uint32 of a tensor to another: a bijection of 32 bits."""
  x = _times(_xor_shift(x, 16), 0x85EBCA6B)
  x = _times(_xor_shift(x, 13), 0xC2B2AE35)
  return _xor_shift(x, 16)


def fold(seeds: tf.Tensor, value) -> tf.Tensor:
  """New seeds from seeds and an integer.

  Args:
    seeds: uint32 of any shape.
    value: An integer, or an integer tensor that broadcasts against `seeds`.

  Returns:
    uint32 seeds, `[*broadcast shape]`.
  """
  value = tf.cast(value, tf.uint32)
  return mix(seeds + mix(_times(value, _GOLDEN) + tf.constant(1, tf.uint32)))


def bits(seeds: tf.Tensor, shape: tuple[int, ...], stream) -> tf.Tensor:
  """Random 32-bit words of each example.

  Args:
    seeds: uint32 `[batch]`.
    shape: Shape of what one example draws, without the batch.
    stream: An integer that tells apart what one example draws in different
      places (layers, purposes); a Python int or a scalar tensor.

  Returns:
    uint32 `[batch, *shape]`.
  """
  columns = shape[-1] if shape else 1
  rows = math.prod(shape) // max(1, columns)
  first = fold(seeds, stream)[:, None, None]
  second = mix(tf.bitwise.invert(first))
  # A position is its row's first one and a column. The row meets the seed
  # first: a table of all positions would be a constant of the size of an
  # activation, which TensorFlow computes beforehand and puts into the program,
  # once for every layer.
  row = _times(tf.cast(fusion.places(rows) * columns, tf.uint32), _GOLDEN)
  column = _times(tf.cast(fusion.places(columns), tf.uint32), _GOLDEN)
  x = (first + row[:, None]) + column  # [batch, rows, columns]
  x = _times(_xor_shift(x, 16), 0x85EBCA6B)
  x = tf.bitwise.bitwise_xor(x, second)
  x = _times(_xor_shift(x, 13), 0xC2B2AE35)
  return tf.reshape(_xor_shift(x, 16), [-1, *shape])


def uniform(seeds: tf.Tensor, shape: tuple[int, ...], stream) -> tf.Tensor:
  """Uniform float32 in [0, 1) of each example, `[batch, *shape]`."""
  high = tf.bitwise.right_shift(
    bits(seeds, shape, stream), tf.constant(8, tf.uint32)
  )
  return tf.cast(high, tf.float32) * 2.0**-24


def gumbel(uniforms: tf.Tensor) -> tf.Tensor:
  """Gumbel noise: the largest of logits plus it draws from their softmax.

  Args:
    uniforms: float32 as `uniform` gives them, of any shape.

  Returns:
    float32 of that shape, finite for every uniform: from -2.9 to 17.4.
  """
  # Half a step keeps 0 away. The largest uniform rounds up to 1 with it, whose
  # logarithm is 0 instead of about half a step.
  exponential = tf.maximum(-tf.math.log(uniforms + _HALF_STEP), _HALF_STEP)
  return -tf.math.log(exponential)


def dropout(x: tf.Tensor, rate: float, seeds: tf.Tensor, stream) -> tf.Tensor:
  """Sets a share of the elements to zero and scales up the others.

  Args:
    x: `[batch, ...]`, static but for the batch.
    rate: Share of zeros, in [0, 1).
    seeds: uint32 `[batch]`.
    stream: See `bits`.

  Returns:
    A tensor like `x`, of the same mean.
  """
  return _fused_dropout(rate)(x, seeds, stream_tensor(stream)) if rate else x


def stream_tensor(stream) -> tf.Tensor:
  """A stream as a tensor, so that one compiled function serves all of them."""
  return tf.cast(stream, tf.uint32)


def dropped(
  x: tf.Tensor, rate: float, seeds: tf.Tensor, stream: tf.Tensor
) -> tf.Tensor:
  """`dropout` in plain operations, to be compiled with what surrounds it."""
  if not rate:
    return x
  keep = bits(seeds, tuple(x.shape[1:]), stream) >= tf.constant(
    round(rate * 2**32), tf.uint32
  )
  return tf.where(keep, x / (1.0 - rate), tf.zeros([], x.dtype))


@functools.cache
def _fused_dropout(rate: float):
  return fusion.fused(lambda x, seeds, stream: dropped(x, rate, seeds, stream))
