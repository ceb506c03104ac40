"""What a log without a terminal is told of a run's progress."""

import contextlib
import io
import time
from unittest import mock

from absl.testing import absltest

from vim_tf.training import progress


class ProgressTest(absltest.TestCase):
  def _lines(self, *updates, **kwargs) -> list[str]:
    with (
      self.assertLogs('absl', 'INFO') as logs,
      contextlib.redirect_stderr(io.StringIO()),
      progress.Bar('VIM', 0, 10, **kwargs) as bar,
    ):
      for update in updates:
        bar.update(*update)
    return [record.getMessage() for record in logs.records]

  def test_training_has_a_loss(self):
    lines = self._lines((4, 0.5), (10, 0.25))
    self.assertLen(lines, 1)  # The first has no pace yet.
    self.assertRegex(
      lines[0], r'^VIM: step 10 of 10, loss 0\.25, \S+ steps/s, 00:00 left$'
    )

  def test_other_work_counts_what_it_does(self):
    lines = self._lines((4,), (10,), unit='image')
    self.assertRegex(lines[-1], r'^VIM: image 10 of 10, \S+ images/s, 00:00 l')

  def test_the_time_left_leaves_out_what_compiling_took(self):
    times = iter([0.0, 100.0, 106.0, 108.0, 150.0])
    with mock.patch.object(time, 'monotonic', lambda: next(times)):
      lines = self._lines((4, 0.5), (7, 0.4), (8, 0.3), (9, 0.3))
    self.assertEqual(
      lines,
      [
        'VIM: step 4 of 10, loss 0.5',
        'VIM: step 7 of 10, loss 0.4, 0.5 steps/s, 00:06 left',
        'VIM: step 9 of 10, loss 0.3, 0.1 steps/s, 00:10 left',
      ],
    )


if __name__ == '__main__':
  absltest.main()
