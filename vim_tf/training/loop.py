"""The training loop of every stage: build, restore, then chunks.

A chunk is one `tf.function` that runs several steps on the replicas. Between
chunks the host logs, stops on a non-finite loss, draws, evaluates and saves.
The loop knows no model: a `Trainer` brings that.
"""

import collections
from collections.abc import Callable
import contextlib
import dataclasses
import functools
import time
from typing import Protocol

from absl import logging
import numpy as np
import tensorflow as tf

from vim_tf.config import STOP, Faults, RunConfig, UserError
from vim_tf.training import batches as batches_lib
from vim_tf.training import (
  checkpoints,
  intervals,
  preamble,
  preemption,
  summaries,
  workers,
)
from vim_tf.training import workdir as workdir_lib

_MOST_TIMES = 3  # That a run goes back to one checkpoint.
_STOPPED = (
  ': training stopped, and the last checkpoint is from before that. Try a '
  'lower learning rate, a longer warm-up or float32, or go on with '
  '--on_non_finite=restore.'
)


class NonFiniteError(UserError):
  """A loss became infinite or not a number."""


class Trainer(Protocol):
  """What one stage brings to the loop."""

  def step_kind(self, step: int) -> str:
    """Which variant of the step to run; each kind is compiled once."""

  def replica_step(
    self, kind: str, batch: dict[str, tf.Tensor], step: tf.Tensor
  ) -> dict[str, tf.Tensor]:
    """Updates the weights once.

    Returns:
      Scalars whose sum over replicas is the mean over the global batch.
    """

  def checkpoint_contents(self) -> dict[str, object]:
    """Everything that a resumed run needs, by name."""


def train(
  trainer: Trainer,
  run: RunConfig,
  workdir: workdir_lib.Workdir,
  batches: Callable[[int, tf.distribute.InputContext], tf.data.Dataset],
  strategy: tf.distribute.Strategy,
  evaluate: Callable[[], dict[str, float]],
  draw: Callable[[], dict[str, np.ndarray]],
  title: str = 'training',
  faults: Faults = STOP,
):
  """Trains to the last step, from the newest checkpoint if there is one.

  Args:
    trainer: What to train, built under `strategy`.
    run: Length of the run and intervals of everything.
    workdir: Where everything is written; closed in the end.
    batches: From a step and an input pipeline to that pipeline's share of the
      endless batches from that step on; where these have 'broken', float32
      `[batch]`, its sum is logged as 'broken_examples'.
    strategy: Where replicas run.
    evaluate: Gives figures on held-out data.
    draw: Gives pictures by name, uint8 `[height, width, 3]`.
    title: What the progress bar calls this run.
    faults: What to do about a loss that is not finite.

  Raises:
    NonFiniteError: If a loss term is not finite, naming the term and step.
    CheckpointError: If checkpoints cannot be read or written.
    Preempted: If SIGTERM or Ctrl-C came; everything up to the end of that
      chunk is saved.
    WorkerLost: If another worker of the run has ended.
  """
  with contextlib.closing(workdir):  # Which an error may outlive.
    _train(
      trainer, run, workdir, batches, strategy, evaluate, draw, title, faults
    )


def _train(
  trainer, run, workdir, batches, strategy, evaluate, draw, title, faults
):
  # ---------------------------------------------------------------- restore
  team = workers.Workers(strategy)
  chief = workers.is_chief(strategy)
  saver = checkpoints.Checkpoints(
    workdir.checkpoints, trainer.checkpoint_contents(), run.keep_checkpoints
  )
  step = saver.restore()
  if chief:
    workdir.forget_after(step)
  host = _Host(run, workdir, evaluate, draw) if chief else None
  if step >= run.num_steps:
    if chief:
      host.look(step)  # Left undone by a run that was asked to stop.
    logging.info('%s: all %d steps are done.', title, step)
    return
  goes_back = faults.on_non_finite == 'restore'
  if chief and goes_back and not step:
    saver.save(0)  # For there to be something to go back to.
  logging.info('%s: from step %d to %d.', title, step, run.num_steps)

  # ------------------------------------------------------------------ build
  left_out = batches_lib.Skips(workdir.path, writes=chief)
  iterator = batches_lib.iterator(strategy, batches, left_out, step)
  run_chunk = _Chunk(trainer, strategy)
  means = _Means(saver.notes(step))
  seconds, timed = 0.0, 0  # Since the last row, in this process.
  most = intervals.FIRST_STEPS  # Of the next chunk.
  estimated = False
  saved = time.monotonic()

  # ----------------------------------------------------------------- chunks
  with (
    summaries.Bar(title, step, run.num_steps, kind=trainer.step_kind) as bar,
    preemption.Watch() as watch,
    team.or_lost(title),
  ):
    team.check_same_step(step)
    if chief and step:  # What was left undone when it was asked to stop.
      with watch.breaks():
        host.look(step)
    while step < run.num_steps:
      end = intervals.chunk_end(step, run, most)
      started = time.monotonic()
      kind = trainer.step_kind(step)
      count = 1
      while step + count < end and trainer.step_kind(step + count) == kind:
        count += 1
      rows = run_chunk(kind, iterator, step, count)
      elapsed = time.monotonic() - started
      seconds += elapsed
      bar.timed(step, count, elapsed)
      wrong = _not_finite(rows, step)
      if wrong:
        if not goes_back:
          raise NonFiniteError(f'{wrong}{_STOPPED}')
        step = _go_back(saver, left_out, wrong)
        if chief:
          workdir.forget_after(step)
        iterator = batches_lib.iterator(strategy, batches, left_out, step)
        means = _Means(saver.notes(step))
        seconds, timed = 0.0, 0
        continue
      means.add(rows)
      step += count
      timed += count
      if step < end:
        continue
      bar.update(step, means.newest('loss'))
      if not estimated and (left := bar.seconds_left()):
        estimated = True
        logging.info(
          preamble.estimate(title, run.num_steps - step, run, left, strategy)
        )

      if intervals.has_row(step, run):
        row = means.take()
        row['images_per_second'] = run.batch_size * timed / seconds
        seconds, timed = 0.0, 0
        if chief:
          host.writer.scalars(step, row)
      # Whoever has to go soon does not evaluate first.
      asked, most = team.agree(
        bool(watch.asked), intervals.steps_within(bar, run)
      )
      if not asked:
        if chief:
          with watch.breaks():
            host.look(step)
        asked = team.any(bool(watch.asked))
      # The clock of the one that writes decides.
      late = run.checkpoint_minutes and (
        time.monotonic() - saved >= 60 * run.checkpoint_minutes
      )
      if chief and (
        asked
        or late
        or intervals.due(step, run.checkpoint_every, run.num_steps)
      ):
        host.writer.flush()
        saver.save(step, means.notes())
        saved = time.monotonic()
      if asked:
        raise preemption.Preempted(
          f'{title} was asked to stop ({watch.asked or "another worker was"}) '
          f'and is saved at step {step} of {run.num_steps}: the same command '
          'goes on from there.'
        )
    team.any(False)  # The others wait here until the chief has written.


@dataclasses.dataclass(frozen=True)
class _Host:
  """What the writing process does between chunks with the model as it is."""

  run: RunConfig
  workdir: workdir_lib.Workdir
  evaluate: Callable[[], dict[str, float]]
  draw: Callable[[], dict[str, np.ndarray]]

  @functools.cached_property
  def writer(self) -> summaries.Writer:
    """Made when there is something to write."""
    return summaries.Writer(self.workdir)

  def look(self, step: int):
    """Evaluates and draws, if that is due at a step and was not done."""
    run = self.run
    if intervals.due(step, run.eval_every, run.num_steps):
      if not summaries.evaluated(self.workdir, step):
        self.writer.scalars(step, self.evaluate(), summaries.EVALUATED)
    if intervals.due(step, run.picture_every, run.num_steps):
      if not summaries.drawn(self.workdir, step):
        self.writer.images(step, self.draw())


def _go_back(
  saver: checkpoints.Checkpoints,
  left_out: batches_lib.Skips,
  wrong: '_NotFinite',
) -> int:
  """Restores the last checkpoint; the data since then are left out.

  Raises:
    NonFiniteError: If the run went back there several times already.
  """
  step = saver.restore()
  if left_out.times(step) == _MOST_TIMES:
    raise NonFiniteError(
      f'{wrong}, after the run went back to step {step} {_MOST_TIMES} '
      'times with other data: it is not the data. Try a lower learning rate, a '
      'longer warm-up or float32.'
    )
  count = wrong.step - step + 1
  first = left_out.batch_of(step)
  left_out.add(step, count)
  logging.warning(
    '%s: going back to the checkpoint of step %d; batches %d to %d are left '
    'out.',
    wrong,
    step,
    first,
    first + count - 1,
  )
  return step


class _Chunk:
  """Several steps of one kind as one compiled function."""

  def __init__(self, trainer: Trainer, strategy: tf.distribute.Strategy):
    self._trainer = trainer
    self._strategy = strategy
    self._names = {}
    self._functions = {}

  def __call__(self, kind, iterator, step, count) -> dict[str, np.ndarray]:
    """Runs `count` steps; returns each metric's values `[count]`."""
    if kind not in self._functions:
      self._functions[kind] = tf.function(functools.partial(self._steps, kind))
    table = self._functions[kind](
      iterator, tf.constant(step, tf.int64), tf.constant(count)
    ).numpy()
    return dict(zip(self._names[kind], table.T, strict=True))

  def _steps(self, kind, iterator, step, count):
    rows = tf.TensorArray(tf.float32, size=count, infer_shape=False)
    for i in tf.range(count):
      row = self._one(kind, next(iterator), step + tf.cast(i, tf.int64))
      rows = rows.write(i, row)
    return rows.stack()

  @tf.autograph.experimental.do_not_convert
  def _one(self, kind, batch, step):
    def replica(batch):
      metrics = self._trainer.replica_step(kind, batch, step)
      if 'broken' in batch:
        metrics['broken_examples'] = tf.reduce_sum(batch['broken'])
      self._names[kind] = sorted(metrics)
      # As one tensor, because each one that leaves an accelerator costs time.
      return tf.stack([metrics[name] for name in self._names[kind]])

    row = self._strategy.run(replica, args=(batch,))
    return self._strategy.reduce(tf.distribute.ReduceOp.SUM, row, axis=None)


class _Means:
  """Means of the metrics since the last row.

  Args:
    notes: What `notes` gave with the checkpoint that the run goes on from, so
      that its next row is the mean that it would have been.
  """

  def __init__(self, notes: dict | None = None):
    self._values = collections.defaultdict(list)
    for name, values in (notes or {}).items():
      self._values[name].append(np.array(values, np.float32))

  def add(self, rows: dict[str, np.ndarray]):
    for name, values in rows.items():
      self._values[name].append(values)

  def newest(self, name: str) -> float:
    return float(self._values[name][-1][-1])

  def notes(self) -> dict:
    """All values since the last row, as JSON."""
    return {
      name: np.concatenate(values).tolist()
      for name, values in self._values.items()
    }

  def take(self) -> dict[str, float]:
    row = {
      name: float(np.mean(np.concatenate(values)))
      for name, values in self._values.items()
    }
    self._values.clear()
    return row


@dataclasses.dataclass(frozen=True)
class _NotFinite:
  """A term of the loss that is infinite or not a number."""

  name: str
  value: float
  step: int

  def __str__(self) -> str:
    return f'{self.name} became {self.value} at step {self.step}'


def _not_finite(rows: dict[str, np.ndarray], step: int) -> _NotFinite | None:
  """The first term that is not finite, of steps from `step` on."""
  found = [
    _NotFinite(name, values[wrong[0]], step + int(wrong[0]))
    for name, values in rows.items()
    if (wrong := np.flatnonzero(~np.isfinite(values))).size
  ]
  return min(found, key=lambda wrong: wrong.step, default=None)
