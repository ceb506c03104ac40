"""Tests of the binaries by running them: what they leave, what they refuse."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
from unittest import mock

from absl.testing import parameterized
import numpy as np
from PIL import Image
import tensorflow as tf

from tests import testing
from tests.experiments import running
from vim_tf import presets
from vim_tf.config import Stage1Config, Stage2Config, replace
from vim_tf.data import folders
from vim_tf.jobs import restore
from vim_tf.training import optimizers
from vim_tf.training import workdir as workdir_lib

_CLASSES = ('circles', 'stripes')
_STEPS = 4
_SMALL = ('--batch_size=4', '--log_every=1', '--checkpoint_every=2')
_SAMPLES = 3
_KINDS = {
  'tokenizer': ('vit_vqgan', Stage1Config),
  'vim': ('vim', Stage2Config),
}


def _make_images(folder: pathlib.Path):
  """Fourteen images of each of two classes."""
  rng = np.random.default_rng(0)
  for name in _CLASSES:
    (folder / name).mkdir(parents=True)
    for i in range(14):
      pixels = rng.integers(0, 256, [5, 5, 3], np.uint8)
      image = Image.fromarray(pixels.repeat(4, axis=0).repeat(4, axis=1))
      image.save(folder / name / f'{i}.png')


def _read_checkpoint(workdir: pathlib.Path, step: int):
  reader = tf.train.load_checkpoint(
    str(workdir / 'checkpoints' / f'step-{step:09d}' / 'checkpoint')
  )
  return {
    name: reader.get_tensor(name)
    for name in reader.get_variable_to_shape_map()
    if not name.startswith('_CHECKPOINTABLE')
  }


class BinariesTest(parameterized.TestCase, tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root = pathlib.Path(tf.compat.v1.test.get_temp_dir()) / 'binaries'
    shutil.rmtree(cls.root, ignore_errors=True)
    cls.images = cls.root / 'images'
    _make_images(cls.images)
    cls.binaries = {
      name: running.Binary(name)
      for name in ('train_vit_vqgan', 'train_vim', 'sample')
    }
    cls.tokenizer, cls.vim = cls.root / 'tokenizer', cls.root / 'vim'
    cls.out = cls.root / 'samples'
    cls.stage1_flags = (
      '--preset=tiny',
      f'--data=folder:{cls.images}',
      '--codebook_size=24',
      '--init_from_data=false',  # A first step of a kind of its own.
      f'--steps={_STEPS}',
      *_SMALL,
    )
    # Neither the data nor sizes, which the tokenizer tells.
    cls.stage2_flags = (
      '--preset=tiny',
      f'--tokenizer={cls.tokenizer}',
      f'--steps={_STEPS}',
      *_SMALL,
    )
    cls.sample_flags = (f'--workdir={cls.vim}', f'--count={_SAMPLES}')
    cls.results = (
      cls._stage1(f'--workdir={cls.tokenizer}'),
      cls._stage2(f'--workdir={cls.vim}'),
      cls._sample(f'--out={cls.out}', '--top_p=0.9', '--guidance_scale=2'),
    )
    for result in cls.results:
      assert result.status == 0, result.error

  @classmethod
  def _stage1(cls, *arguments, **kwargs):
    return cls.binaries['train_vit_vqgan'].run(
      *cls.stage1_flags, *arguments, **kwargs
    )

  @classmethod
  def _stage2(cls, *arguments):
    return cls.binaries['train_vim'].run(*cls.stage2_flags, *arguments)

  @classmethod
  def _sample(cls, *arguments):
    return cls.binaries['sample'].run(*cls.sample_flags, *arguments)

  def setUp(self):
    super().setUp()
    self._new = pathlib.Path(self.create_tempdir()) / 'new'

  def _assert_refused(self, result, *texts):
    """Exit status 1, one line that says what is wrong, nothing written."""
    self.assertEqual(result.status, 1, result.error)
    self.assertLen(result.error_lines, 1, result.error)
    (line,) = result.error_lines
    self.assertTrue(line.startswith('error: '), result.error)
    for text in texts:
      self.assertIn(text, line)
    self.assertEmpty(list(self._new.glob('*')))

  # ------------------------------------------------------------ what is left

  @parameterized.parameters(
    ('tokenizer', 'reconstructions', 'eval/mean_psnr'),
    ('vim', 'samples', 'eval/bits_per_code'),
  )
  def test_working_directory(self, name, picture, figure):
    workdir = self.root / name
    self.assertEqual(
      sorted(os.listdir(workdir)),
      [
        'checkpoints',
        'config.json',
        'events',
        'lock',
        'metrics.jsonl',
        'samples',
      ],
    )
    self.assertEqual(
      sorted(os.listdir(workdir / 'checkpoints')),
      ['step-000000002', f'step-{_STEPS:09d}'],
    )
    self.assertLen(os.listdir(workdir / 'events'), 1)
    self.assertEqual(
      os.listdir(workdir / 'samples'), [f'{picture}-{_STEPS:09d}.png']
    )
    with Image.open(next((workdir / 'samples').iterdir())) as image:
      self.assertGreater(np.asarray(image).std(), 1.0)
    rows = workdir_lib.read_metrics(workdir)
    steps = [row['step'] for row in rows if 'loss' in row]
    self.assertEqual(steps, list(range(1, _STEPS + 1)))
    self.assertEqual([r['step'] for r in rows if figure in r], [_STEPS])
    for row in rows:
      self.assertTrue(np.all(np.isfinite(list(row.values()))), row)

  def test_what_is_to_come_is_told_first(self):
    held_out = len(folders.list_images(str(self.images), 'validation')[0])
    for result, parameters in zip(
      self.results,
      (
        f'model {restore.tokenizer(self.tokenizer).model.count_params():,}.',
        f'model {restore.vim(self.vim).model.count_params():,}.',
      ),
    ):
      before, _, _ = result.error.partition('from step 0')
      for text in (
        '1 replica(s), here on CPU:0, batch 4 in all',
        f'trains on {28 - held_out} images of folder:{self.images} (train), in '
        '2 classes (circles ',
        f'holds out {held_out} images of',
        parameters,
        '4 steps of 4 are ',
      ):
        self.assertIn(text, before)

  def test_pictures_show_images_alone(self):
    """Fewer are held out than a picture has places for."""
    held_out = len(folders.list_images(str(self.images), 'validation')[0])
    with Image.open(next((self.tokenizer / 'samples').iterdir())) as image:
      pixels = np.asarray(image)
    self.assertEqual(pixels.shape, (2 * 20, 8 * 18 + 2, 3))
    for column in range(8):
      tile = pixels[2:18, 2 + 18 * column : 18 + 18 * column]
      self.assertEqual(tile.min() == 255, column >= held_out, column)
      self.assertGreater(tile.max(), 0)

  def test_config_is_the_preset_with_the_flags(self):
    record = workdir_lib.read(self.tokenizer)
    self.assertEqual(record['class_names'], list(_CLASSES))
    self.assertEqual(
      workdir_lib.read_config(self.tokenizer, 'vit_vqgan', Stage1Config),
      replace(
        presets.stage1('tiny'),
        {
          'data.name': f'folder:{self.images}',
          'model.codebook_size': '24',
          'codebook.init_from_data': 'false',
          'run.num_steps': str(_STEPS),
          'run.batch_size': '4',
          'run.log_every': '1',
          'run.checkpoint_every': '2',
        },
      ),
    )
    second = workdir_lib.read_config(self.vim, 'vim', Stage2Config)
    self.assertEqual(second.data.name, f'folder:{self.images}')
    self.assertEqual(second.model.codebook_size, 24)
    self.assertEqual(second.model.num_classes, len(_CLASSES))
    self.assertEqual(second.label_drop, presets.stage2('tiny').label_drop)
    self.assertEqual(
      workdir_lib.read(self.vim)['tokenizer_fingerprint'],
      restore.fingerprint(restore.tokenizer(self.tokenizer).model),
    )

  @parameterized.parameters('tokenizer', 'vim')
  def test_again_says_that_it_is_done(self, name):
    workdir = self.root / name
    before = running.snapshot(workdir)
    train = self._stage1 if name == 'tokenizer' else self._stage2
    with self.assertLogs('absl', 'INFO') as logs:
      result = train(f'--workdir={workdir}')
    self.assertEqual((result.status, result.error_lines), (0, []))
    self.assertIn(f'all {_STEPS} steps are done', logs.output[-1])
    self.assertEqual(running.snapshot(workdir), before)

  @parameterized.parameters('tokenizer', 'vim')
  def test_goes_on_to_the_same_weights(self, name):
    """As after a kill between the checkpoints of step 2 and step 4."""
    killed = self._new / 'killed'
    shutil.copytree(self.root / name, killed)
    shutil.rmtree(killed / 'checkpoints' / f'step-{_STEPS:09d}')
    train = self._stage1 if name == 'tokenizer' else self._stage2
    self.assertEqual(train(f'--workdir={killed}').status, 0)
    found = _read_checkpoint(killed, _STEPS)
    expected = _read_checkpoint(self.root / name, _STEPS)
    self.assertEqual(found.keys(), expected.keys())
    for key, value in expected.items():
      self.assertAllEqual(found[key], value, key)
    rows = workdir_lib.read_metrics(killed)
    self.assertEqual(
      [(row['step'], row.get('loss')) for row in rows],
      [
        (row['step'], row.get('loss'))
        for row in workdir_lib.read_metrics(self.root / name)
      ],
    )

  def test_config_from_a_file_and_relative_paths(self):
    """A config alone, or the record of a run that holds it."""
    file = self.create_tempfile(
      content=json.dumps(workdir_lib.read(self.tokenizer)['config'])
    )
    folder = self.create_tempdir().full_path
    shutil.copytree(self.tokenizer, pathlib.Path(folder) / 'run')
    for path in (file.full_path, 'run/config.json'):
      with self.assertLogs('absl', 'INFO') as logs:
        result = self.binaries['train_vit_vqgan'].run(
          f'--config={path}', '--workdir=run', folder=folder
        )
      self.assertEqual((result.status, result.error_lines), (0, []))
      self.assertIn('steps are done', logs.output[-1])
    self._assert_refused(
      self.binaries['train_vim'].run(
        f'--config={self.tokenizer}/config.json', f'--workdir={self._new}'
      ),
      "config.json holds a run of kind 'vit_vqgan', not 'vim'",
    )

  @parameterized.parameters('tokenizer', 'vim')
  def test_a_finished_run_is_trained_longer(self, name):
    """By --workdir and what is to be other."""
    longer = self._new / 'longer'
    shutil.copytree(self.root / name, longer)
    before = running.snapshot(longer)
    old = workdir_lib.read_metrics(longer)
    binary = self.binaries[
      'train_vit_vqgan' if name == 'tokenizer' else 'train_vim'
    ]
    with self.assertLogs('absl', 'INFO') as logs:
      result = binary.run(f'--workdir={longer}/')
    self.assertEqual((result.status, result.error_lines), (0, []))
    self.assertIn(f'all {_STEPS} steps are done', logs.output[-1])
    self.assertEqual(running.snapshot(longer), before)
    end = _STEPS + 2
    with testing.eagerly():
      result = binary.run(
        f'--workdir={longer}', f'--steps={end}', f'--decay_end={end + 10}'
      )
    self.assertEqual(result.status, 0, result.error)
    rows = workdir_lib.read_metrics(longer)
    self.assertEqual(rows[: len(old)], old)
    new = [row for row in rows[len(old) :] if 'loss' in row]
    self.assertEqual([row['step'] for row in new], [end - 1, end])
    config = workdir_lib.read_config(longer, *_KINDS[name])
    rate = float(optimizers.Schedule(config.optimizer)(end - 1))
    self.assertAllClose(new[-1]['learning_rate'], rate)
    record = workdir_lib.read(longer)
    self.assertEqual(record['config']['run']['num_steps'], end)
    self.assertContainsSubset(
      {(_STEPS, 'run.num_steps', _STEPS, end)},
      {tuple(change.values()) for change in record['changes']},
    )

  def test_moved_pictures_and_more_of_them(self):
    run = self._new / 'run'
    shutil.copytree(self.tokenizer, run)
    moved = pathlib.Path(self.create_tempdir()) / 'moved'
    shutil.copytree(self.images, moved)
    train = self.binaries['train_vit_vqgan'].run
    flags = (f'--workdir={run}', f'--data=folder:{moved}/')
    self.assertEqual(train(*flags).status, 0)
    images = workdir_lib.read(run)['data_images']
    self.assertEqual(sum(images.values()), 28)
    shutil.copy(moved / 'circles' / '3.png', moved / 'circles' / 'new.png')
    before = running.snapshot(run)
    result = train(*flags)
    self.assertEqual(result.status, 1)
    self.assertLen(result.error_lines, 1)
    now = {**images, 'train': images['train'] + 1}
    for text in (
      f'began with {images["train"]} images',
      f'now there are {now["train"]} images',
      '--accept_new_data',
    ):
      self.assertIn(text, result.error_lines[0])
    self.assertEqual(running.snapshot(run), before)
    self.assertEqual(train(*flags, '--accept_new_data').status, 0)
    self.assertEqual(workdir_lib.read(run)['data_images'], now)

  # --------------------------------------------------------- what is refused

  def test_another_config(self):
    before = running.snapshot(self.root)
    self._assert_refused(
      self._stage1(f'--workdir={self.tokenizer}', '--seed=5'),
      str(self.tokenizer),
      'run.seed=0, not 5',
    )
    self._assert_refused(
      self._stage2(f'--workdir={self.vim}', '--label_drop=0.2'),
      'label_drop=0.1, not 0.2',
    )
    self._assert_refused(
      self._stage2(f'--workdir={self.tokenizer}'), "of kind 'vit_vqgan'"
    )
    self.assertEqual(running.snapshot(self.root), before)

  def test_in_use(self):
    config = workdir_lib.read_config(self.tokenizer, 'vit_vqgan', Stage1Config)
    record = workdir_lib.read(self.tokenizer)
    facts = {key: value for key, value in record.items() if key != 'versions'}
    del facts['kind'], facts['config']
    other = workdir_lib.Workdir(self.tokenizer, 'vit_vqgan', config, facts)
    self._assert_refused(
      self._stage1(f'--workdir={self.tokenizer}'), 'Another run'
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
      for train in (self._stage1, self._stage2):
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
      self._assert_refused(self._stage1(workdir, *arguments), *texts)
    for arguments, texts in (
      (['--num_classes=3'], ('num_classes is 3', 'has 2 classes')),
      (['--codebook_size=64'], ('codebook_size is 64', '24')),
      (['--batch_size=64'], ('batch_size is 64', 'to train on')),
      (['--tokenizer='], ('No tokenizer was given', '--tokenizer')),
      ([f'--tokenizer={self.root}/none'], ('not a working directory',)),
      ([f'--tokenizer={self.vim}'], ("'vim', not 'vit_vqgan'",)),
      (['stray'], ("'stray' is not a flag",)),
    ):
      self._assert_refused(self._stage2(workdir, *arguments), *texts)

  def test_bad_flags(self):
    for arguments, text in (
      ((f'--workdir={self._new}', '--preset=huge'), 'huge'),
      ((f'--workdir={self._new}', '--no_such_flag=1'), 'no_such_flag'),
      ((), '--workdir'),
    ):
      result = self._stage1(*arguments)
      self.assertEqual(result.status, 1)
      self.assertIn(text, result.error)
      self.assertNotIn('Traceback', result.error)
      self.assertFalse(self._new.exists())

  def test_unwritable(self):
    file = self.create_tempfile(content='a file').full_path
    for result in (
      self._stage1(f'--workdir={file}/run'),
      self._stage2(f'--workdir={file}/run'),
      self._sample(f'--out={file}/out'),
    ):
      self._assert_refused(result, 'Cannot', file)
    self.assertEqual(pathlib.Path(file).read_text(), 'a file')

  def test_what_is_no_local_disk(self):
    there = os.listdir()
    for result, name in (
      (self._stage1('--workdir=gs://bucket/run'), '--workdir'),
      (self._stage2(f'--workdir={self._new}', '--codes=s3://b'), '--codes'),
      (self._stage2(f'--workdir={self._new}', '--tokenizer=gs://b'), '--tok'),
      (self._sample('--out=gs://bucket/out'), '--out'),
      (
        self._stage1(f'--workdir={self._new}', '--data=folder:gs://b'),
        'data.name',
      ),
    ):
      self._assert_refused(result, name, 'gcloud storage rsync')
    self.assertEqual(os.listdir(), there)

  def test_home(self):
    """`~` is the user's home folder, not one of that name."""
    home = str(self.root)
    with mock.patch.dict(os.environ, {'HOME': home}):
      with self.assertLogs('absl', 'INFO') as logs:
        result = self._stage2('--workdir=~/vim', '--tokenizer=~/tokenizer')
    self.assertEqual(result.status, 0, result.error)
    self.assertIn('steps are done', logs.output[-1])

  # ----------------------------------------------------------------- samples

  def test_samples(self):
    record = workdir_lib.read_json(self.out / 'samples.json')
    rows = record['samples']
    self.assertEqual(
      sorted(os.listdir(self.out)),
      sorted(['grid.png', 'samples.json', *(row['file'] for row in rows)]),
    )
    self.assertEqual(
      [row['class_name'] for row in rows],
      [name for name in _CLASSES for _ in range(_SAMPLES)],
    )
    self.assertEqual([row['seed'] for row in rows], list(range(len(rows))))
    self.assertEqual(record['step'], _STEPS)
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
    result = self._sample(
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
    result = self._sample(
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
      self._assert_refused(self._sample(*arguments), *texts)
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
