"""SIGTERM as a request: save, then stop with a status that says 'restart me'.

Preemptible machines send it some seconds before they go, schedulers and
Ctrl-C's kinder sibling `kill` do, too.
"""

import signal
import threading

from vim_tf.config import UserError

EXIT_STATUS = 75
"""EX_TEMPFAIL of sysexits.h: not done, but nothing is wrong. Start it again."""


class Restart(UserError):
  """A run that ended early through no fault of its own: start it again."""


class Preempted(Restart):
  """A run was asked to stop, and has saved what it did."""


class Watch:
  """While it is entered, SIGTERM does not kill but sets `asked`.

  Handlers belong to the main thread: in others it watches nothing.

  Attributes:
    asked: Whether SIGTERM came.
  """

  def __init__(self):
    self.asked = False
    self._before = None

  def __enter__(self) -> 'Watch':
    if threading.current_thread() is threading.main_thread():
      self._before = signal.signal(signal.SIGTERM, self._note)
    return self

  def __exit__(self, *unused):
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)

  def _note(self, *unused):
    self.asked = True
