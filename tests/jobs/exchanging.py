"""Makes one of everything that a run leaves, and says what it reads of such.

  python -m tests.jobs.exchanging OURS THEIRS

reads the folder OURS, makes the folder THEIRS and reads that, too; what was
read is in OURS-by-other.npz and THEIRS-by-other.npz. The last word that it
prints is TensorFlow's version. `exchange_test.py` runs it in the environment of
the other TensorFlow and compares. What lies in `exchange/` was written by

  python -m tests.jobs.exchanging --keep tests/jobs/exchange
"""

import os
import pathlib
import shutil
import sys
import tempfile

import numpy as np
import tensorflow as tf

import export.probe
import export.sampler
import export.tokenizer
from tests import programs, testing
from tests.experiments import tiny_runs
from tests.export import tiny
from tests.jobs import comparing
import vim_tf
from vim_tf import presets
from vim_tf.config import Stage1Config, Stage2Config, replace
from vim_tf.data import codes as codes_lib
from vim_tf.jobs import encode as encode_job
from vim_tf.jobs import restore, train_tokenizer, train_vim
from vim_tf.training import checkpoints
from vim_tf.training import workdir as workdir_lib

END = 4
KEPT = 2
"""Steps of a run, and of its first checkpoint, from which it is resumed."""
_SMALL = {'width': '8', 'mlp_width': '16'}
_RUN = {
  'run.num_steps': str(END),
  'run.batch_size': '4',
  'run.steps_per_loop': '1',
  'run.log_every': '1',
  'run.checkpoint_every': str(KEPT),
  'run.eval_every': str(END),
  'run.picture_every': '0',
  'optimizer.ema_decay': '0.5',
}
_SAMPLING = {'temperature': 0.9, 'top_p': 0.9, 'guidance_scale': 2.0}
_COUNT = 8
_STAGES = {
  'tokenizer': ('vit_vqgan', Stage1Config, train_tokenizer.train),
  'vim': ('vim', Stage2Config, train_vim.train),
}


def _tokenizer_config(small: bool):
  return replace(
    presets.stage1('tiny'),
    {
      'data.name': 'folder:images',
      **{f'model.encoder.{k}': v for k, v in _SMALL.items()},
      **{f'model.decoder.{k}': v for k, v in _SMALL.items()},
      'losses.adversarial': '0' if small else '0.1',
      'adversarial.channel_multiplier': '0.0078125',
      'codebook.init_from_data': 'false',
      **_RUN,
      **({'run.num_steps': str(KEPT)} if small else {}),
    },
  )


def _vim_config(small: bool):
  return replace(
    presets.stage2('tiny'),
    {
      'data.name': 'folder:images',
      **{f'model.transformer.{k}': v for k, v in _SMALL.items()},
      'model.num_classes': '2',
      'tokenizer': 'tokenizer',
      'codes': 'codes',
      'optimizer.name': 'adafactor',
      **_RUN,
      **({'run.num_steps': str(KEPT)} if small else {}),
    },
  )


def make(folder: str | os.PathLike, small: bool = False):
  """Trains both stages, encodes, and exports, all into an empty folder.

  Paths in it are relative to it, so that it can be moved.

  Args:
    folder: It may hold `images` already.
    small: As a run that was stopped after its first checkpoint, without a
      discriminator and without exports.
  """
  pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
  with programs.inside(folder), testing.eagerly():
    if not os.path.exists('images'):
      tiny_runs.make_images(pathlib.Path('images'))
    train_tokenizer.train(_tokenizer_config(small), 'tokenizer')
    encode_job.encode(restore.tokenizer('tokenizer'), 'codes', crops=2)
    train_vim.train(_vim_config(small), 'vim')
    tiny.probe(pathlib.Path('probe'), pathlib.Path('vim'))
  if small:
    return
  with programs.inside(folder):
    export.tokenizer.export('tokenizer', 'exports/tokenizer')
    export.sampler.export('vim', 'exports/sampler')
    export.probe.export('probe', 'exports/probe')


def read(folder: str | os.PathLike) -> dict[str, np.ndarray]:
  """Whatever can be had from what `make` wrote, by name.

  Names begin with 'exact/' where other TensorFlows must find the same, and
  with 'near/' where they may round in another way.
  """
  found = {}
  with programs.inside(folder):
    _read_runs(found)
    _read_codes(found)
    if os.path.exists('exports'):
      _read_exports(found)
    for name in _STAGES:
      _resume(name, found)
  return found


def _images() -> np.ndarray:
  return np.random.default_rng(1).random([_COUNT, 16, 16, 3], np.float32)


def _read_runs(found: dict):
  run = vim_tf.load('probe')
  images, classes = _images(), np.arange(_COUNT) % 2
  for name, model in (
    ('tokenizer', run.tokenizer),
    ('vim', run.vim),
    ('probe', run.probe.layer),
  ):
    found[f'exact/weights of {name}'] = np.array(restore.fingerprint(model))
  found['exact/codes'] = run.encode(images)
  found['near/decoded'] = run.decode(found['exact/codes'])
  found['near/probabilities'] = run.classify(images)
  run = vim_tf.load('vim')
  for name, settings in (('plain', {}), ('guided', _SAMPLING)):
    codes = run.sample_codes(classes, **settings)
    found[f'exact/samples, {name}'] = codes
    found[f'near/samples, {name}'] = run.decode(codes)


def _read_codes(found: dict):
  cache = codes_lib.Cache('codes')
  cache.check_files()
  found['exact/cache'] = np.array(cache.fingerprint)
  batches = codes_lib.training_batches(cache, batch_size=_COUNT, seed=3)
  for key, value in next(iter(batches)).items():
    found[f'exact/batch of codes, {key}'] = value.numpy()


def _read_exports(found: dict):
  files = {'image_bytes': tf.constant(tiny.files(_COUNT))}
  drawn = {
    'class_ids': np.int32(np.arange(_COUNT) % 2),
    'seeds': np.arange(_COUNT),
    'temperature': np.float32([1.0] * _COUNT),
    'top_k': np.int32([0] * _COUNT),
    'top_p': np.float32([0.9] * _COUNT),
    'guidance_scale': np.float32([2.0] * _COUNT),
  }
  for model, name, inputs in (
    ('tokenizer', 'serving_default', files),
    ('sampler', 'sample_images', drawn),
    ('probe', 'serving_default', files),
  ):
    loaded = tf.saved_model.load(f'exports/{model}/1')
    outputs = loaded.signatures[name](
      **{key: tf.constant(value) for key, value in inputs.items()}
    )
    for key, value in outputs.items():
      if value.dtype == tf.string:
        continue  # Names of the classes, of which there are the ids, too.
      kind = 'near' if value.dtype.is_floating else 'exact'
      found[f'{kind}/exported {model}, {key}'] = value.numpy()


def _resume(name: str, found: dict):
  """What a run comes to that goes on from its first checkpoint."""
  with tempfile.TemporaryDirectory(dir='.') as scratch, testing.eagerly():
    copy = pathlib.Path(scratch) / name
    shutil.copytree(name, copy)
    for step in checkpoints.steps(copy / 'checkpoints'):
      if step > KEPT:
        shutil.rmtree(copy / 'checkpoints' / f'step-{step:09d}')
    kind, cls, train = _STAGES[name]
    config = workdir_lib.read_config(copy, kind, cls)
    train(replace(config, {'run.num_steps': str(END)}), copy)
    for key, value in comparing.read_checkpoint(copy, END).items():
      kind = 'near' if np.issubdtype(value.dtype, np.floating) else 'exact'
      found[f'{kind}/resumed {name}, {key}'] = value
    for row in comparing.timeless_rows(copy):
      for key, value in row.items():
        found[f'near/figures of {name} at {row["step"]}, {key}'] = value


def keep(folder: str | os.PathLike):
  """Writes what `exchange_test.py` keeps of this TensorFlow.

  Args:
    folder: Holds `images`, or gets them; the rest goes into a folder therein.
  """
  folder = pathlib.Path(folder)
  if not (folder / 'images').exists():
    tiny_runs.make_images(folder / 'images')
  kept = folder / f'tensorflow-{tf.__version__.rpartition(".")[0]}'
  kept.mkdir()
  (kept / 'images').symlink_to('../images')
  make(kept, small=True)
  for name in _STAGES:  # Only what is read.
    for also in ('events', 'samples'):
      shutil.rmtree(kept / name / also, ignore_errors=True)
  found = {k: v for k, v in read(kept).items() if '/resumed ' not in k}
  np.savez_compressed(kept / 'found.npz', **found)
  (kept / 'images').unlink()


def main():
  """Does what the module says."""
  if sys.argv[1] == '--keep':
    return keep(sys.argv[2])
  ours, theirs = sys.argv[1:]
  make(theirs)
  for folder in (ours, theirs):
    np.savez(f'{folder}-by-other.npz', **read(folder))
  print(tf.__version__)


if __name__ == '__main__':
  main()
