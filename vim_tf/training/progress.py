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
  """

  def __init__(self, title: str, step: int, total: int):
    self._title = title
    self._start = self._step = step
    self._total = total
    self._started = self._spoke = time.monotonic()
    self._bar = None
    if sys.stderr.isatty():
      self._bar = tqdm.tqdm(
        desc=title,
        initial=step,
        total=total,
        unit='step',
        smoothing=0.05,
        dynamic_ncols=True,
      )

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    if self._bar is not None:
      self._bar.close()

  def update(self, step: int, loss: float):
    """Moves to `step`; `loss` is the newest one."""
    if self._bar is not None:
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
        '%s: step %d of %d, loss %.4g, %.3g steps/s, %s left',
        self._title,
        step,
        self._total,
        loss,
        1.0 / per_step,
        tqdm.tqdm.format_interval(per_step * (self._total - step)),
      )
