"""What a log without a terminal is told of a run's progress."""

import contextlib
import io
import re
import time
from unittest import mock

from absl.testing import absltest

from vim_tf.training import summaries


class ProgressTest(absltest.TestCase):
  def test_the_time_left_is_that_of_the_kinds_of_steps_to_come(self):
    """A second, later five, and nine with R1; evaluations beside them."""
    total, full, every = 2000, 1500, 100
    costs = {'plain': 1.0, 'full': 5.0, 'full+r1': 9.0}

    def kind(step):
      if step < full:
        return 'plain'
      return 'full' if step % 16 else 'full+r1'

    clock, lefts = 0.0, {}
    with (
      mock.patch.object(time, 'monotonic', lambda: clock),
      self.assertLogs('absl', 'INFO') as logs,
      contextlib.redirect_stderr(io.StringIO()),
      summaries.Bar('VIM', 0, total, kind=kind) as bar,
    ):
      seen = set()
      for step in range(total):
        seconds = costs[kind(step)]
        seconds += 40.0 * (kind(step) not in seen)  # To compile it.
        seen.add(kind(step))
        clock += seconds
        bar.timed(step, 1, seconds)
        if (step + 1) % every == 0:
          clock += 30.0
        bar.update(step + 1)
    for record in logs.records:
      found = re.search(
        r'step (\d+) .*, (over )?(\S+) left', record.getMessage()
      )
      if found[1] == '1':  # It was compiled.
        self.assertEqual(found[3], '?')
        continue
      parts = [int(part) for part in found[3].split(':')]
      seconds = sum(60**i * part for i, part in enumerate(reversed(parts)))
      lefts[int(found[1])] = bool(found[2]), seconds
    for step, (over, left) in lefts.items():
      expected = sum(costs[kind(i)] for i in range(step, total))
      expected += 30 * (total - step) / every
      # Until the second step with R1 they are too many to be guessed.
      self.assertEqual(over, step <= full + 20, step)
      if over:
        self.assertLess(left, expected)
      else:
        self.assertBetween(left, 0.95 * expected - 1, 1.05 * expected, step)
    self.assertEqual(lefts[total], (False, 0))

  def test_going_back_counts_the_steps_anew(self):
    clock = 0.0
    with (
      mock.patch.object(time, 'monotonic', lambda: clock),
      self.assertLogs('absl', 'INFO') as logs,
      contextlib.redirect_stderr(io.StringIO()),
      summaries.Bar('VIM', 0, 100, kind=lambda step: 'plain') as bar,
    ):
      for step in (0, 20, 40, 20, 40):
        clock += 40.0
        bar.timed(step, 20, 40.0)
        bar.update(step + 20)
    self.assertEndsWith(logs.records[-1].getMessage(), ' 01:20 left')


if __name__ == '__main__':
  absltest.main()
