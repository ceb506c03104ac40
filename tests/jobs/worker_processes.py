"""Binaries in processes of their own, also as the workers of one run."""

from collections.abc import Sequence
import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

_POLL_SECONDS = 0.2


@dataclasses.dataclass
class Process:
  """A binary that was started.

  Attributes:
    popen: The process.
    log: What it prints, both streams.
  """

  popen: subprocess.Popen
  log: pathlib.Path

  def wait(self, seconds: float) -> int:
    """Its exit status, negative for a signal.

    Raises:
      AssertionError: If it has not ended by then; it is killed.
    """
    try:
      return self.popen.wait(seconds)
    except subprocess.TimeoutExpired as error:
      self.popen.kill()
      raise AssertionError(f'still running:\n{self.text()}') from error

  def text(self) -> str:
    return self.log.read_text(errors='replace')


def start(
  module: str, *arguments: str, environment: dict[str, str] | None = None
) -> Process:
  """Starts `python -m module arguments`."""
  handle, name = tempfile.mkstemp(suffix='.log')
  with os.fdopen(handle, 'wb') as log:
    popen = subprocess.Popen(
      [sys.executable, '-m', module, *arguments],
      env={
        **os.environ,
        'PYTHONPATH': os.pathsep.join(sys.path),
        **(environment or {}),
      },
      stdout=log,
      stderr=subprocess.STDOUT,
    )
  return Process(popen, pathlib.Path(name))


def start_workers(count: int, module: str, *arguments: str) -> list[Process]:
  """Starts the workers of one run on this machine's loopback."""
  hosts = [f'127.0.0.1:{port}' for port in _free_ports(count)]
  return [
    start(
      module,
      '--strategy=multi_worker',
      *arguments,
      environment={
        'TF_CONFIG': json.dumps(
          {
            'cluster': {'worker': hosts},
            'task': {'type': 'worker', 'index': index},
          }
        )
      },
    )
    for index in range(count)
  ]


def wait_for(
  found, processes: Sequence[Process], seconds: float, what: str
) -> None:
  """Waits until `found()` is true.

  Raises:
    AssertionError: If it is not in time, or a process ended before.
  """
  end = time.monotonic() + seconds
  while not found():
    ended = [p for p in processes if p.popen.poll() is not None]
    if ended or time.monotonic() > end:
      logs = '\n'.join(process.text() for process in processes)
      for process in processes:
        process.popen.kill()
      raise AssertionError(f'waited in vain for {what}:\n{logs}')
    time.sleep(_POLL_SECONDS)


def _free_ports(count: int) -> list[int]:
  sockets = [socket.socket() for _ in range(count)]
  try:
    for one in sockets:
      one.bind(('127.0.0.1', 0))
    return [one.getsockname()[1] for one in sockets]
  finally:
    for one in sockets:
      one.close()
