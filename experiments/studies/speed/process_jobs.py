"""Jobs that start a process: how long a user waits before anything happens."""

from collections.abc import Sequence
import dataclasses
import itertools
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from experiments.studies.speed import timing, untrained
from experiments.studies.speed.sizes import Sizes
from experiments.studies.speed.timing import Job

_POLL = 0.01  # Seconds.


@dataclasses.dataclass(frozen=True)
class Process:
  """Processes have no settings: they run as a user starts them."""


def start_tensorflow(sizes: Sizes, settings: Process) -> Job:
  """A Python that imports TensorFlow alone: the floor of every binary."""
  del sizes, settings
  return _job(['-c', 'import tensorflow'])


def start_sample(sizes: Sizes, settings: Process) -> Job:
  """A Python that imports all that `sample` imports."""
  del sizes, settings
  return _job(['-c', 'import experiments.sample'])


def first_sample(sizes: Sizes, settings: Process, folder: pathlib.Path) -> Job:
  """`sample`, from its start to the PNG file of its first image."""
  del settings
  vim = untrained.write(sizes, folder)
  numbers = itertools.count()

  def call():
    out = folder / f'samples-{next(numbers)}'
    return _run(
      ['-m', 'experiments.sample', f'--workdir={vim}', f'--out={out}']
      + ['--count=1', '--batch_size=1']
      + (['--classes=0'] if sizes.stage2.model.num_classes else [])
    )

  return Job(call, unit='image', warm_up=False, own_process=True)


def _job(arguments: Sequence[str]) -> Job:
  return Job(lambda: _run(arguments), warm_up=False, own_process=True)


def _run(arguments: Sequence[str]) -> int:
  """Runs Python to its end; returns the most memory that it had, in bytes.

  Raises:
    RuntimeError: If it failed; with the last line that it printed.
  """
  path = os.pathsep.join(filter(None, sys.path))
  with tempfile.TemporaryFile('w+') as errors:
    process = subprocess.Popen(
      [sys.executable, *arguments],
      env={**os.environ, 'PYTHONPATH': path},
      stdout=subprocess.DEVNULL,
      stderr=errors,
    )
    # Not what `wait4` tells: that counts the memory of this process as well,
    # which the new one has until it is another program.
    peak = 0
    while process.poll() is None:
      peak = timing.peak_bytes(process.pid) or peak
      time.sleep(_POLL)
    if process.returncode:
      errors.seek(0)
      lines = errors.read().strip().splitlines() or ['it printed nothing']
      raise RuntimeError(f'{" ".join(arguments)} failed: {lines[-1]}')
  return peak
