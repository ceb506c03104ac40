"""Measures a trained model: one job a call.

  ./bazelw run //experiments:evaluate -- --job=reconstruction \
    --workdir=runs/tokenizer --out=evaluation/reconstruction
  ./bazelw run //experiments:evaluate -- --job=generation \
    --workdir=runs/vim --out=evaluation/generation --num_samples=1000
  ./bazelw run //experiments:evaluate -- --job=likelihood \
    --workdir=runs/vim --out=evaluation/likelihood

It prints a table, and writes `figures.json` (one line, with the whole
protocol) and the job's pictures: for reconstructions, the best, the median and
the worst; for samples, a gallery of each class. The distances are over the
named network's features: with EfficientNet-Lite0 they are not the FID of the
papers, and are not called so.

`JOBS` is the table of jobs. Each has its flags, and refuses those of others.
"""

from collections.abc import Callable
import dataclasses
import json

from absl import flags
from etils import epy
import numpy as np

from experiments import flags as flags_lib
from experiments import sampling_flags
from vim_tf import config as config_lib
from vim_tf.jobs import output
from vim_tf.training import workdir as workdir_lib

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from PIL import Image

  from vim_tf.jobs import (
    evaluate_likelihood,
    evaluate_reconstructions,
    evaluate_samples,
    references,
    restore,
  )

# --------------------------------------------------------- flags of every job

OUT = flags.DEFINE_string(
  'out', None, '[output] New or empty folder for the results.', required=True
)
WORKDIR = flags.DEFINE_string(
  'workdir', None, '[model] Working directory of the run.', required=True
)
BATCH = flags.DEFINE_integer(
  'batch_size', 32, '[run] Images at once; changes no figure.', lower_bound=1
)
MAX_IMAGES = flags.DEFINE_integer(
  'max_images', 50_000, '[data] Real images of a split at most.', lower_bound=1
)
DATA = flags_lib.settings_of(
  config_lib.Stage1Config, ('data', 'data_dir', 'train_split', 'eval_split')
)
for _setting in DATA:
  _setting.define()
flags_lib.define_bad_example_flag()
flags_lib.define_strategy_flags()

_COMMON = (
  'job',
  'out',
  'workdir',
  'batch_size',
  'max_images',
  'on_bad_example',
  *(setting.flag for setting in DATA if setting.flag != 'train_split'),
)

# ----------------------------------------------------------- flags of some jobs

NETWORK = flags.DEFINE_string(
  'network',
  config_lib.FEATURE_NETWORK,
  '[reconstruction, generation] Feature network: efficientnet_lite0 (or 1, 2), '
  'inception, inception:PATH or file:PATH; empty, of a reconstruction: no '
  'distances.',
)
PERCEPTUAL = flags.DEFINE_bool(
  'perceptual', True, '[reconstruction] Measure LPIPS (VGG16).'
)
PRECISIONS = flags.DEFINE_bool(
  'precisions',
  False,
  '[reconstruction] Also compare the codes of bfloat16 with those of float32.',
)
TOKENIZER = flags.DEFINE_string(
  'tokenizer',
  '',
  "[generation, likelihood] The VIM's stage-1 run, if that was moved.",
)
NUM_SAMPLES = flags.DEFINE_integer(
  'num_samples', 1000, '[generation] Samples to score.', lower_bound=4
)
SEED = flags.DEFINE_integer(
  'seed', 0, '[generation] Seed of the first sample; the next ones count up.', 0
)
CLASS_MIX = flags.DEFINE_enum(
  'class_mix',
  'data',
  list(config_lib.CLASS_MIXES),
  '[generation] data: classes as often as in the reference; equal: all alike.',
)
REFERENCE = flags.DEFINE_string(
  'reference',
  '',
  '[generation] File of reference features; empty: made of --reference_split.',
)
SAVE_REFERENCE = flags.DEFINE_string(
  'save_reference', '', '[generation] .npz file to keep new ones in.'
)
REFERENCE_SPLIT = flags.DEFINE_string(
  'reference_split',
  '',
  '[generation] Split that distances are from; empty: the training split.',
)
CODES = flags.DEFINE_string(
  'codes',
  '',
  '[likelihood] Folder of encode_dataset; empty: codes are made from images.',
)
PASSES = flags.DEFINE_integer(
  'passes',
  7,
  '[likelihood] Augmented passes over the training images that the counting '
  'models learn from.',
  lower_bound=1,
)
CLASSIFY = flags.DEFINE_bool(
  'classify',
  False,
  '[likelihood] Whether to classify the images, too: each is of the class '
  'under which its codes are likeliest. Takes a pass for every class.',
)
sampling_flags.define()


@dataclasses.dataclass(frozen=True)
class Job:
  """One thing that can be measured.

  Attributes:
    run: Measures. Gives the result, a JSON object with 'job', 'figures' and
      'protocol', and uint8 pictures by file name.
    flags: Names of the flags that it takes beside those of every job.
  """

  run: Callable[[], tuple[dict, dict[str, np.ndarray]]]
  flags: tuple[str, ...]


def _reconstruction():
  """How well a tokenizer reconstructs held-out images (paper Table 3)."""
  with flags_lib.strategy_of_one_process().scope():
    tokenizer = restore.tokenizer(WORKDIR.value)
  config = config_lib.replace(
    tokenizer.config, flags_lib.changes_from_flags(DATA)
  )
  result, picture = evaluate_reconstructions.evaluate(
    tokenizer,
    evaluate_reconstructions.Protocol(
      data=config.data,
      max_images=MAX_IMAGES.value,
      batch_size=BATCH.value,
      network=NETWORK.value,
      perceptual=PERCEPTUAL.value,
      precisions=PRECISIONS.value,
      on_bad_example=flags.FLAGS.on_bad_example,
    ),
  )
  return result, {'reconstructions.png': picture}


def _generation():
  """How good a VIM's samples are (paper Tables 5, 6 and 8)."""
  if REFERENCE.value and (REFERENCE_SPLIT.value or SAVE_REFERENCE.value):
    raise config_lib.ConfigError(
      '--reference reads features that were made before: leave out '
      '--reference_split and --save_reference.'
    )
  if SAVE_REFERENCE.value:
    output.check_file('save_reference', SAVE_REFERENCE.value)
  sampling_config = sampling_flags.config()
  acceptance = sampling_flags.acceptance()
  with flags_lib.strategy_of_one_process().scope():
    tokenizer, vim = restore.both(
      WORKDIR.value,
      TOKENIZER.value,
      restore.policy(flags.FLAGS[sampling_flags.PRECISION].value),
    )
  config = config_lib.replace(vim.config, flags_lib.changes_from_flags(DATA))
  protocol = evaluate_samples.Protocol(
    data=config.data,
    max_images=MAX_IMAGES.value,
    num_samples=NUM_SAMPLES.value,
    class_mix=CLASS_MIX.value,
    seed=SEED.value,
    sampling=sampling_config,
    acceptance=acceptance,
    classifier=flags.FLAGS.classifier,
    network=NETWORK.value,
    reference=REFERENCE.value,
    save_reference=SAVE_REFERENCE.value,
    reference_split=REFERENCE_SPLIT.value,
    batch_size=BATCH.value,
    on_bad_example=flags.FLAGS.on_bad_example,
  )
  return evaluate_samples.evaluate(
    tokenizer, vim, protocol, references.heads_folder(WORKDIR.value)
  )


def _likelihood():
  """How well a VIM predicts held-out codes, in bits and nats."""
  with flags_lib.strategy_of_one_process().scope():
    tokenizer, vim = restore.both(WORKDIR.value, TOKENIZER.value)
  config = config_lib.replace(vim.config, flags_lib.changes_from_flags(DATA))
  result = evaluate_likelihood.evaluate(
    tokenizer,
    vim,
    evaluate_likelihood.Protocol(
      data=config.data,
      max_images=MAX_IMAGES.value,
      batch_size=BATCH.value,
      codes=CODES.value,
      passes=PASSES.value,
      classify=CLASSIFY.value,
      on_bad_example=flags.FLAGS.on_bad_example,
    ),
  )
  return result, {}


JOBS = {
  'reconstruction': Job(
    _reconstruction, ('network', 'perceptual', 'precisions')
  ),
  'generation': Job(
    _generation,
    (
      'network',
      'tokenizer',
      'train_split',
      'num_samples',
      'seed',
      'class_mix',
      'reference',
      'save_reference',
      'reference_split',
      *sampling_flags.ALL,
    ),
  ),
  'likelihood': Job(
    _likelihood, ('tokenizer', 'train_split', 'codes', 'passes', 'classify')
  ),
}
JOB = flags.DEFINE_enum(
  'job', 'reconstruction', list(JOBS), '[what] What to measure.'
)


def main():
  """Measures, prints and writes."""
  job = JOBS[JOB.value]
  _refuse_flags_of_others(JOB.value)
  with output.new_folder(OUT.value) as out:
    result, pictures = job.run()
    for part in ('protocol', 'figures'):
      print(f'\n{part}')
      _print(result[part])
    (out / 'figures.json').write_text(
      json.dumps(workdir_lib.without_nan(result), allow_nan=False) + '\n'
    )
    for name, picture in pictures.items():
      Image.fromarray(picture).save(out / name)


def _refuse_flags_of_others(name: str):
  """Raises a `ConfigError` for a flag that says nothing to this job."""
  own = {*_COMMON, *JOBS[name].flags}
  for other, job in JOBS.items():
    for flag in job.flags:
      if flag not in own and flags.FLAGS[flag].present:
        raise config_lib.ConfigError(
          f'--{flag} belongs to --job={other}, not to --job={name}: leave it '
          'out, or choose another job.'
        )


def _print(values: dict, indent: int = 2):
  """Prints a table; a dictionary in it is a table of its own, further in."""
  for name, value in values.items():
    if isinstance(value, dict):
      print(f'{" " * indent}{name}')
      _print(value, indent + 2)
    else:
      text = f'{value:.5g}' if isinstance(value, float) else value
      print(f'{" " * indent}{name:{34 - indent}} {text}')


if __name__ == '__main__':
  flags_lib.run(main, DATA)
