"""Tests of what the training programs refuse, in one line."""

import os
import pathlib
import shutil

import tensorflow as tf

from tests.experiments import running, trained


class RefusedTest(trained.TestCase):
  def test_another_config(self):
    before = running.snapshot(self.root)
    self._assert_refused(
      self.programs.stage1(f'--workdir={self.tokenizer}', '--seed=5'),
      str(self.tokenizer),
      'run.seed=0, not 5',
    )
    self._assert_refused(
      self.programs.stage2(f'--workdir={self.vim}', '--label_drop=0.2'),
      'label_drop=0.1, not 0.2',
    )
    self._assert_refused(
      self.programs.stage2(f'--workdir={self.tokenizer}'), "of kind 'vit_vqgan'"
    )
    self.assertEqual(running.snapshot(self.root), before)

  def test_bad_data(self):
    empty = pathlib.Path(self.create_tempdir())
    broken = pathlib.Path(self.create_tempdir()) / 'images'
    shutil.copytree(self.images, broken)
    image = broken / 'circles' / '3.png'
    image.write_bytes(image.read_bytes()[:60])
    workdir = f'--workdir={self._new}'
    data_dir = f'--data_dir={empty}'
    for data, expected in (
      ('no_such_data_set', 'no_such_data_set'),
      (f'folder:{broken}', str(image)),
    ):
      for train in (self.programs.stage1, self.programs.stage2):
        self._assert_refused(
          train(workdir, f'--data={data}', data_dir), expected
        )

  def test_bad_settings(self):
    workdir = f'--workdir={self._new}'
    for arguments, texts in (
      (['--set=model.patch_size'], ('no value',)),
      (['--batch_size=64'], ('batch_size is 64', 'to train on')),
      (['--set=run.seed=1', '--seed=2'], ('--seed=2', '--set=run.seed=1')),
      (['--config=/none.json'], ('--preset=tiny', '/none.json')),
      (['--strategy=mirrored', '--batch_size=0'], ('batch_size',)),
      (['stray'], ("'stray' is not a flag",)),
    ):
      self._assert_refused(self.programs.stage1(workdir, *arguments), *texts)
    for arguments, texts in (
      (['--num_classes=3'], ('num_classes is 3', 'has 2 classes')),
      (['--codebook_size=64'], ('codebook_size is 64', '24')),
      (['--batch_size=64'], ('batch_size is 64', 'to train on')),
      ([f'--tokenizer={self.vim}'], ("'vim', not 'vit_vqgan'",)),
      (['stray'], ("'stray' is not a flag",)),
    ):
      self._assert_refused(self.programs.stage2(workdir, *arguments), *texts)

  def test_unwritable(self):
    file = self.create_tempfile(content='a file').full_path
    for result in (
      self.programs.stage1(f'--workdir={file}/run'),
      self.programs.stage2(f'--workdir={file}/run'),
      self.programs.sample(f'--out={file}/out'),
    ):
      self._assert_refused(result, 'Cannot', file)
    self.assertEqual(pathlib.Path(file).read_text(), 'a file')

  def test_what_is_no_local_disk(self):
    there = os.listdir()
    for result, name in (
      (self.programs.stage1('--workdir=gs://bucket/run'), '--workdir'),
      (
        self.programs.stage2(f'--workdir={self._new}', '--codes=s3://b'),
        '--codes',
      ),
      (
        self.programs.stage2(f'--workdir={self._new}', '--tokenizer=gs://b'),
        '--tok',
      ),
      (self.programs.sample('--out=gs://bucket/out'), '--out'),
      (
        self.programs.stage1(f'--workdir={self._new}', '--data=folder:gs://b'),
        'data.name',
      ),
    ):
      self._assert_refused(result, name, 'gcloud storage rsync')
    self.assertEqual(os.listdir(), there)


if __name__ == '__main__':
  tf.test.main()
