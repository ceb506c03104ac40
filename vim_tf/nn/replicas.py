"""Functions of batches, of which every replica computes its part.

Training steps are the loop's; this is for all else that runs a model:
evaluation, pictures, sampling, encoding, features. The host cuts a batch,
joins what comes back, and computes nothing of the model. That matters where it
is the slowest device by far, as beside a TPU.

A model, network or layer must have been made under the strategy's scope.
`of(model)` is the strategy that a model was made under.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import contextlib
import math

import numpy as np
import tensorflow as tf

from vim_tf import machine

_AT_ONCE, _AT_ONCE_EACH = 64, 8  # Examples.
_SEVERAL = (
  tf.distribute.MirroredStrategy,
  tf.distribute.MultiWorkerMirroredStrategy,
  tf.distribute.TPUStrategy,
)


def of(model: tf.keras.Model) -> tf.distribute.Strategy:
  """The strategy under whose scope a model was made."""
  return model.distribute_strategy


def is_xla(strategy: tf.distribute.Strategy) -> bool:
  """Whether all that its replicas run is one XLA program, as on TPUs."""
  return isinstance(strategy, tf.distribute.TPUStrategy)


def is_one(strategy: tf.distribute.Strategy) -> bool:
  """Whether it is a single CPU or GPU, which takes batches of any size."""
  return _count(strategy) == 1 and not is_xla(strategy)


def batch_size(strategy: tf.distribute.Strategy) -> int:
  """Examples to evaluate at once: 64 on one device, 8 a replica of many."""
  return max(_AT_ONCE, _AT_ONCE_EACH * _count(strategy))


def streams(strategy: tf.distribute.Strategy) -> int:
  """Parts of a batch that a CPU computes at once, each on a thread of its own.

  One, as long as threads share each operation. Where an operation has a single
  thread, after `tf.config.threading.set_intra_op_parallelism_threads(1)`, one
  for each core, or as many as operations may run at once: threads that need
  not wait for one another do more, most in products of few rows.
  """
  threading = tf.config.threading
  shared = threading.get_intra_op_parallelism_threads() != 1
  if shared or not is_one(strategy) or tf.config.list_physical_devices('GPU'):
    return 1
  return threading.get_inter_op_parallelism_threads() or machine.cores()


def at_once(function: Callable, parts: Sequence) -> list:
  """A function's results of several parts, each by a thread of its own."""
  if len(parts) == 1:
    return [function(parts[0])]
  with futures.ThreadPoolExecutor(len(parts)) as pool:
    return list(pool.map(function, parts))


@contextlib.contextmanager
def as_traced(wanted: bool = True) -> Iterator[None]:
  """Functions called within it run as they were traced, not optimised, if so.

  It holds for the whole process; a function that is called with it and without
  is prepared for both.
  """
  key = 'disable_meta_optimizer'
  before = tf.config.optimizer.get_experimental_options().get(key, False)
  tf.config.optimizer.set_experimental_options({key: before or wanted})
  try:
    yield
  finally:
    tf.config.optimizer.set_experimental_options({key: before})


def parts(count: int, most: int) -> Iterator[tuple[np.ndarray, int]]:
  """Batches of one size, as few as can be, so that one graph serves all.

  Args:
    count: Examples.
    most: Examples of a batch, at most.

  Yields:
    Indices of a batch, of which the last one's are filled up from the first
    ones, and how many of them are its own.
  """
  size = math.ceil(count / math.ceil(count / most)) if count else 1
  for start in range(0, count, size):
    yield np.arange(start, start + size) % count, min(size, count - start)


class OnReplicas:
  """A function of a batch, computed by all replicas of this process.

  The batch is filled up with its first example to a multiple of the replicas,
  and to the largest batch so far, so that a short last one is not compiled
  again; what was added is cut off. On one CPU or GPU nothing is added, but
  where a CPU computes several parts at once (see `streams`).

  Args:
    function: From tensors `[batch, ...]` to a nest of tensors `[batch, ...]`
      (or None), in which an example depends on itself alone.
    strategy: Where the replicas run.
    traced: Whether one CPU or GPU runs it as a `tf.function` too.
  """

  def __init__(
    self,
    function: Callable,
    strategy: tf.distribute.Strategy,
    traced: bool = True,
  ):
    self._strategy = strategy
    self._replicas = _count(strategy)
    self._streams = streams(strategy)
    self._exact = is_one(strategy)
    self._size = 0  # Of a replica's or a stream's part.
    self._there = None  # Which results are not None.

    def part(*args):
      found = function(*args)
      if self._exact:
        return found
      # TPUs give back tensors alone.
      self._there = tf.nest.map_structure(lambda x: x is not None, found)
      return [x for x in tf.nest.flatten(found) if x is not None]

    self._run = lambda *args: strategy.run(part, args)
    if traced or not self._exact:
      self._run = tf.function(self._run, autograph=False)

  def __call__(self, *args):
    """Computes a batch.

    Args:
      *args: NumPy arrays or tensors `[batch, ...]`, or nests of them.

    Returns:
      The function's results as NumPy arrays `[batch, ...]`.
    """
    if self._exact and self._streams == 1:
      return tf.nest.map_structure(_to_numpy, self._run(*args))
    args = tf.nest.map_structure(np.asarray, args)
    count = len(tf.nest.flatten(args)[0])
    parts = max(self._replicas, self._streams)
    self._size = max(self._size, math.ceil(count / parts))
    if self._exact:
      parts = math.ceil(count / self._size)
    rows = np.arange(self._size * parts)
    rows = np.where(rows < count, rows, 0).reshape([parts, -1])

    def part_of(own):
      return tf.nest.map_structure(lambda x: tf.constant(x[own]), args)

    if self._exact:
      found = at_once(lambda own: self._run(*part_of(own)), rows)
      return tf.nest.map_structure(
        lambda *x: None if x[0] is None else np.concatenate(x)[:count], *found
      )
    # Of several workers, this one's replicas are numbered from its first.
    left = iter(rows)

    def part(context):
      del context
      with tf.device('CPU'):
        return part_of(next(left))

    spread = self._strategy.experimental_distribute_values_from_function(part)
    found = iter([self._join(x, count) for x in self._run(*spread)])
    return tf.nest.map_structure(
      lambda there: next(found) if there else None, self._there
    )

  def _join(self, value, count: int) -> np.ndarray:
    """All replicas' rows of one result, without those that were added."""
    parts = self._strategy.experimental_local_results(value)
    return np.concatenate([part.numpy() for part in parts])[:count]


def _count(strategy: tf.distribute.Strategy) -> int:
  """Replicas that this process drives."""
  if not isinstance(strategy, _SEVERAL):
    return 1  # TensorFlow's default one does not even name its device.
  return len(strategy.extended.worker_devices)


def _to_numpy(value) -> np.ndarray | None:
  return None if value is None else np.asarray(value)
