"""Tests of the training programs: what they leave, and how they go on."""

import json
import os
import pathlib
import shutil
from unittest import mock

from absl.testing import parameterized
import numpy as np
from PIL import Image
import tensorflow as tf

from tests.experiments import running, trained
from tests.jobs import comparing
from vim_tf import presets
from vim_tf.config import Stage1Config, Stage2Config, replace
from vim_tf.data import folders
from vim_tf.jobs import restore
from vim_tf.training import optimizers
from vim_tf.training import workdir as workdir_lib

_KINDS = {
  'tokenizer': ('vit_vqgan', Stage1Config),
  'vim': ('vim', Stage2Config),
}


class TrainingTest(trained.TestCase):
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
      ['step-000000002', f'step-{trained.STEPS:09d}'],
    )
    self.assertLen(os.listdir(workdir / 'events'), 1)
    self.assertEqual(
      os.listdir(workdir / 'samples'), [f'{picture}-{trained.STEPS:09d}.png']
    )
    with Image.open(next((workdir / 'samples').iterdir())) as image:
      self.assertGreater(np.asarray(image).std(), 1.0)
    rows = workdir_lib.read_metrics(workdir)
    steps = [row['step'] for row in rows if 'loss' in row]
    self.assertEqual(steps, list(range(1, trained.STEPS + 1)))
    self.assertEqual([r['step'] for r in rows if figure in r], [trained.STEPS])
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
    self.assertEqual(record['class_names'], list(trained.CLASSES))
    self.assertEqual(
      workdir_lib.read_config(self.tokenizer, 'vit_vqgan', Stage1Config),
      replace(
        presets.stage1('tiny'),
        {
          'data.name': f'folder:{self.images}',
          'model.codebook_size': '24',
          'model.encoder.num_blocks': '1',
          'model.decoder.num_blocks': '1',
          'codebook.init_from_data': 'false',
          'run.num_steps': str(trained.STEPS),
          'run.batch_size': '4',
          'run.log_every': '1',
          'run.checkpoint_every': '2',
        },
      ),
    )
    second = workdir_lib.read_config(self.vim, 'vim', Stage2Config)
    self.assertEqual(second.data.name, f'folder:{self.images}')
    self.assertEqual(second.model.codebook_size, 24)
    self.assertEqual(second.model.num_classes, len(trained.CLASSES))
    self.assertEqual(second.label_drop, presets.stage2('tiny').label_drop)
    self.assertEqual(
      workdir_lib.read(self.vim)['tokenizer_fingerprint'],
      restore.fingerprint(restore.tokenizer(self.tokenizer).model),
    )

  @parameterized.parameters('tokenizer', 'vim')
  def test_again_says_that_it_is_done(self, name):
    workdir = self.root / name
    before = running.snapshot(workdir)
    train = (
      self.programs.stage1 if name == 'tokenizer' else self.programs.stage2
    )
    with self.assertLogs('absl', 'INFO') as logs:
      result = train(f'--workdir={workdir}')
    self.assertEqual((result.status, result.error_lines), (0, []))
    self.assertIn(f'all {trained.STEPS} steps are done', logs.output[-1])
    self.assertEqual(running.snapshot(workdir), before)

  @parameterized.parameters('tokenizer', 'vim')
  def test_goes_on_to_the_same_weights(self, name):
    """As after a kill between the checkpoints of step 2 and step 4."""
    killed = self._new / 'killed'
    shutil.copytree(self.root / name, killed)
    shutil.rmtree(killed / 'checkpoints' / f'step-{trained.STEPS:09d}')
    train = (
      self.programs.stage1 if name == 'tokenizer' else self.programs.stage2
    )
    self.assertEqual(train(f'--workdir={killed}').status, 0)
    found = comparing.read_checkpoint(killed, trained.STEPS)
    expected = comparing.read_checkpoint(self.root / name, trained.STEPS)
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
    self.assertIn(f'all {trained.STEPS} steps are done', logs.output[-1])
    self.assertEqual(running.snapshot(longer), before)
    end = trained.STEPS + 2
    tf.config.run_functions_eagerly(False)  # The loop's graph, for once.
    result = binary.run(
      f'--workdir={longer}', f'--steps={end}', f'--decay_end={end + 10}'
    )
    tf.config.run_functions_eagerly(True)
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
      {(trained.STEPS, 'run.num_steps', trained.STEPS, end)},
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
    accepted = train(*flags, '--accept_new_data')
    self.assertEqual(accepted.status, 0, accepted.error)
    self.assertEqual(workdir_lib.read(run)['data_images'], now)

  def test_home(self):
    """`~` is the user's home folder, not one of that name."""
    home = str(self.root)
    with mock.patch.dict(os.environ, {'HOME': home}):
      with self.assertLogs('absl', 'INFO') as logs:
        result = self.programs.stage2(
          '--workdir=~/vim', '--tokenizer=~/tokenizer'
        )
    self.assertEqual(result.status, 0, result.error)
    self.assertIn('steps are done', logs.output[-1])


if __name__ == '__main__':
  tf.test.main()
