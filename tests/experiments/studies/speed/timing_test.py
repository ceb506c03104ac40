"""Times, their order, and the memory beside them."""

import itertools
import time
from unittest import mock

from absl.testing import absltest
import numpy as np

from experiments.studies.speed import timing
from experiments.studies.speed.timing import Job

_BLOCK = 200 * 2**20
_KINDS = ('float32', 'bfloat16', 'memory')


class _Clock:
  """A clock that goes when it is told to."""

  def __init__(self):
    self._seconds = 0.0

  def now(self) -> float:
    return self._seconds

  def pass_by(self, seconds: float):
    self._seconds += seconds


class TimingTest(absltest.TestCase):
  def test_in_turn_after_one_call_each(self):
    order = []
    jobs = [
      Job(lambda: order.append('a')),
      Job(lambda: order.append('b')),
      Job(lambda: order.append('c')),
    ]
    found = timing.measure(jobs, seconds=0.0, min_calls=3)
    self.assertEqual(''.join(order), 4 * 'abc')
    self.assertEqual([len(times.seconds) for times in found], [3, 3, 3])
    self.assertGreater(found[0].first, 0.0)

  def test_goes_on_for_the_time_that_is_given(self):
    clock = _Clock()
    job = Job(lambda: clock.pass_by(0.25))
    with mock.patch.object(time, 'perf_counter', clock.now):
      (times,) = timing.measure([job], seconds=5.0, min_calls=1)
      (more,) = timing.measure([job], seconds=5.0, min_calls=30)
    self.assertEqual((times.first, times.seconds), (0.25, 20 * (0.25,)))
    self.assertEqual(more.seconds, 30 * (0.25,))

  def test_peak_memory_of_each_job(self):
    before = timing.resident_bytes()
    if before is None:
      self.skipTest('This system does not tell of memory.')

    def allocate():
      np.ones([_BLOCK], np.uint8)  # Gone at once.

    large, small = timing.measure(
      [Job(allocate), Job(lambda: None)], seconds=0.0, min_calls=3
    )
    self.assertGreaterEqual(large.peak_bytes - before, 0.95 * _BLOCK)
    self.assertLess(small.peak_bytes - before, 0.5 * _BLOCK)


class CeilingsTest(absltest.TestCase):
  def test_the_highest_is_kept(self):
    ceilings = timing.Ceilings(matmul=32, memory=2**12)
    for kind in _KINDS:
      rates = [ceilings.measure(kind) for _ in range(4)]
      self.assertGreater(min(rates), 0.0)
      self.assertEqual(ceilings.best[kind], max(rates))

  def test_rates_are_of_the_work_of_a_call(self):
    clock = itertools.count(step=0.5)  # Each call takes half a second.
    ceilings = timing.Ceilings(matmul=32, memory=2**12)
    with mock.patch.object(time, 'perf_counter', lambda: next(clock)):
      rates = [ceilings.measure(kind) for kind in _KINDS]
    product = 2 * (2 * 32**3)
    self.assertEqual(rates, [product, product, 2 * 2**12])


if __name__ == '__main__':
  absltest.main()
