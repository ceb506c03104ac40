"""Times jobs one after the other, and the memory that they need."""

from collections.abc import Callable, Sequence
import contextlib
import ctypes
import dataclasses
import gc
import pathlib
import time

import numpy as np

from experiments.studies.speed import counts

_CLEAR = pathlib.Path('/proc/self/clear_refs')
_RESET_PEAK = '5'  # See proc(5), /proc/PID/clear_refs.


@dataclasses.dataclass(frozen=True)
class Job:
  """Something to be timed, ready to run.

  Attributes:
    call: Does the work once, to its end.
    work: The least that one call has to do; None: there is no formula.
    unit: What a call makes: 'image', 'code', ...
    units: How many of them.
    warm_up: Whether the first call also compiles, so that it counts apart.
  """

  call: Callable[[], None]
  work: counts.Work | None = None
  unit: str = 'call'
  units: int = 1
  warm_up: bool = True


@dataclasses.dataclass(frozen=True)
class Times:
  """What was measured of a job.

  Attributes:
    seconds: Of each call, in order, without the first one if it counts apart.
    first: Seconds of the call that compiled; None if none did.
    peak_bytes: The most memory that the process had in a call; None where
      the system does not tell.
  """

  seconds: tuple[float, ...]
  first: float | None = None
  peak_bytes: int | None = None

  @property
  def calls(self) -> int:
    return len(self.seconds)

  @property
  def median(self) -> float:
    return float(np.median(self.seconds))

  @property
  def fastest(self) -> float:
    return min(self.seconds)

  @property
  def slowest(self) -> float:
    return max(self.seconds)


def measure(
  jobs: Sequence[Job], *, seconds: float, min_calls: int
) -> list[Times]:
  """Runs jobs in turn, so that a disturbance from outside meets all of them.

  Args:
    jobs: What to run; each as often as the others.
    seconds: Rounds begin until so much time has passed, warm-up excluded.
    min_calls: Rounds at least.

  Returns:
    The times of each job.
  """
  firsts = [_timed(job)[0] if job.warm_up else None for job in jobs]
  taken = [[] for _ in jobs]
  peaks = [[] for _ in jobs]
  start = time.perf_counter()
  while len(taken[0]) < min_calls or time.perf_counter() - start < seconds:
    for i, job in enumerate(jobs):
      elapsed, peak = _timed(job)
      taken[i].append(elapsed)
      if peak is not None:
        peaks[i].append(peak)
  return [
    Times(tuple(t), first, max(p, default=None))
    for t, first, p in zip(taken, firsts, peaks)
  ]


def ratios(one: Times, other: Times) -> list[float]:
  """Seconds of `other` over those of `one`, pair by pair."""
  return [b / a for a, b in zip(one.seconds, other.seconds, strict=True)]


def resident_bytes() -> int | None:
  """Memory that this process needs now; None where the system does not tell."""
  gc.collect()
  with contextlib.suppress(AttributeError):  # What is free goes back: glibc.
    ctypes.CDLL(None).malloc_trim(0)
  return _status('VmRSS')


def _timed(job: Job) -> tuple[float, int | None]:
  """Seconds and peak memory of one call."""
  known = _reset_peak()
  start = time.perf_counter()
  job.call()
  elapsed = time.perf_counter() - start
  return elapsed, _status('VmHWM') if known else None


def _reset_peak() -> bool:
  try:
    _CLEAR.write_text(_RESET_PEAK)
  except OSError:
    return False
  return True


def _status(name: str) -> int | None:
  try:
    lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  except OSError:
    return None
  for line in lines:
    if line.startswith(name + ':'):
      return int(line.split()[1]) * 1024
  return None
