"""The training loop of every stage: build, restore, then chunks.

A chunk is one `tf.function` that runs several steps on the replicas. Between
chunks the host logs, stops on a non-finite loss, draws, evaluates and saves.
The loop knows no model: a `Trainer` brings that.
"""

import collections
from collections.abc import Callable
import functools
import time
from typing import Protocol

from absl import logging
import numpy as np
import tensorflow as tf

from vim_tf.config import RunConfig, UserError
from vim_tf.training import checkpoints, preemption, progress, summaries
from vim_tf.training import workdir as workdir_lib


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
  batches: Callable[[int], tf.data.Dataset],
  strategy: tf.distribute.Strategy,
  evaluate: Callable[[], dict[str, float]],
  draw: Callable[[], dict[str, np.ndarray]],
  title: str = 'training',
):
  """Trains to the last step, from the newest checkpoint if there is one.

  Args:
    trainer: What to train, built under `strategy`.
    run: Length of the run and intervals of everything.
    workdir: Where everything is written.
    batches: From a step to the endless batches from that step on.
    strategy: Where replicas run.
    evaluate: Gives figures on held-out data.
    draw: Gives pictures by name, uint8 `[height, width, 3]`.
    title: What the progress bar calls this run.

  Raises:
    NonFiniteError: If a loss term is not finite, naming the term and step.
    CheckpointError: If checkpoints cannot be read or written.
    Preempted: If SIGTERM came; everything up to the end of that chunk is saved.
  """
  # ---------------------------------------------------------------- restore
  contents = trainer.checkpoint_contents()
  saver = checkpoints.Checkpoints(
    workdir.checkpoints, contents, run.keep_checkpoints
  )
  step = saver.restore()
  workdir.forget_after(step)
  if step >= run.num_steps:
    logging.info('%s: all %d steps are done.', title, step)
    return
  logging.info('%s: from step %d to %d.', title, step, run.num_steps)

  # ------------------------------------------------------------------ build
  iterator = iter(strategy.experimental_distribute_dataset(batches(step)))
  run_chunk = _Chunk(trainer, strategy)
  writer = summaries.Writer(workdir)
  means = _Means()
  seconds = 0.0

  # ----------------------------------------------------------------- chunks
  with (
    progress.Bar(title, step, run.num_steps) as bar,
    preemption.Watch() as watch,
  ):
    while step < run.num_steps:
      end = _chunk_end(step, run)
      started = time.monotonic()
      while step < end:
        kind = trainer.step_kind(step)
        count = 1
        while step + count < end and trainer.step_kind(step + count) == kind:
          count += 1
        rows = run_chunk(kind, iterator, step, count)
        _stop_if_not_finite(rows, step)
        means.add(rows)
        step += count
      seconds += time.monotonic() - started
      bar.update(step, means.newest('loss'))

      if _due(step, run.log_every, run.num_steps):
        row = means.take()
        row['images_per_second'] = run.batch_size * row.pop('steps') / seconds
        seconds = 0.0
        writer.scalars(step, row)
      if _due(step, run.eval_every, run.num_steps):
        writer.scalars(step, evaluate(), 'eval/')
      if _due(step, run.picture_every, run.num_steps):
        writer.images(step, draw())
      if watch.asked or _due(step, run.checkpoint_every, run.num_steps):
        writer.flush()
        saver.save(step)
      if watch.asked and step < run.num_steps:
        raise preemption.Preempted(
          f'{title} was asked to stop (SIGTERM) and is saved at step {step} of '
          f'{run.num_steps}: the same command goes on from there.'
        )


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
      return self._trainer.replica_step(kind, batch, step)

    metrics = self._strategy.run(replica, args=(batch,))
    self._names[kind] = sorted(metrics)
    return tf.stack(
      [
        self._strategy.reduce(
          tf.distribute.ReduceOp.SUM, metrics[name], axis=None
        )
        for name in self._names[kind]
      ]
    )


class _Means:
  """Means of the metrics since the last row."""

  def __init__(self):
    self._values = collections.defaultdict(list)
    self._steps = 0

  def add(self, rows: dict[str, np.ndarray]):
    for name, values in rows.items():
      self._values[name].append(values)
    self._steps += len(next(iter(rows.values())))

  def newest(self, name: str) -> float:
    return float(self._values[name][-1][-1])

  def take(self) -> dict[str, float]:
    row = {
      name: float(np.mean(np.concatenate(values)))
      for name, values in self._values.items()
    }
    row['steps'] = self._steps
    self.__init__()
    return row


def _chunk_end(step: int, run: RunConfig) -> int:
  """The first step after `step` at which the host has something to do."""
  intervals = (
    run.steps_per_loop,
    run.log_every,
    run.eval_every,
    run.picture_every,
    run.checkpoint_every,
  )
  ends = [(step // every + 1) * every for every in intervals if every]
  return min(run.num_steps, *ends)


def _due(step: int, every: int, last: int) -> bool:
  return step == last or bool(every and step % every == 0)


def _stop_if_not_finite(rows: dict[str, np.ndarray], step: int):
  for name, values in rows.items():
    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
      raise NonFiniteError(
        f'{name} became {values[wrong[0]]} at step {step + wrong[0]}: '
        'training stopped, and the last checkpoint is from before that. Try '
        'a lower learning rate, a longer warm-up or float32.'
      )
