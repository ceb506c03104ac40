"""Faults that one process meets: each is tried often, in random places."""

import collections
from collections.abc import Callable
import contextlib
import io
import os
import pathlib
import random
import subprocess
import tempfile

import numpy as np

from tests.experiments import tiny_runs
from tests.faults import forks, toy_codes, toys
from vim_tf import presets
from vim_tf.config import Faults, replace
from vim_tf.data import errors, pipeline, sources
from vim_tf.training import batches, checkpoints, loop
from vim_tf.training import workdir as workdir_lib

_MEGABYTE = 2**20


def damaged_checkpoint(root: pathlib.Path, rng: random.Random) -> str:
  """The newest checkpoint is cut short or changed; the run goes on from it.

  Returns:
    What was lost; '' for nothing.
  """
  expected = toys.train(root / 'whole')
  toys.train(root / 'damaged')
  folder = root / 'damaged' / 'checkpoints' / f'step-{toys.STEPS:09d}'
  file = rng.choice(sorted(folder.iterdir()))
  content = bytearray(file.read_bytes())
  if rng.random() < 0.5:
    del content[rng.randrange(len(content)) :]
  else:
    place = rng.randrange(len(content))
    content[place] ^= 1 << rng.randrange(8)
  file.write_bytes(content)
  return _difference(toys.train(root / 'damaged'), expected)


def full_disk(root: pathlib.Path, rng: random.Random) -> str:
  """The disk fills up while a checkpoint is written; then there is room."""
  expected = toys.train(root / 'whole', padding=_MEGABYTE)
  disk = root / 'disk'
  disk.mkdir()
  subprocess.run(
    ['mount', '-t', 'tmpfs', '-o', 'size=24m', 'tmpfs', str(disk)], check=True
  )
  try:
    ballast = disk / 'ballast'
    ballast.write_bytes(bytes(rng.randint(13 * _MEGABYTE, 19 * _MEGABYTE)))
    try:
      toys.train(disk / 'run', padding=_MEGABYTE)
    except (checkpoints.CheckpointError, workdir_lib.WorkdirError) as error:
      if '\n' in str(error):
        return f'more than one line: {error}'
    else:
      return 'the disk did not fill up'
    left = os.listdir(disk / 'run' / 'checkpoints')
    if any(not name.startswith('step-') for name in left):
      return f'left behind: {left}'
    ballast.unlink()
    return _difference(toys.train(disk / 'run', padding=_MEGABYTE), expected)
  finally:
    subprocess.run(['umount', str(disk)], check=True)


def bad_image(root: pathlib.Path, rng: random.Random) -> str:
  """Some images of a folder are damaged: the others come as they would."""
  tiny_runs.make_images(root / 'images')
  clean = _batches(root, 'stop')
  files = sorted((root / 'images').rglob('train/*/*.png'))
  for file in rng.sample(files, rng.randint(1, 4)):
    content = file.read_bytes()
    file.write_bytes(content[: rng.randrange(len(content) - 20)])
  try:
    _batches(root, 'stop')
    return 'a damaged image was taken'
  except errors.DataError:
    pass
  return _unlike_but_for_broken(_batches(root, 'skip'), clean)


def bad_codes(root: pathlib.Path, rng: random.Random) -> str:
  """Files of cached codes are changed or cut short: they are refused."""
  toy_codes.write(root / 'codes')
  for path in rng.sample(sorted((root / 'codes').glob('train-*')), 2):
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    if rng.random() < 0.5:
      del content[rng.randrange(len(content)) :]
    path.write_bytes(content)
  try:
    toy_codes.training_batches(root / 'codes')
  except errors.DataError as error:
    if '\n' in str(error) or 'train-' not in str(error):
      return f'it does not name the file: {error}'
    return ''
  return 'a damaged file was taken'


def _unlike_but_for_broken(found, clean) -> str:
  """What differs between sound examples; or that none was counted broken."""
  if not any(batch['broken'].any() for batch in found):
    return 'nothing was counted'
  for ours, theirs in zip(found, clean, strict=True):
    sound = ours['broken'] == 0
    for name in theirs:
      if not np.array_equal(ours[name][sound], theirs[name][sound]):
        return f'{name} of sound examples differ'
  return ''


def _batches(root, on_bad_example):
  config = replace(
    presets.stage1('tiny').data, {'name': f'folder:{root / "images"}'}
  )
  source = sources.load(config, 'train', on_bad_example)
  data = pipeline.training_batches(source, config, batch_size=10, seed=3)
  return list(data.take(6).as_numpy_iterator())


def non_finite(root: pathlib.Path, rng: random.Random) -> str:
  """Data make the loss not a number; the run stops, or goes back and on."""
  bad = rng.randrange(toys.STEPS)
  try:
    toys.train(root / 'stops', frozenset([bad]))
    return 'it went on'
  except loop.NonFiniteError as error:
    if f'loss became nan at step {bad}' not in str(error):
      return str(error)
  saved = bad // 2 * 2
  if saved and checkpoints.steps(root / 'stops' / 'checkpoints')[-1] != saved:
    return 'the last good checkpoint is not there'
  faults = Faults(on_non_finite='restore')
  toys.train(root / 'restores', frozenset([bad]), faults)
  left_out = batches.Skips(root / 'restores')
  if left_out.batch_of(toys.STEPS) != toys.STEPS + bad - saved + 1:
    return 'other data were left out'
  rows = workdir_lib.read_metrics(root / 'restores')
  told = [row['first_x'] for row in rows if 'first_x' in row]
  numbers = [n for n in range(3 * toys.STEPS) if not saved <= n <= bad]
  firsts = [toys.batch_values(n)[0, 0] for n in numbers[: toys.STEPS]]
  means = np.reshape(firsts, [-1, toys.RUN.log_every]).mean(axis=1)
  return '' if np.allclose(told, means) else f'{told} instead of {means}'


def second_run(root: pathlib.Path, rng: random.Random) -> str:
  """A second run in a working directory is refused while the first lives."""
  del rng
  first = workdir_lib.Workdir(str(root / 'run'), 'toy', toys.RUN)
  before = (root / 'run' / 'config.json').read_bytes()

  def second():
    try:
      workdir_lib.Workdir(str(root / 'run'), 'toy', toys.RUN)
    except workdir_lib.WorkdirError as error:
      os._exit(7 if 'Another run is using' in str(error) else 8)

  status = forks.Fork(second, root / 'second.log').wait()
  first.close()
  if status != 7:
    return f'the second run ended with {status}'
  if (root / 'run' / 'config.json').read_bytes() != before:
    return 'config.json was changed'
  workdir_lib.Workdir(str(root / 'run'), 'toy', toys.RUN).close()
  return ''


def jumping_clock(root: pathlib.Path, rng: random.Random) -> str:
  """The time of day jumps by days at every look, in two lives of a run."""
  expected = toys.train(root / 'whole')
  try:
    with toys.jumping_clock(rng):
      toys.train(root / 'jumps', frozenset([5]))
    return 'it did not stop'
  except loop.NonFiniteError:
    pass
  with toys.jumping_clock(rng):
    return _difference(toys.train(root / 'jumps'), expected)


FAULTS = (
  damaged_checkpoint,
  full_disk,
  bad_image,
  bad_codes,
  non_finite,
  second_run,
  jumping_clock,
)


def try_often(
  fault: Callable[[pathlib.Path, random.Random], str],
  times: int,
  rng: random.Random,
) -> collections.Counter:
  """What was lost, and how often; {'': times} if it was nothing."""
  found = collections.Counter()
  for _ in range(times):
    with (
      tempfile.TemporaryDirectory() as folder,
      contextlib.redirect_stderr(io.StringIO()),
    ):
      found[fault(pathlib.Path(folder), rng)] += 1
  return found


def _difference(found: toys.Toy, expected: toys.Toy) -> str:
  same = all(map(np.array_equal, found.state(), expected.state()))
  return '' if same else 'the weights differ'
