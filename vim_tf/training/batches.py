"""Which batch a step takes, and which part of it a replica."""

from collections.abc import Callable
import pathlib

import tensorflow as tf

from vim_tf.training import workdir as workdir_lib


class Skips:
  """Batches that a run leaves out because a loss was not finite on them.

  Batch k of a run is a function of k; step k usually takes batch k. After the
  run has gone back to a checkpoint, the steps from there on take later batches.
  That is kept in `skipped.json`, so that a resumed run does the same.

  Args:
    folder: The run's working directory.
    writes: Whether this process keeps it; others only read.
  """

  def __init__(self, folder: pathlib.Path, writes: bool = True):
    self._file = folder / 'skipped.json'
    self._writes = writes
    self._skips = []
    if self._file.exists():
      found = workdir_lib.read_json(self._file)
      self._skips = [(skip['step'], skip['batches']) for skip in found]

  def times(self, step: int) -> int:
    """How often the run went back to the checkpoint of a step."""
    return sum(at == step for at, _ in self._skips)

  def add(self, step: int, batches: int):
    """Leaves out so many batches from a step on."""
    self._skips.append((step, batches))
    if self._writes:
      workdir_lib.write_json(
        self._file,
        [{'step': at, 'batches': count} for at, count in self._skips],
      )

  def batch_of(self, step: int) -> int:
    """The number of the batch that a step takes."""
    return step + sum(count for at, count in self._skips if at <= step)

  def batches(
    self, step: int, make: Callable[[int], tf.data.Dataset]
  ) -> tf.data.Dataset:
    """The batches from a step on.

    Args:
      step: The first step.
      make: From a batch's number to the endless batches from that one on.
    """
    # A run may resume before a step from which something is left out.
    later = sorted({at for at, _ in self._skips if at > step})
    starts = [step, *later]
    data = None
    for start, end in zip(starts, [*later, None]):
      part = make(self.batch_of(start))
      part = part if end is None else part.take(end - start)
      data = part if data is None else data.concatenate(part)
    return data


@tf.autograph.experimental.do_not_convert
def iterator(strategy, batches, left_out: Skips, step: int):
  """Every replica's share of the batches from a step on."""

  def pipeline(context):
    data = left_out.batches(step, lambda first: batches(first, context))
    # Otherwise the hosts would ask one another before each step whether it has
    # come to its end, and hand out batches of unknown size.
    endless = tf.data.experimental.assert_cardinality(
      tf.data.INFINITE_CARDINALITY
    )
    return _for_replicas(data, context).apply(endless)

  if _is_cpu(strategy):
    # An iterator that fetches to a device tunes itself in a thread, which the
    # end of a run would wait for, up to a minute (TensorFlow 2.15).
    return iter(pipeline(tf.distribute.InputContext()))
  return iter(strategy.distribute_datasets_from_function(pipeline))


def _is_cpu(strategy: tf.distribute.Strategy) -> bool:
  """Whether all of a run is on one CPU, to which nothing has to be fetched."""
  one = isinstance(strategy, tf.distribute.OneDeviceStrategy)
  return one and 'CPU' in strategy.extended.worker_devices[0]


def _for_replicas(
  data: tf.data.Dataset, context: tf.distribute.InputContext
) -> tf.data.Dataset:
  """Parts each batch of a pipeline into one for each of its replicas."""
  replicas = context.num_replicas_in_sync // context.num_input_pipelines
  if replicas == 1:
    return data

  def part(x):
    size = x.shape[0] // replicas
    return tf.reshape(x, [replicas, size, *x.shape[1:]])

  options = data.options()
  data = data.map(lambda batch: tf.nest.map_structure(part, batch)).unbatch()
  return data.prefetch(replicas).with_options(options)
