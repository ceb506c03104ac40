"""Tests of `draw_curves`: that it draws a run, and what it refuses."""

import pathlib

import numpy as np
from PIL import Image
import tensorflow as tf

from tests.experiments import running
from vim_tf import presets
from vim_tf.jobs import curves
from vim_tf.training import workdir as workdir_lib

_ROWS = (
  {'step': 10, 'loss': 3.0, 'l2': 0.5, 'gradient_norm': 1.0},
  {'step': 10, 'discriminator/accuracy': 0.9},
  {'step': 20, 'loss': 2.0, 'l2': 0.25, 'codebook': 0.1},
  {'step': 20, 'eval/l2': 0.3, 'eval/mean_psnr': 12.0},
)


class DrawCurvesTest(running.Refused, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self._folder = pathlib.Path(self.create_tempdir().full_path)
    self._binary = running.Binary('draw_curves')

  def _run(self, workdir):
    return self._binary.run(
      f'--workdir={workdir}', f'--out={self._folder / "out" / "curves.png"}'
    )

  def test_draws_a_run(self):
    workdir = workdir_lib.Workdir(
      str(self._folder / 'run'), 'vit_vqgan', presets.stage1('tiny')
    )
    self._assert_refused(self._run(self._folder / 'run'), 'no metrics yet')
    for row in _ROWS:
      workdir.log(row)
    result = self._run(self._folder / 'run')
    self.assertEqual(result.status, 0, result.error)
    with Image.open(self._folder / 'out' / 'curves.png') as image:
      picture = np.asarray(image.convert('RGB')).astype(int)
    # Two rows of up to four panels, which are wider than high.
    self.assertGreater(picture.shape[1], picture.shape[0])
    accent = [int(curves.LIGHT.accent[i : i + 2], 16) for i in (1, 3, 5)]
    near = np.abs(picture - accent).max(axis=-1) < 24
    self.assertGreater(near.sum(), 200)
    self._assert_refused(self._run(self._folder / 'run'), 'exists already')

  def test_refuses_what_is_no_run(self):
    self._assert_refused(self._run(self._folder), 'not a working directory')
    self.assertFalse((self._folder / 'out').exists())


if __name__ == '__main__':
  tf.test.main()
