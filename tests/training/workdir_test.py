"""Tests of working directories: refused, locked, resumed, never overwritten."""

import dataclasses
import json
import os
import pathlib

from absl.testing import absltest

from tests.experiments import running
from vim_tf import compat, presets, settings
from vim_tf import config as config_lib
from vim_tf.training import workdir as workdir_lib


class WorkdirTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self._path = os.path.join(self.create_tempdir(), 'deep', 'run')
    self._config = presets.stage1('tiny')
    self._facts = {'class_names': ['a', 'b'], 'data_fingerprint': '12ab'}

  def _open(
    self, config=None, kind='vit_vqgan', accept_new_data=False, **facts
  ):
    return workdir_lib.Workdir(
      self._path,
      kind,
      config or self._config,
      {**self._facts, **facts},
      accept_new_data=accept_new_data,
    )

  def _save(self, step):
    """What a checkpoint looks like from outside."""
    folder = pathlib.Path(self._path) / 'checkpoints' / f'step-{step:09d}'
    folder.mkdir()
    (folder / 'checkpoint.index').write_text('weights')

  def _read_config(self):
    return workdir_lib.read_config(
      self._path, 'vit_vqgan', config_lib.Stage1Config
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
      ['tensorflow', compat.KERAS, 'numpy'], record['versions']
    )
    self.assertEqual(record['format_version'], 1)
    self.assertEqual(self._read_config(), self._config)
    self.assertTrue(workdir.checkpoints.is_dir())

  def test_the_same_config_goes_on(self):
    self._open().log({'step': 1})
    before = running.snapshot(self._path)
    self.assertEqual(self._open().rows(), [{'step': 1}])
    self.assertEqual(running.snapshot(self._path), before)

  # ------------------------------------------------ what may change, what not

  def test_changes_are_noted_and_what_was_logged_stays(self):
    workdir = self._open()
    workdir.log({'step': 10, 'loss': 1.5})
    self._save(10)
    workdir.close()
    longer = {'run.num_steps': '900', 'optimizer.decay_end': '900'}
    with self.assertLogs('absl', 'INFO') as logs:
      self._open(config_lib.replace(self._config, longer)).close()
    old = self._config.run.num_steps
    self.assertIn(f'run.num_steps=900 ({old} before)', str(logs.output))
    self._save(20)
    last = config_lib.replace(self._config, {**longer, 'run.log_every': '7'})
    workdir = self._open(last)
    self.assertEqual(workdir.rows(), [{'step': 10, 'loss': 1.5}])
    self.assertEqual(self._read_config(), last)
    decay = self._config.optimizer.decay_end
    self.assertEqual(
      [tuple(row.values()) for row in workdir_lib.read(self._path)['changes']],
      [
        (10, 'optimizer.decay_end', decay, 900),
        (10, 'run.num_steps', old, 900),
        (20, 'run.log_every', self._config.run.log_every, 7),
      ],
    )

  def test_another_config_is_refused_by_every_difference(self):
    self._open().log({'step': 1})
    self._save(10)
    before = running.snapshot(self._path)
    other = config_lib.replace(
      self._config,
      {'model.code_dim': '16', 'run.seed': '5', 'run.log_every': '7'},
    )
    texts = (
      self._path,
      'model.code_dim=8, not 16; run.seed=0, not 5: leave',
      '--workdir',
    )
    self._assert_refused(lambda: self._open(other), *texts)
    self._assert_refused(
      lambda: workdir_lib.check(self._path, 'vit_vqgan', other), *texts
    )
    fewer = config_lib.replace(self._config, {'run.num_steps': '9'})
    self._assert_refused(lambda: self._open(fewer), 'is at step 10 already')
    self._assert_refused(
      lambda: self._open(kind='vim'), "of kind 'vit_vqgan', not 'vim'"
    )
    self.assertEqual(running.snapshot(self._path), before)

  def test_places_may_change_while_their_fingerprints_are_the_same(self):
    config = config_lib.replace(
      presets.stage2('tiny'), {'data.name': 'folder:a', 'tokenizer': 'there'}
    )
    moved = config_lib.replace(
      config, {'data.name': 'folder:b/a/', 'tokenizer': 'here/'}
    )
    self._open(config, 'vim', tokenizer_fingerprint='t1').close()
    self._save(10)
    workdir_lib.check(self._path, 'vim', moved)  # Nothing is known yet.
    self._assert_refused(
      lambda: self._open(moved, 'vim', tokenizer_fingerprint='t2'),
      "tokenizer='there', not 'here/'; tokenizer_fingerprint='t1', not 't2'",
    )
    self._open(moved, 'vim', tokenizer_fingerprint='t1').close()
    cached = config_lib.replace(moved, {'codes': 'codes'})
    self._assert_refused(
      lambda: self._open(
        cached, 'vim', tokenizer_fingerprint='t1', codes_fingerprint='c1'
      ),
      "codes='', not 'codes'",
    )

  def test_other_data_are_counted_and_refused_unless_accepted(self):
    old = {'train': 20, 'held_out': 2}
    new = {
      'data_fingerprint': 'ff',
      'data_images': {'train': 21, 'held_out': 3},
    }
    self._open(data_images=old).close()
    self._save(10)
    before = running.snapshot(self._path)
    self._assert_refused(
      lambda: self._open(**new),
      '20 images and 2 held-out ones',
      'now there are 21 images and 3 held-out ones',
      '--accept_new_data',
    )
    self.assertEqual(running.snapshot(self._path), before)
    self._open(accept_new_data=True, **new).close()
    record = workdir_lib.read(self._path)
    self.assertContainsSubset(new, record)
    self.assertEqual(
      [(row['setting'], row['old']) for row in record['changes']],
      [('data_fingerprint', '12ab'), ('data_images', old)],
    )

  def test_other_codes_are_new_data_only_if_the_images_are(self):
    config = config_lib.replace(
      presets.stage2('tiny'), {'tokenizer': 'there', 'codes': 'codes'}
    )
    self._open(config, 'vim', codes_fingerprint='c1').close()
    self._save(10)
    other = config_lib.replace(config, {'codes': 'new'})
    self._assert_refused(
      lambda: self._open(
        other, 'vim', accept_new_data=True, codes_fingerprint='c2'
      ),
      "codes_fingerprint='c1', not 'c2'",
    )
    facts = {'data_fingerprint': 'ff', 'codes_fingerprint': 'c2'}
    self._open(other, 'vim', accept_new_data=True, **facts).close()
    self.assertEqual(workdir_lib.read(self._path)['config']['codes'], 'new')

  def test_other_classes_are_refused_where_they_are_learned(self):
    config = dataclasses.replace(presets.stage2('tiny'), tokenizer='there')
    self._open(config, 'vim').close()
    self._save(10)
    self._assert_refused(
      lambda: self._open(
        config, 'vim', accept_new_data=True, class_names=['b', 'a']
      ),
      "class_names=['a', 'b'], not ['b', 'a']",
    )

  def test_a_run_without_a_checkpoint_gives_way_and_loses_nothing(self):
    workdir = self._open()
    workdir.log({'step': 1})
    (workdir.events / 'events.1').write_text('events')
    self._save(0)  # Has learned nothing.
    workdir.close()
    held = running.snapshot(self._path)
    other = config_lib.replace(self._config, {'run.seed': '5'})
    file = pathlib.Path(self._path) / 'figures.json'
    file.write_text('{}')  # Somebody's.
    self._assert_refused(lambda: self._open(other), 'run.seed=0, not 5')
    file.unlink()
    workdir = self._open(other)
    self.assertEqual(self._read_config(), other)
    self.assertEqual(workdir.rows(), [])
    self.assertEmpty(os.listdir(workdir.checkpoints))
    aside = running.snapshot(pathlib.Path(self._path) / 'replaced-1')
    self.assertEqual(aside, held)
    workdir.close()
    self._open().close()  # And again.
    self.assertTrue((pathlib.Path(self._path) / 'replaced-2').is_dir())
    self.assertEqual(self._read_config(), self._config)

  # ------------------------------------------------------ records of long ago

  def _rewrite(self, change):
    file = pathlib.Path(self._path) / 'config.json'
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))

  def test_settings_that_are_missing_are_as_before_they_were(self):
    @dataclasses.dataclass(frozen=True)
    class Losses(settings.Config):
      old: float = settings.setting('', 1.0)
      new: str = settings.setting('', 'binned', before='density')

    @dataclasses.dataclass(frozen=True)
    class Config(settings.Config):
      losses: Losses = settings.group('loss')
      run: config_lib.RunConfig = settings.group('run')
      later: int = settings.setting('', 3)

    self._open(Config(Losses(), config_lib.RunConfig())).close()
    self._save(10)

    def forget(record):
      del record['config']['losses']['new'], record['config']['later']
      del record['format_version'], record['class_names']

    # Type hints of local classes cannot be resolved by name.
    Config.__annotations__.update(losses=Losses, run=config_lib.RunConfig)
    self._rewrite(forget)
    old = workdir_lib.read_config(self._path, 'vit_vqgan', Config)
    self.assertEqual(old, Config(Losses(new='density'), config_lib.RunConfig()))
    self._assert_refused(
      lambda: self._open(Config(Losses(), config_lib.RunConfig())),
      "losses.new='density', not 'binned'",
    )
    self._open(old).close()
    record = workdir_lib.read(self._path)
    self.assertEqual(record['config'], config_lib.to_dict(old))
    self.assertEqual(
      [tuple(row.values()) for row in record['changes']],
      [
        (10, 'losses.new', None, 'density'),
        (10, 'later', None, 3),
        (10, 'class_names', None, ['a', 'b']),
      ],
    )

  def test_unknown_settings_are_refused_and_what_wrote_them_is_said(self):
    self._open()
    self._save(10)
    self._rewrite(lambda record: record['config']['model'].update(colours=4))
    versions = workdir_lib.read(self._path)['versions']
    texts = ('no setting colours', f'tensorflow {versions["tensorflow"]}')
    self._assert_refused(self._read_config, *texts, 'format 1')
    self._assert_refused(self._open, *texts)
    self._rewrite(lambda record: record.update(format_version=99))
    self._assert_refused(self._read_config, 'format 99', 'up to 1')

  def test_a_refused_start_is_no_longer_in_use(self):
    """Though its error is kept with its frames, as a notebook does."""
    self._open().close()
    self._save(2)
    try:
      self._open(kind='vim')
    except workdir_lib.WorkdirError as error:
      kept = error
    self._open().close()
    self.assertIsNotNone(kept.__traceback__)

  def test_in_use(self):
    first = self._open()
    before = running.snapshot(self._path)
    self._assert_refused(self._open, 'Another run', self._path)
    self.assertEqual(running.snapshot(self._path), before)
    first.log({'step': 1})  # And the first one does not suffer.
    self.assertEqual(first.rows(), [{'step': 1}])

  def test_unwritable(self):
    file = self.create_tempfile(content='a file')
    self._path = os.path.join(file.full_path, 'run')
    self._assert_refused(self._open, 'Cannot write', self._path)
    self.assertEqual(pathlib.Path(file).read_text(), 'a file')

  def test_damaged_config(self):
    self._open()
    for content in (b'{"kind": "vit_', b'\xff\xfe\x00', b'[]', b''):
      (pathlib.Path(self._path) / 'config.json').write_bytes(content)
      self._assert_refused(self._open, 'config.json')
      self._assert_refused(
        self._read_config,
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


if __name__ == '__main__':
  absltest.main()
