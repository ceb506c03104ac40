"""Runs in forked processes: TensorFlow is imported once, and started anew.

A process may fork only before TensorFlow computes anything in it, because its
threads would be missing in the child. So the parent never lets it compute.
"""

from collections.abc import Callable
import os
import pathlib
import signal
import sys
import time
import traceback

_POLL_SECONDS = 0.002


class Fork:
  """A function that runs in a child process.

  Args:
    function: What to run; its exceptions end the child with status 1.
    log: Where what it prints is appended.
  """

  def __init__(self, function: Callable[[], object], log: pathlib.Path):
    self.log = log
    self._status = None
    sys.stdout.flush()
    sys.stderr.flush()
    self.pid = os.fork()
    if not self.pid:
      _run(function, log)

  def ended(self) -> bool:
    """Whether it has ended."""
    if self._status is None:
      pid, status = os.waitpid(self.pid, os.WNOHANG)
      if pid:
        self._status = os.waitstatus_to_exitcode(status)
    return self._status is not None

  def wait(self) -> int:
    """Its exit status; negative for a signal."""
    while not self.ended():
      time.sleep(_POLL_SECONDS)
    return self._status

  def wait_until(
    self,
    condition: Callable[[], bool],
    seconds: float,
    every: float = _POLL_SECONDS,
  ) -> bool:
    """Waits for a condition; False if the child ended or it takes longer."""
    end = time.monotonic() + seconds
    while not condition():
      if self.ended() or time.monotonic() > end:
        return False
      time.sleep(every)
    return True

  def kill(self, number: int = signal.SIGKILL):
    """Sends a signal, if it has not ended."""
    if not self.ended():
      os.kill(self.pid, number)


def finish(function: Callable[[], object], log: pathlib.Path):
  """Runs a function in a child to its end.

  Raises:
    RuntimeError: If it failed.
  """
  status = Fork(function, log).wait()
  if status:
    raise RuntimeError(f'ended with {status}:\n{log.read_text()[-3000:]}')


def _run(function, log):
  """The child's whole life."""
  status = 1
  try:
    with open(log, 'ab') as file:
      os.dup2(file.fileno(), 1)
      os.dup2(file.fileno(), 2)
    function()
    status = 0
  except BaseException:
    traceback.print_exc()
  finally:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
