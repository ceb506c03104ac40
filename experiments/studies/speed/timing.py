"""Times calls, beside what the machine can do at best and the memory."""

from collections.abc import Callable, Sequence
import contextlib
import ctypes
import dataclasses
import gc
import pathlib
import time

import tensorflow as tf

from experiments.studies.speed.counts import MEMORY, Work
from vim_tf.nn import replicas

_CLEAR = pathlib.Path('/proc/self/clear_refs')
_RESET_PEAK = '5'  # See proc(5), /proc/PID/clear_refs.
_CALLS = 5  # Of a ceiling.


@dataclasses.dataclass(frozen=True)
class Job:
  """Something to be timed, ready to run.

  Attributes:
    call: Does the work once, to its end.
    work: The least that one call has to do.
    unit: What a call makes: 'image', 'code', ...
    units: How many of them.
  """

  call: Callable[[], object]
  work: Work = Work(0.0)
  unit: str = 'call'
  units: int = 1


@dataclasses.dataclass(frozen=True)
class Times:
  """What was measured of a job.

  Attributes:
    first: Seconds of the first call, which compiles.
    seconds: Of each of the others, in order.
    peak_bytes: The most memory that the process had in one of them; None where
      the system does not tell.
  """

  first: float
  seconds: tuple[float, ...]
  peak_bytes: int | None = None


def measure(
  jobs: Sequence[Job], *, seconds: float, min_calls: int
) -> list[Times]:
  """Runs jobs in turn, so that a disturbance from outside meets all of them.

  Args:
    jobs: What to run; each as often as the others.
    seconds: Rounds begin until so much time has passed, first calls excluded.
    min_calls: Rounds at least.

  Returns:
    The times of each job.
  """
  firsts = [_timed(job)[0] for job in jobs]
  taken = [[] for _ in jobs]
  start = time.perf_counter()
  while len(taken[0]) < min_calls or time.perf_counter() - start < seconds:
    for job, found in zip(jobs, taken):
      found.append(_timed(job))
  return [
    Times(
      first,
      tuple(elapsed for elapsed, _ in found),
      max((peak for _, peak in found if peak is not None), default=None),
    )
    for first, found in zip(firsts, taken)
  ]


def _timed(job: Job) -> tuple[float, int | None]:
  """Seconds and peak memory of one call."""
  known = _reset_peak()
  start = time.perf_counter()
  job.call()
  elapsed = time.perf_counter() - start
  return elapsed, _status('VmHWM') if known else None


# ------------------------------------------------------------------ ceilings


class Ceilings:
  """What the machine can do at best, with all of TensorFlow's threads.

  A ceiling is the best of some calls: one that something else disturbed says
  nothing about the machine. TensorFlow's own product is taken, because that is
  what the models are made of.

  Args:
    matmul: Rows and columns of the square matrices that are multiplied.
    memory: Bytes that are read; several times the last cache.

  Attributes:
    best: The highest rate of each kind so far, in FLOP/s or bytes/s.
  """

  def __init__(self, matmul: int, memory: int):
    self._matmul, self._memory = matmul, memory // 4
    self.best: dict[str, float] = {}
    self._probes = {}

  def measure(self, kind: str) -> float:
    """One more measurement: FLOP/s of 'float32' or 'bfloat16', or bytes/s."""
    if kind not in self._probes:
      self._probes[kind] = self._ways(kind)
    parts = range(replicas.streams(tf.distribute.get_strategy()))
    rates = []
    for call, amount in self._probes[kind]:
      call()  # Traces, and touches the memory.
      for _ in range(_CALLS):
        start = time.perf_counter()
        replicas.at_once(lambda _, call=call: call(), parts)
        rates.append(len(parts) * amount / (time.perf_counter() - start))
    self.best[kind] = max([*rates, self.best.get(kind, 0.0)])
    return max(rates)

  def _ways(self, kind: str) -> list[tuple[Callable[[], object], int]]:
    """Functions, each with the FLOPs or bytes of one call of it."""
    product = tf.function(tf.matmul, autograph=False)
    if kind == MEMORY:
      side = max(1, int(self._memory**0.5))
      values = tf.ones([side, side])
      row = tf.ones([1, side])
      # The largest element takes fewer instructions a byte than the sum; on
      # some processors a product of one row still reads faster.
      largest = tf.function(tf.reduce_max, autograph=False)
      return [
        (lambda: largest(values).numpy(), 4 * side**2),
        (lambda: product(row, values).numpy(), 4 * side**2),
      ]
    size = self._matmul
    matrix = tf.cast(tf.random.stateless_normal([size, size], [0, 0]), kind)
    return [(lambda: product(matrix, matrix).numpy(), 2 * size**3)]


# -------------------------------------------------------------------- memory


def resident_bytes() -> int | None:
  """Memory that this process needs now; None where the system does not tell."""
  gc.collect()
  with contextlib.suppress(AttributeError):  # What is free goes back: glibc.
    ctypes.CDLL(None).malloc_trim(0)
  return _status('VmRSS')


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
