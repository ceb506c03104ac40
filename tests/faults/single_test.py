"""Tests every fault that one process meets a few times; `suite` tries more."""

import os
import random

from absl.testing import absltest, parameterized

from tests.faults import single

_TIMES = 2


class SingleTest(parameterized.TestCase):
  @parameterized.named_parameters(
    (fault.__name__, fault) for fault in single.FAULTS
  )
  def test_nothing_is_lost(self, fault):
    if fault is single.full_disk and os.geteuid():
      self.skipTest('Only root can mount a small disk.')
    found = single.try_often(fault, _TIMES, random.Random(7))
    self.assertEqual(dict(found), {'': _TIMES})


if __name__ == '__main__':
  absltest.main()
