"""One training step of the probes: every softmax layer at once."""

from collections.abc import Mapping

import tensorflow as tf

from vim_tf.nn import gradients
from vim_tf.probe import linear


class ProbeStep:
  """The update of softmax layers that have nothing to do with each other.

  They share a batch of images, each layer seeing its own features of it. The
  optimizer treats every weight by itself, so that each layer ends as if it
  had been trained alone.

  Args:
    layers: The built layers by the name of their features.
    optimizer: Updates their trainable variables, in the order of `variables`.
  """

  def __init__(
    self,
    layers: Mapping[str, linear.SoftmaxLayer],
    optimizer: gradients.Optimizer,
  ):
    self._layers = dict(layers)
    self._optimizer = optimizer
    self._variables = variables(layers)

  def checkpoint_contents(self) -> dict[str, object]:
    """Everything that a resumed run needs, by name."""
    return {**self._layers, 'optimizer': self._optimizer}

  def step_kind(self, step: int) -> str:
    """All steps are alike."""
    del step
    return 'plain'

  def replica_step(
    self, kind: str, batch: dict[str, tf.Tensor], step: tf.Tensor
  ) -> dict[str, tf.Tensor]:
    """Updates the weights once, in replica context.

    Args:
      kind: 'plain'.
      batch: `[batch, width]` by the name of the features; 'labels' int32
        `[batch]`.
      step: int64 scalar.

    Returns:
      Scalars whose sum over replicas is the mean over the global batch:
      'loss', the mean cross-entropy of all layers; of each kind of features
      '<name>/loss' and '<name>/accuracy', means over its penalties.
    """
    del kind, step  # The schedule counts updates itself.
    labels = batch['labels']
    replicas = tf.distribute.get_replica_context().num_replicas_in_sync
    global_batch = labels.shape[0] * replicas
    metrics, total = {}, 0.0
    with tf.GradientTape() as tape:
      for name, layer in self._layers.items():
        logits = layer(batch[name])  # [batch, penalties, classes]
        targets = tf.repeat(labels[:, None], logits.shape[1], axis=1)
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
        losses = tf.reduce_sum(nats, axis=0) / global_batch  # [penalties]
        total += tf.reduce_sum(losses + layer.penalty() / replicas)
        right = tf.equal(
          tf.argmax(logits, axis=-1, output_type=labels.dtype), targets
        )
        right = tf.reduce_sum(tf.cast(right, tf.float32), axis=0)
        metrics[f'{name}/loss'] = tf.reduce_mean(losses)
        metrics[f'{name}/accuracy'] = tf.reduce_mean(right) / global_batch
    figures = self._optimizer.apply(tape.gradient(total, self._variables))
    losses = [metrics[f'{name}/loss'] for name in self._layers]
    return {
      'loss': tf.add_n(losses) / len(losses),
      **metrics,
      **{name: value / replicas for name, value in figures.items()},
    }


def variables(layers: Mapping[str, linear.SoftmaxLayer]) -> list[tf.Variable]:
  """The trainable variables of all layers, in their order."""
  return [v for layer in layers.values() for v in layer.trainable_variables]
