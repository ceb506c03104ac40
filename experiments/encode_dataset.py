"""Encodes a data set with a trained tokenizer, once, for `train_vim --codes`.

  ./bazelw run //experiments:encode_dataset -- \
    --workdir=runs/tokenizer --out=codes --crops=10

It writes NumPy arrays of codes, of every training image in several augmented
crops and of every held-out one in its centre crop, and `manifest.json`, which
says what they are of. The data are those of the tokenizer's run, unless flags
say otherwise.

On many machines it runs as an Apache Beam pipeline, which writes the same
files, byte for byte:

  python -m experiments.encode_dataset --workdir=runs/tokenizer --out=codes \
    --beam --beam_option=--runner=FlinkRunner \
    --beam_option=--flink_master=host:8081

That needs the packages of requirements-beam.lock; all paths must mean the same
on all machines.
"""

from absl import flags
from etils import epy

from experiments import flags as flags_lib
from vim_tf import config as config_lib
from vim_tf.config import UserError

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from vim_tf.data import codes_writer
  from vim_tf.jobs import encode as encode_job
  from vim_tf.jobs import restore

flags.DEFINE_string(
  'workdir', None, '[model] Working directory of a stage-1 run.', required=True
)
flags.DEFINE_string(
  'out', None, '[output] Folder for the codes; must not exist.', required=True
)
flags.DEFINE_integer(
  'crops', 10, '[data] Augmented crops of each training image.', lower_bound=1
)
flags.DEFINE_integer(
  'seed',
  0,
  '[data] Seed of the augmentation; a run of train_vim with this --seed sees '
  'the codes that it would make online, for as many epochs as crops.',
  lower_bound=0,
)
flags.DEFINE_integer('batch_size', 64, '[run] Images at once.', lower_bound=1)
flags.DEFINE_enum(
  'precision',
  None,
  config_lib.INFERENCE_PRECISIONS,
  "[run] Numbers to compute in; by default the run's; auto: bfloat16 if a "
  'product is faster in it here.',
)
flags.DEFINE_integer(
  'shard_megabytes', 128, '[output] Size of a file at most.', lower_bound=1
)
flags.DEFINE_bool('beam', False, '[hardware] Whether to run it by Beam.')
flags.DEFINE_multi_string(
  'beam_option',
  [],
  "[hardware] An option of Beam's pipeline, such as --runner=FlinkRunner; may "
  'be given many times. Without any it runs on this machine.',
)
flags_lib.define(config_lib.BadExamples, 'data')
SETTINGS = flags_lib.settings_of(
  config_lib.Stage1Config,
  (
    *('data', 'data_dir', 'train_split', 'eval_split'),
    *('crop', 'max_shift', 'min_scale', 'flip'),
  ),
)
for _setting in SETTINGS:
  _setting.define()
flags_lib.define_strategy_flags()


def main():
  """Encodes with the settings of the flags."""
  given = flags.FLAGS
  codes_writer.check_new(given.out)  # Told before any data are read.
  policy = given.precision and restore.policy(given.precision)
  encode = _encode_by_beam if given.beam else _encode
  encode(
    policy,
    out=given.out,
    crops=given.crops,
    seed=given.seed,
    batch_size=given.batch_size,
    shard_bytes=given.shard_megabytes * 2**20,
    on_bad_example=given.on_bad_example,
  )


def _encode(policy: str | None, **arguments):
  with flags_lib.strategy_of_one_process().scope():
    tokenizer = restore.tokenizer(flags.FLAGS.workdir, policy)
  encode_job.encode(tokenizer, data=_data(tokenizer.config), **arguments)


def _encode_by_beam(policy: str | None, **arguments):
  try:
    from apache_beam.options import pipeline_options

    from vim_tf.jobs import encode_beam
  except ModuleNotFoundError as error:
    raise UserError(
      f'There is no {error.name}: install the packages of '
      'requirements-beam.lock.'
    ) from error
  workdir = flags.FLAGS.workdir
  data = _data(restore.tokenizer(workdir).config)
  encode_beam.encode(
    encode_beam.Job(workdir=workdir, data=data, dtype=policy, **arguments),
    pipeline_options.PipelineOptions(flags.FLAGS.beam_option),
  )


def _data(config: config_lib.Stage1Config) -> config_lib.DataConfig:
  """The data of a tokenizer's run, with the flags on top."""
  return config_lib.replace(config, flags_lib.changes_from_flags(SETTINGS)).data


if __name__ == '__main__':
  flags_lib.run(main, SETTINGS)
