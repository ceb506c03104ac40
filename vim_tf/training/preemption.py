"""SIGTERM and Ctrl-C: a run saves and says 'restart me', other jobs end.

Preemptible machines send SIGTERM some seconds before they go; schedulers and
`kill` do, too. Either is acknowledged at once, even where TensorFlow is busy
for minutes, and a second Ctrl-C ends at once.
"""

from collections.abc import Callable
import contextlib
import os
import signal
import sys
import threading

from vim_tf.config import UserError

EXIT_STATUS = 75
"""EX_TEMPFAIL of sysexits.h: not done, but nothing is wrong. Start it again."""
INTERRUPTED = 130
"""What shells call the end by Ctrl-C."""


class Restart(UserError):
  """A run that ended early through no fault of its own: start it again."""


class Preempted(Restart):
  """A run was asked to stop, and has saved what it did."""


class _Signals:
  """Signals that are handled while it is entered.

  Python calls handlers between two instructions of the main thread, which may
  be inside of TensorFlow for long. What must not wait is said by a thread.

  Handlers belong to the main thread: in others nothing changes.

  Args:
    handlers: What the main thread does, by signal.
    acknowledgement: Printed at the first signal, from its name to a line.
  """

  def __init__(
    self,
    handlers: dict[signal.Signals, Callable],
    acknowledgement: Callable[[str], str],
  ):
    self._handlers = handlers
    self._acknowledgement = acknowledgement
    self._before = {}
    self._thread = None
    self._heard = False

  def __enter__(self):
    if threading.current_thread() is threading.main_thread():
      reader, self._writer = os.pipe()
      os.set_blocking(self._writer, False)
      self._fd_before = signal.set_wakeup_fd(
        self._writer, warn_on_full_buffer=False
      )
      self._thread = threading.Thread(
        target=self._listen, args=[reader], daemon=True
      )
      self._thread.start()
      for number, handler in self._handlers.items():
        # Shells have jobs in the background ignore Ctrl-C.
        if signal.getsignal(number) != signal.SIG_IGN:
          self._before[number] = signal.signal(number, handler)
    return self

  def __exit__(self, *unused):
    if self._thread is not None:
      for number, handler in self._before.items():
        signal.signal(number, handler)
      signal.set_wakeup_fd(self._fd_before)
      os.close(self._writer)
      self._thread.join()  # It may have something to say yet.

  def _listen(self, reader: int):
    while number := os.read(reader, 1):  # Until the other end is closed.
      if number[0] in self._handlers:
        self._hear(signal.Signals(number[0]))
    os.close(reader)

  def _hear(self, number: signal.Signals):
    if not self._heard:
      self._heard = True
      name = 'Ctrl-C' if number == signal.SIGINT else number.name
      _say(self._acknowledgement(name))
    elif number == signal.SIGINT:
      _say('Ended at once.')
      os._exit(INTERRUPTED)


class _Asked(BaseException):
  """What breaks off an evaluation; no code means to catch it."""


class Watch(_Signals):
  """While it is entered, SIGTERM and Ctrl-C do not end, but set `asked`.

  Attributes:
    asked: What came, 'SIGTERM' or 'Ctrl-C'; '': nothing.
  """

  def __init__(self):
    self.asked = ''
    self._breaks = False
    super().__init__(
      {signal.SIGTERM: self._note, signal.SIGINT: self._note},
      '{}: stopping after this chunk of steps, then saving; Ctrl-C again ends '
      'at once.'.format,
    )

  @contextlib.contextmanager
  def breaks(self):
    """What is within, such as an evaluation, is broken off by a signal."""
    self._breaks = True
    try:
      yield
    except _Asked:
      pass
    finally:
      self._breaks = False

  def _note(self, number, unused_frame):
    self.asked = 'Ctrl-C' if number == signal.SIGINT else 'SIGTERM'
    if self._breaks:
      self._breaks = False
      raise _Asked


class Interrupts(_Signals):
  """While it is entered, either is acknowledged; see `leave` for the end.

  Attributes:
    came: Whether one did.
  """

  def __init__(self):
    self.came = False
    self._status = INTERRUPTED
    super().__init__(
      {signal.SIGINT: self._note, signal.SIGTERM: self._note},
      '{}: stopping.'.format,
    )

  def _note(self, number, unused_frame):
    self.came = True
    if number == signal.SIGTERM:
      self._status = EXIT_STATUS
    raise KeyboardInterrupt

  def leave(self):
    """Ends the process, without a word of what it was in the middle of.

    After SIGTERM with the status that says 'start it again'.
    """
    self.__exit__()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(self._status)


def _say(line: str):
  # On a terminal there may be a progress bar in the line.
  start = '\n' if sys.stderr.isatty() else ''
  print(f'{start}{line}', file=sys.stderr, flush=True)
