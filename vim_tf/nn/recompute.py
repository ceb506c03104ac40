"""Activations that are computed again in the backward pass (Chen et al., 2016).

As `tf.recompute_grad`, with one thing more: the gradient of a function's input
waits for the gradients of its variables. Otherwise a compiler is free to put
these off, to the end of the program if it likes, and to keep everything that
was recomputed until then: XLA's for the CPU did, and almost nothing was saved.
"""

from collections.abc import Callable

import tensorflow as tf


def recomputed(
  function: Callable[..., tf.Tensor], x: tf.Tensor, *others: tf.Tensor
) -> tf.Tensor:
  """`function(x, *others)`, of which nothing but the inputs is kept.

  Args:
    function: From tensors to one tensor, without side effects.
    x: What the result is differentiated by, besides variables.
    *others: Further tensors, of any dtype, which get no gradient.
  """

  @tf.custom_gradient
  def call(x, *others):
    def gradient(dy, variables=()):
      zero = _zero_after([dy])
      again = x + tf.cast(zero, x.dtype)
      others_again = [other + tf.cast(zero, other.dtype) for other in others]
      with tf.GradientTape() as tape:
        tape.watch(again)
        y = function(again, *others_again)
      dx, *by_variable = tape.gradient(
        y,
        [again, *variables],
        dy,
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
      )
      dx += tf.cast(_zero_after(by_variable), dx.dtype)
      found = (dx, *[None] * len(others))
      return (found, by_variable) if by_variable else found

    return function(x, *others), gradient

  return call(x, *others)


def _zero_after(tensors: list[tf.Tensor]) -> tf.Tensor:
  """A float32 zero that is there once the tensors are.

  It hangs on an element of each, in a way that no compiler simplifies: XLA
  heeds no control dependencies (as in `tf.recompute_grad`).
  """
  zero = tf.zeros([])
  for tensor in tensors:
    element = tf.cast(tf.reshape(tensor, [-1])[0], tf.bool)
    zero += tf.where(tf.equal(element, element), 0.0, float('nan'))
  return zero
