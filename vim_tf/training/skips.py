"""Batches that a run leaves out because a loss was not finite on them.

Batch k of a run is a function of k; step k usually takes batch k. After the
run has gone back to a checkpoint, the steps from there on take later batches.
That is kept in `skipped.json`, so that a resumed run does the same.
"""

from collections.abc import Callable
import pathlib

import tensorflow as tf

from vim_tf.training import workdir as workdir_lib

FILE = 'skipped.json'
MOST_TIMES = 3
"""How often a run goes back to one checkpoint before it gives up."""


class Skips:
  """What a run has left out.

  Args:
    folder: The run's working directory.
    writes: Whether this process keeps it; others only read.
  """

  def __init__(self, folder: pathlib.Path, writes: bool = True):
    self._file = folder / FILE
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
