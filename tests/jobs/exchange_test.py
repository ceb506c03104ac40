"""Two TensorFlows read what the other wrote, and go on with it.

What an older one left lies in `exchange/`, so that a change of what is written
cannot make old runs unreadable unnoticed. Where VIM_TF_OTHER_PYTHON names the
interpreter of the other environment (requirements.txt, requirements-new.txt),
both also write anew, and each reads both.
"""

import os
import pathlib
import shutil
import subprocess

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import programs
from tests.jobs import exchanging

_OLD = pathlib.Path(__file__).with_name('exchange')
_OTHER = os.environ.get('VIM_TF_OTHER_PYTHON', '')


class ExchangeTest(parameterized.TestCase, tf.test.TestCase):
  def _assert_same(self, found: dict, expected: dict):
    self.assertNotEmpty(expected)
    self.assertLessEqual(set(expected), set(found))
    for name, value in expected.items():
      if name.startswith('exact/'):
        self.assertAllEqual(found[name], value, name)
      else:
        self.assertAllClose(found[name], value, rtol=1e-4, atol=1e-5, msg=name)

  @parameterized.parameters('tensorflow-2.15', 'tensorflow-2.21')
  def test_what_is_kept_here(self, name):
    folder = pathlib.Path(self.create_tempdir()) / name
    shutil.copytree(_OLD / name, folder)
    shutil.copytree(_OLD / 'images', folder / 'images')
    with np.load(_OLD / name / 'found.npz') as expected:
      self._assert_same(exchanging.read(folder), dict(expected))

  def test_both_ways(self):
    if not _OTHER:
      self.skipTest(
        'VIM_TF_OTHER_PYTHON names no interpreter of the other TensorFlow.'
      )
    ours, theirs = (
      pathlib.Path(self.create_tempdir()) / name for name in ('ours', 'theirs')
    )
    exchanging.make(ours)
    with subprocess.Popen(
      [_OTHER, '-m', 'tests.jobs.exchanging', ours, theirs],
      cwd=programs.ROOT,
      env={**os.environ, 'PYTHONPATH': str(programs.ROOT)},
      stdout=subprocess.PIPE,
      text=True,
    ) as other:
      found = {ours: exchanging.read(ours)}
      out, _ = other.communicate()
    self.assertEqual(other.returncode, 0)
    version = out.split()[-1]
    self.assertNotEqual(version, tf.__version__, f'{_OTHER} is no other one.')
    found[theirs] = exchanging.read(theirs)
    for folder, values in found.items():
      with np.load(f'{folder}-by-other.npz') as expected:
        self._assert_same(values, dict(expected))


if __name__ == '__main__':
  tf.test.main()
