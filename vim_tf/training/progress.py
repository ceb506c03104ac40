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
    if self._bar is None and (
      now - self._spoke > _SECONDS_BETWEEN_LINES or step == self._total
    ):
      self._spoke = now
      per_step = (now - self._started) / max(1, step - self._start)
      logging.info(
        '%s: %s %d of %d%s, %.3g %ss/s, %s left',
        self._title,
        self._unit,
        step,
        self._total,
        '' if loss is None else f', loss {loss:.4g}',
        1.0 / per_step,
        self._unit,
        tqdm.tqdm.format_interval(per_step * (self._total - step)),
      )
