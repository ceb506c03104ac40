"""What several worker processes of one run must agree on.

Under `MultiWorkerMirroredStrategy` every worker runs the same program and
waits for the others wherever replicas exchange gradients. The first one, the
chief, alone writes. Everywhere else there is one process, and it is the chief.
"""

import contextlib
import os

from absl import logging
import tensorflow as tf

from vim_tf.training import preemption
from vim_tf.training import workdir as workdir_lib

_LOST = (
  tf.errors.AbortedError,
  tf.errors.CancelledError,
  tf.errors.DeadlineExceededError,
  tf.errors.InternalError,
  tf.errors.UnavailableError,
)
"""What TensorFlow raises when a worker does not answer any more."""


class WorkerLost(preemption.Restart):
  """Another worker of this run has ended."""


def is_chief(strategy: tf.distribute.Strategy) -> bool:
  """Whether this process is the one that writes."""
  return strategy.extended.should_checkpoint


class Workers:
  """All worker processes of a run."""

  def __init__(self, strategy: tf.distribute.Strategy):
    self._replicas = strategy.num_replicas_in_sync
    self._chief = is_chief(strategy)
    self._several = isinstance(
      strategy, tf.distribute.MultiWorkerMirroredStrategy
    )
    if self._several:
      self._local = len(strategy.extended.worker_devices)
    self._sum = tf.function(
      lambda value: strategy.reduce(
        tf.distribute.ReduceOp.SUM,
        strategy.run(tf.identity, args=(value,)),
        axis=None,
      ),
      autograph=False,
    )

  def any(self, flag: bool) -> bool:
    """Whether the flag is set on any worker; all must ask at once."""
    if not self._several:
      return flag
    return int(self._sum(tf.constant(int(flag), tf.int64))) > 0

  def agree(self, flag: bool, number: int) -> tuple[bool, int]:
    """Whether the flag is set on any worker, and the first one's number.

    Args:
      flag: This worker's.
      number: This worker's; at least 0.
    """
    if not self._several:
      return flag, number
    values = [int(flag), number if self._chief else 0]
    flags, number = self._sum(tf.constant(values, tf.int64)).numpy()
    return flags > 0, int(number) // self._local

  def check_same_step(self, step: int):
    """Refuses workers that do not start at one step.

    Raises:
      WorkdirError: If they found different checkpoints.
    """
    if not self._several:
      return
    total = int(self._sum(tf.constant(step, tf.int64)))
    # Unequal steps leave at least one worker off the mean.
    if self.any(total != step * self._replicas):
      raise workdir_lib.WorkdirError(
        f'This worker found a checkpoint of step {step}, and others another '
        'one: --workdir must be one folder that all of them see.'
      )

  @contextlib.contextmanager
  def or_lost(self, title: str):
    """Turns the errors of a lost worker into one line.

    Raises:
      WorkerLost: Instead of TensorFlow's error.
    """
    try:
      yield
    except _LOST as error:
      if not self._several:
        raise
      raise lost(title, error) from error


def lost(title: str, error: Exception) -> WorkerLost | None:
  """The error of a lost worker behind one of TensorFlow, if it is one."""
  if not isinstance(error, _LOST) or 'TF_CONFIG' not in os.environ:
    return None
  logging.error('%s', (str(error).splitlines() or [''])[0])
  return WorkerLost(
    f'{title}: another worker has ended or does not answer. Start all of them '
    'again with the same command: they go on from the last checkpoint.'
  )


def leave(status: int):
  """Ends a process whose fellow workers may be gone.

  TensorFlow would otherwise wait for them at its end, for minutes.
  """
  os._exit(status)
