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
from vim_tf import protocols
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

OUT = flags.DEFINE_string(
  'out', None, '[output] New or empty folder for the results.', required=True
)
WORKDIR = flags.DEFINE_string(
  'workdir', None, '[model] Working directory of the run.', required=True
)
TOKENIZER = flags.DEFINE_string(
  'tokenizer',
  '',
  "[generation, likelihood] The VIM's stage-1 run, if that was moved.",
)
DATA = flags_lib.settings_of(
  config_lib.Stage1Config, ('data', 'data_dir', 'train_split', 'eval_split')
)
for _setting in DATA:
  _setting.define()
flags_lib.define_strategy_flags()
_COMMON = flags_lib.define(protocols.Protocol, 'data')
_SAMPLING = sampling_flags.define()
flags_lib.define(protocols.DistanceProtocol, 'reconstruction, generation')


def _reconstruction():
  """How well a tokenizer reconstructs held-out images (paper Table 3)."""
  protocol = flags_lib.read(protocols.ReconstructionProtocol)
  with flags_lib.strategy_of_one_process().scope():
    tokenizer = restore.tokenizer(WORKDIR.value)
  result, picture = evaluate_reconstructions.evaluate(
    tokenizer, _with_data(protocol, tokenizer)
  )
  return result, {'reconstructions.png': picture}


def _generation():
  """How good a VIM's samples are (paper Tables 5, 6 and 8)."""
  sampling_flags.selection()  # Refuses a classifier for nothing.
  protocol = flags_lib.read(
    protocols.SamplesProtocol,
    sampling=flags_lib.read(config_lib.SamplingConfig),
  )
  if protocol.reference and (
    protocol.reference_split or protocol.save_reference
  ):
    raise config_lib.ConfigError(
      '--reference reads features that were made before: leave out '
      '--reference_split and --save_reference.'
    )
  if protocol.save_reference:
    output.check_file('save_reference', protocol.save_reference)
  with flags_lib.strategy_of_one_process().scope():
    tokenizer, vim = restore.both(
      WORKDIR.value,
      TOKENIZER.value,
      restore.policy(flags.FLAGS[sampling_flags.PRECISION].value),
    )
  return evaluate_samples.evaluate(
    tokenizer,
    vim,
    _with_data(protocol, vim),
    references.heads_folder(WORKDIR.value),
  )


def _likelihood():
  """How well a VIM predicts held-out codes, in bits and nats."""
  protocol = flags_lib.read(protocols.LikelihoodProtocol)
  with flags_lib.strategy_of_one_process().scope():
    tokenizer, vim = restore.both(WORKDIR.value, TOKENIZER.value)
  return evaluate_likelihood.evaluate(
    tokenizer, vim, _with_data(protocol, vim)
  ), {}


def _with_data(protocol, run):
  """The protocol with the data of a run and of the flags."""
  changes = flags_lib.changes_from_flags(DATA)
  data = config_lib.replace(run.config, changes).data
  return dataclasses.replace(protocol, data=data)


@dataclasses.dataclass(frozen=True)
class Job:
  """One thing that can be measured.

  Attributes:
    run: Measures. Gives the result, a JSON object with 'job', 'figures' and
      'protocol', and uint8 pictures by file name.
    flags: Names of the flags that not every job takes.
  """

  run: Callable[[], tuple[dict, dict[str, np.ndarray]]]
  flags: tuple[str, ...]


JOBS = {
  'reconstruction': Job(
    _reconstruction,
    flags_lib.define(protocols.ReconstructionProtocol, 'reconstruction'),
  ),
  'generation': Job(
    _generation,
    (
      *flags_lib.define(protocols.SamplesProtocol, 'generation'),
      *('tokenizer', 'train_split', *_SAMPLING),
    ),
  ),
  'likelihood': Job(
    _likelihood,
    (
      *flags_lib.define(protocols.LikelihoodProtocol, 'likelihood'),
      *('tokenizer', 'train_split'),
    ),
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
