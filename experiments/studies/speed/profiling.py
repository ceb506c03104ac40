"""Which operations the time of a job goes to."""

from collections.abc import Iterable
import pathlib
import re
import tempfile
import time

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from experiments.studies.speed.timing import Job

_HOST = '/host:CPU'
_OPERATION = re.compile(r'[\w./-]+:(\w+)')  # Name in the graph, then its type.
# XLA's kernels have no event of their own: they run while they are started.
_STARTED = 'ExecutorState::ProcessAsync::Start'
COMPILED = '(XLA, starting of functions)'
_PICOSECOND = 1e-12
_SETTLE = 0.05  # Seconds.

Event = tuple[int, int, str]
"""Start and duration in picoseconds of something on a thread, and its name."""


def operations(job: Job) -> list[dict]:
  """Calls a job once under TensorFlow's profiler.

  Args:
    job: It must have run before, or tracing is what is seen.

  Returns:
    For each type of operation, the longest first: 'operation', 'seconds' (all
    runs on all threads, without what ran within them), 'runs', and 'share' of
    the whole call, 0 to the number of threads. Types are those that run:
    TensorFlow renames what it hands to oneDNN (`_MklMatMul`). Functions that
    XLA compiled, within another function, are `COMPILED` together.
  """
  with tempfile.TemporaryDirectory() as folder:
    tf.profiler.experimental.start(folder)
    start = time.perf_counter()
    try:
      job.call()
    finally:
      whole = time.perf_counter() - start
      # What gave the call its result is an event only once it has returned on
      # its own thread, too.
      time.sleep(_SETTLE)
      tf.profiler.experimental.stop()
    runs = {}
    for path in pathlib.Path(folder).rglob('*.xplane.pb'):
      space = xplane_pb2.XSpace.FromString(path.read_bytes())
      for events in _threads(space):
        for name, own in own_times(events):
          runs.setdefault(name, []).append(own)
  found = []
  for name, own in runs.items():
    seconds = sum(own) * _PICOSECOND
    found.append(
      {
        'operation': name,
        'seconds': seconds,
        'runs': len(own),
        'share': seconds / whole,
      }
    )
  return sorted(found, key=lambda one: -one['seconds'])


def own_times(events: Iterable[Event]) -> list[tuple[str, int]]:
  """Picoseconds of each event of one thread, without those within it.

  Args:
    events: In any order; two of them lie apart or one within the other.

  Returns:
    Name and time of each, in the order in which they began.
  """
  # Of two that begin together the longer one holds the other.
  ordered = sorted(events, key=lambda event: (event[0], -event[1]))
  own = [duration for _, duration, _ in ordered]
  within = []  # Places and ends of the events that hold the next one.
  for i, (start, duration, _) in enumerate(ordered):
    while within and within[-1][1] <= start:
      within.pop()
    if within:
      own[within[-1][0]] -= duration
    within.append((i, start + duration))
  return [(name, left) for (_, _, name), left in zip(ordered, own)]


def _threads(space: xplane_pb2.XSpace) -> Iterable[list[Event]]:
  """The operations that ran on each thread of the CPU."""
  for plane in space.planes:
    if not plane.name.startswith(_HOST):
      continue
    names = {i: data.name for i, data in plane.event_metadata.items()}
    for line in plane.lines:
      yield [
        (event.offset_ps, event.duration_ps, name)
        for event in line.events
        if (name := _operation(names[event.metadata_id]))
      ]


def _operation(name: str) -> str | None:
  """The type of the operation that an event is of; None: of none."""
  if name == _STARTED:
    return COMPILED
  match = _OPERATION.fullmatch(name)
  return match[1] if match else None
