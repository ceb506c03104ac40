"""Tests of Ctrl-C and SIGTERM, in processes of their own."""

import os
import signal
import subprocess
import sys

from absl.testing import absltest, parameterized

from vim_tf.training import preemption

# A mutex that is locked twice keeps the main thread in C, whatever comes.
_BUSY = """
import ctypes
from vim_tf.training import preemption
mutex = ctypes.create_string_buffer(256)
lock = ctypes.CDLL(None).pthread_mutex_lock
lock(mutex)
with preemption.{name}():
  try:
    print('ready', flush=True)
    lock(mutex)
  except KeyboardInterrupt:
    lock(mutex)
"""
_WRAPPED = """
import signal
from experiments import flags
def main():
  try:
    signal.raise_signal(signal.{name})
  except KeyboardInterrupt as error:
    {wrap}
flags.run(main)
"""

_OTHERS = "raise RuntimeError('of another library')"


def _start(script: str) -> subprocess.Popen:
  return subprocess.Popen(
    [sys.executable, '-c', script],
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    # Whoever starts the tests in the background has SIGINT ignored.
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
  )


class PreemptionTest(parameterized.TestCase):
  @parameterized.parameters(
    ('Watch', signal.SIGINT, 'Ctrl-C: stopping after this chunk'),
    ('Watch', signal.SIGTERM, 'SIGTERM: stopping after this chunk'),
    ('Interrupts', signal.SIGINT, 'Ctrl-C: stopping.'),
    ('Interrupts', signal.SIGTERM, 'SIGTERM: stopping.'),
  )
  def test_acknowledged_at_once_and_ended_by_a_second_one(
    self, name, first, text
  ):
    with _start(_BUSY.format(name=name)) as process:
      self.addCleanup(process.kill)
      self.assertEqual(process.stdout.readline(), 'ready\n')
      process.send_signal(first)
      self.assertStartsWith(process.stderr.readline(), text)
      process.send_signal(signal.SIGINT)
      self.assertEqual(process.wait(), preemption.INTERRUPTED)
      self.assertEqual(process.stderr.read(), 'Ended at once.\n')

  @parameterized.parameters(
    ('SIGINT', 'raise', preemption.INTERRUPTED, 'Ctrl-C'),
    ('SIGINT', _OTHERS, preemption.INTERRUPTED, 'Ctrl-C'),
    ('SIGTERM', 'raise', preemption.EXIT_STATUS, 'SIGTERM'),
  )
  def test_a_job_without_a_loop_ends_in_one_line(
    self, name, wrap, status, told
  ):
    with _start(_WRAPPED.format(name=name, wrap=wrap)) as process:
      _, error = process.communicate()
    self.assertEqual(process.returncode, status, error)
    self.assertEndsWith(error, f'{told}: stopping.\n')
    self.assertNotIn('Traceback', error)

  @parameterized.parameters('experiments', 'export')
  def test_while_it_is_imported(self, package):
    script = f'import {package}, signal\nsignal.raise_signal(signal.SIGINT)'
    with _start(script) as process:
      _, error = process.communicate()
    self.assertEqual(process.returncode, -signal.SIGINT)  # 130 in a shell.
    self.assertEqual(error, 'Ctrl-C: stopping.\n')

  def test_what_is_ignored_stays_so(self):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    self.addCleanup(signal.signal, signal.SIGINT, before)
    with preemption.Interrupts() as interrupts, preemption.Watch() as watch:
      signal.raise_signal(signal.SIGINT)
    self.assertFalse(interrupts.came or watch.asked)

  def test_what_was_there_before_is_there_again(self):
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with preemption.Interrupts(), preemption.Watch() as watch:
      signal.raise_signal(signal.SIGTERM)
      self.assertEqual(watch.asked, 'SIGTERM')
    self.assertEqual(
      [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)], before
    )
    self.assertEqual(signal.set_wakeup_fd(-1), -1)


if __name__ == '__main__':
  absltest.main()
