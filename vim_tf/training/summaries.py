"""What a run tells: TensorBoard, `metrics.jsonl`, pictures, the time left."""

import collections
from collections.abc import Callable
import contextlib
import sys
import time

from absl import logging
import numpy as np
from PIL import Image
import tensorflow as tf
import tqdm

from vim_tf.config import first_line
from vim_tf.training import workdir as workdir_lib

EVALUATED = 'eval/'
"""What the names of figures on held-out images begin with."""

_SECONDS_BETWEEN_LINES = 30.0
_FEW = 0.05  # Share of the steps to come whose time need not be known.
_FORMAT = (
  '{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {left} left, '
  '{rate_fmt}{postfix}]'
)


class Writer:
  """Writes figures and pictures of a run.

  Args:
    workdir: The run's working directory.

  Raises:
    WorkdirError: In each method, if it cannot write (a full disk, say).
  """

  def __init__(self, workdir: workdir_lib.Workdir):
    self._workdir = workdir
    self._events = tf.summary.create_file_writer(str(workdir.events))

  def scalars(self, step: int, values: dict[str, float], prefix: str = ''):
    """Writes named figures as curves and as one row of `metrics.jsonl`."""
    values = {prefix + name: float(value) for name, value in values.items()}
    with self._writing(), self._events.as_default(step=step):
      for name, value in values.items():
        tf.summary.scalar(name, value)
      self._workdir.log({'step': step, **values})

  def images(self, step: int, pictures: dict[str, np.ndarray]):
    """Writes uint8 `[height, width, 3]` pictures, also as PNG files."""
    with self._writing(), self._events.as_default(step=step):
      for name, picture in pictures.items():
        tf.summary.image(name, picture[None])
        Image.fromarray(picture).save(
          self._workdir.samples / f'{name}-{step:09d}.png'
        )

  def flush(self):
    """Makes sure that everything is on disk."""
    with self._writing():
      self._events.flush()

  @contextlib.contextmanager
  def _writing(self):
    try:
      yield
    except (OSError, tf.errors.OpError) as error:
      raise workdir_lib.WorkdirError(
        f'Cannot write to the working directory {self._workdir.path}: '
        f'{first_line(error)}'
      ) from error


def evaluated(workdir: workdir_lib.Workdir, step: int) -> bool:
  """Whether a run has figures on held-out images of a step."""
  return any(
    row['step'] == step and any(key.startswith(EVALUATED) for key in row)
    for row in workdir.rows()
  )


def drawn(workdir: workdir_lib.Workdir, step: int) -> bool:
  """Whether a run has pictures of a step."""
  return any(workdir.samples.glob(f'*-{step:09d}.png'))


class Bar:
  """Shows how far a run is: a bar on a terminal, lines in a log.

  Args:
    title: What is running.
    step: Where it starts.
    total: Where it ends.
    unit: What is counted.
    kind: Gives the kind of a step, where some kinds take longer than others;
      `timed` must then be called, too.
  """

  def __init__(
    self,
    title: str,
    step: int,
    total: int,
    unit: str = 'step',
    kind: Callable[[int], str] = lambda step: '',
  ):
    self._title = title
    self._unit = unit
    self._start = self._step = step
    self._updates = 0
    self._total = total
    self._times = _Times(kind, total)
    self._started = self._spoke = time.monotonic()
    self._bar = None
    if sys.stderr.isatty():
      self._bar = _TerminalBar(
        desc=title,
        initial=step,
        total=total,
        unit=unit,
        smoothing=0.05,
        dynamic_ncols=True,
        bar_format=_FORMAT,
      )

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    if self._bar is not None:
      self._bar.close()

  def timed(self, step: int, count: int, seconds: float):
    """Takes note of how long `count` steps of one kind took, from `step` on."""
    self._times.add(step, count, seconds)

  def rates(self) -> dict[str, float]:
    """Seconds of a step of each kind, as far as they were timed."""
    return self._times.rates()

  def seconds_left(self) -> float | None:
    """Seconds of all steps to come, once nearly all kinds were timed."""
    if not self._times.rates():
      return None
    seconds, unknown = self._times.left()
    return None if unknown > _FEW * (self._total - self._step) else seconds

  def update(self, step: int, loss: float | None = None):
    """Moves to `step`; `loss` is the newest one, if this is training."""
    moved, self._step = step - self._step, step
    self._updates += 1
    now = time.monotonic()
    # The second one is the first that knows the pace: most want to know soon.
    due = self._updates == 2 or now - self._spoke > _SECONDS_BETWEEN_LINES
    if self._bar is not None:
      if loss is not None:
        self._bar.set_postfix(loss=f'{loss:.4g}', refresh=False)
      self._bar.left = self._left(now)
      self._bar.update(moved)
    elif due or step == self._total:
      self._spoke = now
      logging.info(
        '%s: %s %d of %d%s, %.3g %ss/s, %s left',
        self._title,
        self._unit,
        step,
        self._total,
        '' if loss is None else f', loss {loss:.4g}',
        max(1, step - self._start) / max(now - self._started, 1e-9),
        self._unit,
        self._left(now),
      )

  def _left(self, now: float) -> str:
    """The time left in words; 'over' that, if a good part is not known."""
    steps = self._total - self._step
    elapsed = now - self._started
    if not self._times.steps:  # All are alike.
      seconds = elapsed / max(1, self._step - self._start) * steps
      return tqdm.tqdm.format_interval(seconds)
    if not steps:
      return tqdm.tqdm.format_interval(0)
    if not self._times.rates():
      return '?'
    beside = max(0.0, elapsed - self._times.seconds) / self._times.steps
    seconds, unknown = self._times.left()
    text = tqdm.tqdm.format_interval(seconds + beside * steps)
    return f'over {text}' if unknown > _FEW * steps else text


class _TerminalBar(tqdm.tqdm):
  """A bar that is told the time left."""

  left = '?'

  @property
  def format_dict(self):
    return {**super().format_dict, 'left': self.left}


class _Times:
  """How long the steps of each kind take.

  Attributes:
    steps: How many were added.
    seconds: How long they took.
  """

  def __init__(self, kind: Callable[[int], str], total: int):
    self.steps, self.seconds = 0, 0.0
    self._kind = kind
    self._total = total
    self._next = None  # The step that `_ahead` starts at.
    self._ahead = collections.Counter()
    self._taken = {}  # Kind to steps and seconds, without its first call.

  def add(self, step: int, count: int, seconds: float):
    if step != self._next:  # The run begins, or it went back.
      self._ahead = collections.Counter(
        self._kind(i) for i in range(step, self._total)
      )
    kind = self._kind(step)
    self._ahead[kind] -= count
    self._next = step + count
    self.steps += count
    self.seconds += seconds
    if kind in self._taken:
      steps, before = self._taken[kind]
      self._taken[kind] = steps + count, before + seconds
    else:
      self._taken[kind] = 0, 0.0  # It was compiled.

  def rates(self) -> dict[str, float]:
    """Seconds of a step of each kind that was timed."""
    return {kind: t / n for kind, (n, t) in self._taken.items() if n}

  def left(self) -> tuple[float, int]:
    """Seconds of the steps to come, and of how many that is a guess."""
    rates = self.rates()
    guess = max(rates.values())  # Kinds that come late have more parts.
    seconds = sum(n * rates.get(kind, guess) for kind, n in self._ahead.items())
    unknown = sum(n for kind, n in self._ahead.items() if kind not in rates)
    return seconds, unknown
