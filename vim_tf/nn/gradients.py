"""Gradients of several losses, summed over parts of a batch."""

from collections.abc import Callable, Sequence

import tensorflow as tf


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
    micro_batches: Number of equal parts, run one after the other for memory.

  Returns:
    One list of gradients a group, and the dictionary of scalars.

  Raises:
    ValueError: If the batch does not divide.
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
  if size % micro_batches:
    raise ValueError(
      f'A replica has {size} examples a step, which do not divide into '
      f'{micro_batches} micro-batches.'
    )
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
