"""Two TensorFlows read what the other wrote, and go on with it.

What each left once lies in `exchange/`, and the other reads it; so no change of
what is written can make old runs unreadable unnoticed. Where
VIM_TF_OTHER_PYTHON names the interpreter of the other environment, both also
write anew, and each reads both.
"""

import os
import pathlib
import shutil
import subprocess

import numpy as np
import tensorflow as tf

from tests import programs
from tests.jobs import exchanging

_OLD = pathlib.Path(__file__).with_name('exchange')
_OTHER = os.environ.get('VIM_TF_OTHER_PYTHON', '')


class ExchangeTest(tf.test.TestCase):
  def _assert_same(self, found: dict, expected: dict):
    self.assertNotEmpty(expected)
    self.assertLessEqual(set(expected), set(found))
    for name, value in expected.items():
      if name.startswith('exact/'):
        self.assertAllEqual(found[name], value, name)
      else:
        self.assertAllClose(found[name], value, rtol=1e-4, atol=1e-5, msg=name)

  def test_what_the_other_left(self):
    ours = f'tensorflow-{tf.__version__.rpartition(".")[0]}'
    others = [x for x in _OLD.glob('tensorflow-*') if x.name != ours]
    self.assertNotEmpty(others)
    for other in others:
      folder = pathlib.Path(self.create_tempdir()) / other.name
      shutil.copytree(other, folder)
      shutil.copytree(_OLD / 'images', folder / 'images')
      with np.load(other / 'found.npz') as expected:
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
