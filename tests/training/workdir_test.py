"""Tests of working directories: refused, locked, resumed, never overwritten."""

import dataclasses
import hashlib
import json
import os
import pathlib

from absl.testing import absltest

from vim_tf import config as config_lib
from vim_tf import presets
from vim_tf.training import workdir as workdir_lib


def _snapshot(folder):
  """Hashes of all files but the lock, and the folders."""
  return {
    str(path.relative_to(folder)): (
      hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ''
    )
    for path in pathlib.Path(folder).rglob('*')
    if path.name != 'lock'
  }


class WorkdirTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self._path = os.path.join(self.create_tempdir(), 'deep', 'run')
    self._config = presets.stage1('tiny')
    self._facts = {'class_names': ['a', 'b'], 'data_fingerprint': '12ab'}

  def _open(self, config=None, kind='vit_vqgan', **facts):
    return workdir_lib.Workdir(
      self._path, kind, config or self._config, {**self._facts, **facts}
    )

  def _assert_refused(self, make, *texts):
    with self.assertRaises(workdir_lib.WorkdirError) as caught:
      make()
    self.assertIsInstance(caught.exception, config_lib.UserError)
    self.assertNotIn('\n', str(caught.exception))
    for text in texts:
      self.assertIn(text, str(caught.exception))

  def test_what_a_new_one_holds(self):
    workdir = self._open()
    self.assertEqual(
      sorted(os.listdir(self._path)),
      ['checkpoints', 'config.json', 'events', 'lock', 'samples'],
    )
    record = workdir_lib.read(self._path)
    self.assertEqual(record['kind'], 'vit_vqgan')
    self.assertEqual(record['class_names'], ['a', 'b'])
    self.assertEqual(record['data_fingerprint'], '12ab')
    self.assertContainsSubset(
      ['tensorflow', 'keras', 'numpy'], record['versions']
    )
    self.assertEqual(
      workdir_lib.read_config(self._path, 'vit_vqgan', config_lib.Stage1Config),
      self._config,
    )
    self.assertTrue(workdir.checkpoints.is_dir())

  def test_the_same_config_goes_on(self):
    self._open().log({'step': 1})
    before = _snapshot(self._path)
    self.assertEqual(self._open().rows(), [{'step': 1}])
    self.assertEqual(_snapshot(self._path), before)

  def test_another_config_is_refused_by_its_first_difference(self):
    self._open().log({'step': 1})
    before = _snapshot(self._path)
    other = config_lib.replace(
      self._config, {'model.code_dim': '16', 'run.seed': '5'}
    )
    self._assert_refused(
      lambda: self._open(other), self._path, 'config.model.code_dim=8, not 16'
    )
    other = config_lib.replace(self._config, {'run.seed': '5'})
    self._assert_refused(
      lambda: self._open(other), 'config.run.seed=0, not 5', '--workdir'
    )
    self.assertEqual(_snapshot(self._path), before)

  def test_other_kind_and_other_data_are_refused(self):
    self._open()
    self._assert_refused(
      lambda: self._open(kind='vim'), "kind='vit_vqgan', not 'vim'"
    )
    self._assert_refused(
      lambda: self._open(data_fingerprint='ffff'), "'12ab', not 'ffff'"
    )
    self._assert_refused(lambda: self._open(class_names=['a']), 'class_names')

  def test_in_use(self):
    first = self._open()
    before = _snapshot(self._path)
    self._assert_refused(self._open, 'Another run', self._path)
    self.assertEqual(_snapshot(self._path), before)
    first.log({'step': 1})  # And the first one does not suffer.
    self.assertEqual(first.rows(), [{'step': 1}])

  def test_unwritable(self):
    file = self.create_tempfile(content='a file')
    self._path = os.path.join(file.full_path, 'run')
    self._assert_refused(self._open, 'Cannot write', self._path)
    self.assertEqual(pathlib.Path(file).read_text(), 'a file')

  def test_no_path(self):
    self._path = ''
    self._assert_refused(self._open, '--workdir')

  def test_damaged_config(self):
    self._open()
    for content in (b'{"kind": "vit_', b'\xff\xfe\x00', b'[]', b''):
      (pathlib.Path(self._path) / 'config.json').write_bytes(content)
      self._assert_refused(self._open, 'config.json')
      self._assert_refused(
        lambda: workdir_lib.read_config(
          self._path, 'vit_vqgan', config_lib.Stage1Config
        ),
        'config.json',
      )

  def test_read_what_is_none(self):
    self._assert_refused(
      lambda: workdir_lib.read(self._path), 'not a working directory'
    )
    self._open()
    self._assert_refused(
      lambda: workdir_lib.read_config(
        self._path, 'vim', config_lib.Stage2Config
      ),
      "'vit_vqgan'",
      "'vim'",
    )

  def test_forget_after(self):
    workdir = self._open()
    for step in (10, 20, 20, 30):
      workdir.log({'step': step, 'loss': step / 10})
    workdir.forget_after(20)
    self.assertEqual([row['step'] for row in workdir.rows()], [10, 20, 20])
    workdir.log({'step': 25})
    self.assertEqual([row['step'] for row in workdir.rows()], [10, 20, 20, 25])
    workdir.forget_after(0)
    self.assertEqual(workdir.rows(), [])

  def test_last_line_cut_by_a_kill(self):
    workdir = self._open()
    workdir.log({'step': 10, 'loss': 1.5})
    workdir.log({'step': 20, 'loss': 1.25})
    file = pathlib.Path(self._path) / 'metrics.jsonl'
    os.truncate(file, file.stat().st_size - 6)
    self.assertEqual(workdir.rows(), [{'step': 10, 'loss': 1.5}])
    workdir.forget_after(20)
    workdir.log({'step': 20, 'loss': 1.0})
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    self.assertEqual([row['loss'] for row in rows], [1.5, 1.0])

  def test_configs_of_both_stages_survive(self):
    config = dataclasses.replace(presets.stage2('tiny'), tokenizer='there')
    self._open(config, kind='vim')
    self.assertEqual(
      workdir_lib.read_config(self._path, 'vim', config_lib.Stage2Config),
      config,
    )


if __name__ == '__main__':
  absltest.main()
