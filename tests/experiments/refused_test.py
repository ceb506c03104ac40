"""Tests of what the training programs refuse, in one line."""

import os
import pathlib
import shutil

import tensorflow as tf

from tests.experiments import running, trained
from vim_tf.config import Stage1Config
from vim_tf.training import workdir as workdir_lib


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

  def test_in_use(self):
    config = workdir_lib.read_config(self.tokenizer, 'vit_vqgan', Stage1Config)
    record = workdir_lib.read(self.tokenizer)
    facts = {key: value for key, value in record.items() if key != 'versions'}
    del facts['kind'], facts['config']
    other = workdir_lib.Workdir(self.tokenizer, 'vit_vqgan', config, facts)
    self._assert_refused(
      self.programs.stage1(f'--workdir={self.tokenizer}'), 'Another run'
    )
    del other

  def test_bad_data(self):
    empty = pathlib.Path(self.create_tempdir())
    broken = pathlib.Path(self.create_tempdir()) / 'images'
    shutil.copytree(self.images, broken)
    image = broken / 'circles' / '3.png'
    image.write_bytes(image.read_bytes()[:60])
    text = pathlib.Path(self.create_tempdir()) / 'images'
    shutil.copytree(self.images, text)
    (text / 'circles' / 'notes.txt').write_text('not an image')
    workdir = f'--workdir={self._new}'
    data_dir = f'--data_dir={empty}'
    for data, expected in (
      ('no_such_data_set', 'no_such_data_set'),
      (f'folder:{empty}', 'has no images'),
      (f'folder:{empty}/none', 'There is no folder'),
      (f'folder:{broken}', str(image)),
      (f'folder:{text}', 'notes.txt'),
    ):
      for train in (self.programs.stage1, self.programs.stage2):
        self._assert_refused(
          train(workdir, f'--data={data}', data_dir), expected
        )

  def test_bad_settings(self):
    workdir = f'--workdir={self._new}'
    for arguments, texts in (
      (['--set=model.depth=3'], ("no setting 'depth'", 'patch_size')),
      (['--set=model.patch_size'], ('no value',)),
      (['--patch_size=5'], ('16', '5')),
      (['--batch_size=64'], ('batch_size is 64', 'to train on')),
      (['--set=run.seed=1', '--seed=2'], ('--seed=2', '--set=run.seed=1')),
      (['--steps=many'], ('num_steps', 'many')),
      (['--logit_laplace_weight=1'], ('logit_laplace',)),
      (['--config=/none.json'], ('--preset=tiny', '/none.json')),
      (['--strategy=mirrored', '--batch_size=0'], ('batch_size',)),
      (['stray'], ("'stray' is not a flag",)),
    ):
      self._assert_refused(self.programs.stage1(workdir, *arguments), *texts)
    for arguments, texts in (
      (['--num_classes=3'], ('num_classes is 3', 'has 2 classes')),
      (['--codebook_size=64'], ('codebook_size is 64', '24')),
      (['--batch_size=64'], ('batch_size is 64', 'to train on')),
      (['--tokenizer='], ('No tokenizer was given', '--tokenizer')),
      ([f'--tokenizer={self.root}/none'], ('not a working directory',)),
      ([f'--tokenizer={self.vim}'], ("'vim', not 'vit_vqgan'",)),
      (['stray'], ("'stray' is not a flag",)),
    ):
      self._assert_refused(self.programs.stage2(workdir, *arguments), *texts)

  def test_bad_flags(self):
    for arguments, text in (
      ((f'--workdir={self._new}', '--preset=huge'), 'huge'),
      ((f'--workdir={self._new}', '--no_such_flag=1'), 'no_such_flag'),
      ((), '--workdir'),
    ):
      result = self.programs.stage1(*arguments)
      self.assertEqual(result.status, 1)
      self.assertIn(text, result.error)
      self.assertNotIn('Traceback', result.error)
      self.assertFalse(self._new.exists())

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
