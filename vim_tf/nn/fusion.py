"""Chains of elementwise operations as one pass over the memory, both ways.

On a CPU TensorFlow goes over the memory once for every small operation, which
in training costs about as much as all matrix products. XLA makes one loop of
such a chain; its products, however, are slower than TensorFlow's, so that
nothing but elementwise work is given to it. On a TPU everything is compiled
anyway, and this changes nothing.
"""

from collections.abc import Callable
import functools

import tensorflow as tf


def fused(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
  """Compiles an elementwise function, and its gradient, to one pass each.

  The gradient computes what it needs of the function again instead of keeping
  it: only the inputs stay in memory between the two passes.

  Args:
    function: From `x` and further tensors, which get no gradient, to a tensor.
      It is computed in float32 whatever the dtype of `x`, and rounded once.

  Returns:
    A function of the same arguments, whose result has the dtype of `x`.
  """

  def in_float32(x, *others):
    return tf.cast(function(tf.cast(x, tf.float32), *others), x.dtype)

  compiled = functools.partial(tf.function, jit_compile=True, autograph=False)
  forward = compiled(in_float32)

  @compiled
  def backward(gradient, x, *others):
    with tf.GradientTape() as tape:
      tape.watch(x)
      y = in_float32(x, *others)
    return tape.gradient(y, x, gradient)

  @tf.custom_gradient
  def call(x, *others):
    def gradient(dy):
      return backward(dy, x, *others), *[None] * len(others)

    return forward(x, *others), gradient

  return call
