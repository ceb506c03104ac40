"""Gradients: what applies them, and how they take less memory."""

from collections.abc import Callable, Sequence
from typing import Protocol

import tensorflow as tf

from vim_tf.nn import fusion


class Optimizer(Protocol):
  """What a step needs of an optimizer."""

  def apply(self, gradients: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
    """Updates the variables; returns figures about the update."""


def accumulated(
  loss_fn: Callable,
  batch: dict[str, tf.Tensor],
  groups: Sequence[Sequence[tf.Variable]],
  micro_batches: int = 1,
):
  """Gradients of each loss by its own group of variables.

  Args:
    loss_fn: From a part of the batch to one scalar loss a group, and a
      dictionary of scalars; all of them sums over the part's examples divided
      by the GLOBAL batch size, so that parts and replicas add up.
    batch: Tensors `[batch, ...]`.
    groups: The variables of each loss.
    micro_batches: Number of equal parts, run one after the other for memory;
      the batch divides into them.

  Returns:
    One list of gradients a group, and the dictionary of scalars.
  """

  def part_gradients(part):
    with tf.GradientTape(persistent=True) as tape:
      losses, metrics = loss_fn(part)
    gradients = []
    for loss, variables in zip(losses, groups, strict=True):
      dense = tape.gradient(
        loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
      )
      gradients.append([tf.convert_to_tensor(g) for g in dense])
    return gradients, metrics

  if micro_batches == 1:
    return part_gradients(batch)
  size = next(iter(batch.values())).shape[0]
  parts = {
    key: tf.reshape(
      value, [micro_batches, size // micro_batches, *value.shape[1:]]
    )
    for key, value in batch.items()
  }

  def body(index, sums):
    part = {key: value[index] for key, value in parts.items()}
    return index + 1, tf.nest.map_structure(tf.add, sums, part_gradients(part))

  first = {key: value[0] for key, value in parts.items()}
  _, sums = tf.while_loop(
    lambda index, _: index < micro_batches,
    body,
    (tf.constant(1), part_gradients(first)),
    maximum_iterations=micro_batches - 1,
  )
  return sums


def recomputed(
  function: Callable[..., tf.Tensor], x: tf.Tensor, *others: tf.Tensor
) -> tf.Tensor:
  """`function(x, *others)`, of which nothing but the inputs is kept.

  The backward pass computes activations again (Chen et al., 2016), as with
  `tf.recompute_grad`, with two things more. What it computes again waits for
  the gradient that it is needed for, or a compiler, which sees one computation
  twice, keeps the first. And the gradient of the function's input waits for
  the gradients of its variables, or a compiler puts these off, to the end of
  the program if it likes, with everything that they are made of.

  Args:
    function: From tensors to one tensor, without side effects.
    x: What the result is differentiated by, besides variables.
    *others: Further tensors, of any dtype, which get no gradient.
  """

  @tf.custom_gradient
  def call(x, *others):
    def gradient(dy, variables=()):
      (again, *others_again), (dy,) = _together([x, *others], [dy])
      with tf.GradientTape() as tape:
        tape.watch(again)
        y = function(again, *others_again)
      dx, *by_variable = tape.gradient(
        y,
        [again, *variables],
        dy,
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
      )
      if by_variable:
        (dx,), by_variable = _together([dx], by_variable)
      found = (dx, *[None] * len(others))
      return (found, by_variable) if by_variable else found

    return function(x, *others), gradient

  return call(x, *others)


def _together(
  first: list[tf.Tensor], second: list[tf.Tensor]
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
  """The same tensors, the first of which are there once the second are.

  XLA heeds no control dependencies, with which `tf.recompute_grad` does it. It
  has a barrier of its own, which TensorFlow runs in compiled programs alone;
  elsewhere a zero is added that hangs on an element of each of the second.
  """
  if fusion.inside_xla():
    found = fusion.barrier(*first, *second)
    return found[: len(first)], found[len(first) :]
  zero = _zero_after(second)
  return [tensor + tf.cast(zero, tensor.dtype) for tensor in first], second


def _zero_after(tensors: list[tf.Tensor]) -> tf.Tensor:
  """A float32 zero that is there once the tensors are.

  It hangs on an element of each.
  """
  zero = tf.zeros([])
  for tensor in tensors:
    element = tf.cast(tf.reshape(tensor, [-1])[0], tf.bool)
    zero += tf.where(tf.equal(element, element), 0.0, float('nan'))
  return zero
