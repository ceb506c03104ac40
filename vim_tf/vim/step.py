"""One training step of stage 2: predict every code of an image."""

from collections.abc import Callable

import tensorflow as tf

from vim_tf.config import Stage2Config
from vim_tf.nn import gradients, randomness
from vim_tf.vim import likelihood
from vim_tf.vim import model as model_lib

_LABEL_DROP_STREAM = 3_000_000
_BITS_PER_NAT = 1.4426950408889634


class VIMStep:
  """The update of VIM (paper 4.1, 5.2).

  Args:
    config: The run's settings.
    model: The built model.
    optimizer: Updates its trainable variables.
    encode: The frozen tokenizer: images `[batch, size, size, 3]` in [0, 1]
      to codes `[batch, num_codes]`; unused for batches that hold codes.
    average: A second model that holds the moving average of the weights.
  """

  def __init__(
    self,
    config: Stage2Config,
    model: model_lib.VIM,
    optimizer: gradients.Optimizer,
    encode: Callable[[tf.Tensor], tf.Tensor] | None = None,
    average: model_lib.VIM | None = None,
  ):
    self._config = config
    self._model = model
    self._optimizer = optimizer
    self._encode = encode
    self._average = average

  def checkpoint_contents(self) -> dict[str, object]:
    """Everything that a resumed run needs, by name."""
    contents = {'model': self._model, 'optimizer': self._optimizer}
    if self._average is not None:
      contents['average'] = self._average
    return contents

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
      batch: 'codes' int32 `[batch, num_codes]` or 'images'; 'labels' int32
        `[batch]`; 'seeds' uint32 `[batch]`.
      step: int64 scalar.

    Returns:
      Scalars whose sum over replicas is the mean over the global batch.
    """
    del kind, step  # Nothing drawn here depends on the step: the seeds do.
    codes = batch.get('codes')
    if codes is None:
      codes = tf.stop_gradient(self._encode(batch['images']))
    labels = self._drop_labels(batch['labels'], batch['seeds'])
    replicas = tf.distribute.get_replica_context().num_replicas_in_sync
    global_batch = codes.shape[0] * replicas

    def losses(part):
      x = self._model(
        part['codes'],
        part['labels'],
        seeds=part['seeds'],
        training=True,
        head=False,
      )
      sums = likelihood.of_codes(x, self._model.head, part['codes'])
      loss, accuracy = (
        total / (global_batch * codes.shape[1]) for total in sums
      )
      return [loss], {'loss': loss, 'accuracy': accuracy}

    (found,), metrics = gradients.accumulated(
      losses,
      {'codes': codes, 'labels': labels, 'seeds': batch['seeds']},
      [self._model.trainable_variables],
      self._config.optimizer.accumulate,
    )
    figures = self._optimizer.apply(found)
    metrics['bits_per_code'] = metrics['loss'] * _BITS_PER_NAT
    return {
      **metrics,
      **{name: value / replicas for name, value in figures.items()},
    }

  def _drop_labels(self, labels, seeds):
    if not self._config.label_drop:
      return labels
    draws = randomness.uniform(seeds, (), _LABEL_DROP_STREAM)
    dropped = draws < self._config.label_drop
    return tf.where(dropped, self._config.model.num_classes, labels)
