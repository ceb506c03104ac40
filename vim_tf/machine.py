"""The machine that this runs on."""

import contextlib
import os
import pathlib
import platform


def cpu() -> str:
  """The processor's name, as Linux tells it; elsewhere its kind."""
  with contextlib.suppress(OSError):
    for line in pathlib.Path('/proc/cpuinfo').read_text().splitlines():
      if line.startswith('model name'):
        return line.partition(':')[2].strip()
  return platform.processor() or platform.machine()


def cores() -> int:
  """Cores that this process may run on; macOS tells only how many there are."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
