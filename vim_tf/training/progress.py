"""Progress with the time left: a bar on a terminal, lines in a log."""

import sys
import time

from absl import logging
import tqdm

_SECONDS_BETWEEN_LINES = 30.0


class Bar:
  """Shows how far a run is.

  Args:
    title: What is running.
    step: Where it starts.
    total: Where it ends.
    unit: What is counted.
  """

  def __init__(self, title: str, step: int, total: int, unit: str = 'step'):
    self._title = title
    self._unit = unit
    self._start = self._step = step
    self._total = total
    self._started = self._spoke = time.monotonic()
    self._timed = False  # Whether steps were timed without what came before.
    self._bar = None
    if sys.stderr.isatty():
      self._bar = tqdm.tqdm(
        desc=title,
        initial=step,
        total=total,
        unit=unit,
        smoothing=0.05,
        dynamic_ncols=True,
      )

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    if self._bar is not None:
      self._bar.close()

  def update(self, step: int, loss: float | None = None):
    """Moves to `step`; `loss` is the newest one, if this is training."""
    if self._bar is not None:
      if loss is not None:
        self._bar.set_postfix(loss=f'{loss:.4g}', refresh=False)
      self._bar.update(step - self._step)
    self._step = step
    now = time.monotonic()
    first_time_left = self._timed and self._spoke == self._started
    if self._bar is None and (
      first_time_left
      or now - self._spoke > _SECONDS_BETWEEN_LINES
      or step == self._total
    ):
      self._spoke = now
      logging.info(
        '%s: %s %d of %d%s%s',
        self._title,
        self._unit,
        step,
        self._total,
        '' if loss is None else f', loss {loss:.4g}',
        self._pace(now) if self._timed or step == self._total else '',
      )
    if not self._timed:  # To compile took its time, which is not to come again.
      self._timed = True
      self._start, self._started, self._spoke = step, now, now

  def _pace(self, now: float) -> str:
    per_step = (now - self._started) / max(1, self._step - self._start)
    left = tqdm.tqdm.format_interval(per_step * (self._total - self._step))
    return f', {1.0 / per_step:.3g} {self._unit}s/s, {left} left'
