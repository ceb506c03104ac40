"""Tests of `sample` on a VIM that was trained: what it leaves and refuses."""

import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
from PIL import Image
import tensorflow as tf

from tests.experiments import running, trained
from vim_tf.jobs import restore
from vim_tf.training import workdir as workdir_lib


class DrawingTest(trained.TestCase):
  def test_samples(self):
    record = workdir_lib.read_json(self.out / 'samples.json')
    rows = record['samples']
    self.assertEqual(
      sorted(os.listdir(self.out)),
      sorted(['grid.png', 'samples.json', *(row['file'] for row in rows)]),
    )
    self.assertEqual(
      [row['class_name'] for row in rows],
      [name for name in trained.CLASSES for _ in range(trained.SAMPLES)],
    )
    self.assertEqual([row['seed'] for row in rows], list(range(len(rows))))
    self.assertEqual(record['step'], trained.STEPS)
    self.assertEqual(record['sampling']['guidance_scale'], 2.0)
    tokenizer = restore.tokenizer(self.tokenizer).model
    images = tokenizer.decode(tf.constant([row['codes'] for row in rows]))
    for row, image in zip(rows, images, strict=True):
      with Image.open(self.out / row['file']) as file:
        self.assertAllClose(file, np.rint(image * 255.0), atol=1)

  def test_seeds_make_the_same_images_again(self):
    """Alone as in company, and in batches of another size."""
    rows = workdir_lib.read_json(self.out / 'samples.json')['samples']
    row = rows[4]
    result = self.programs.sample(
      f'--out={self._new}',
      f'--classes={row["class_name"].upper()}',
      f'--seed={row["seed"]}',
      '--count=1',
      '--batch_size=2',
      '--top_p=0.9',
      '--guidance_scale=2',
    )
    self.assertEqual(result.status, 0, result.error)
    (again,) = workdir_lib.read_json(self._new / 'samples.json')['samples']
    self.assertEqual(again, row)
    with (
      Image.open(self.out / row['file']) as one,
      Image.open(self._new / row['file']) as other,
    ):
      self.assertAllClose(one, other, atol=1)

  def test_a_moved_tokenizer(self):
    moved = pathlib.Path(self.create_tempdir()) / 'moved'
    shutil.copytree(self.tokenizer, moved)
    result = self.programs.sample(
      f'--out={self._new}', f'--tokenizer={moved}', '--top_k=3'
    )
    self.assertEqual(result.status, 0, result.error)

  def test_bad_samples(self):
    before = running.snapshot(self.root)
    new = f'--out={self._new}'
    for arguments, texts in (
      ([new, '--classes=squares'], ("'squares'", 'circles, stripes')),
      ([new, '--classes=2'], ("'2'", '0 to 1')),
      ([new, '--classes=circles,-1'], ("'-1'",)),
      ([new, '--top_p=0'], ('top_p is 0', '(0, 1]')),
      ([new, '--temperature=-1'], ('temperature is -1',)),
      ([f'--out={self.out}'], (str(self.out), 'exists already')),
      ([new, f'--workdir={self.tokenizer}'], ("'vit_vqgan', not 'vim'",)),
      ([new, f'--workdir={self.images}'], ('not a working directory',)),
      ([new, f'--tokenizer={self.images}'], ('not a working directory',)),
      ([new, '3'], ("'3' is not a flag",)),
    ):
      self._assert_refused(self.programs.sample(*arguments), *texts)
    self.assertEqual(running.snapshot(self.root), before)

  def test_in_a_process_of_its_own(self):
    result = subprocess.run(
      [
        sys.executable,
        '-m',
        'experiments.sample',
        f'--workdir={self.vim}',
        f'--out={self.out}',
      ],
      env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
      capture_output=True,
      text=True,
      check=False,
    )
    self.assertEqual(result.returncode, 1)
    self.assertEqual(result.stdout, '')
    self.assertEqual(
      result.stderr.splitlines()[-1],
      f'error: --out={self.out} exists already; name a new folder.',
    )
    self.assertNotIn('Traceback', result.stderr)


if __name__ == '__main__':
  tf.test.main()
