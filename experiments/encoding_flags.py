"""The flags of both binaries that encode a data set."""

from absl import flags
from etils import epy

from experiments import flags as flags_lib
from vim_tf import config as config_lib

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from vim_tf.jobs import restore

SETTINGS = flags_lib.settings_of(
  config_lib.Stage1Config,
  (
    *('data', 'data_dir', 'train_split', 'eval_split'),
    *('crop', 'max_shift', 'min_scale', 'flip'),
  ),
)


def define():
  """Defines them."""
  flags.DEFINE_string(
    'workdir',
    None,
    '[model] Working directory of a stage-1 run.',
    required=True,
  )
  flags.DEFINE_string(
    'out',
    None,
    '[output] Folder for the codes; must not exist.',
    required=True,
  )
  flags.DEFINE_integer(
    'crops',
    10,
    '[data] Augmented crops of each training image.',
    lower_bound=1,
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
  flags_lib.define_bad_example_flag()
  for setting in SETTINGS:
    setting.define()


def policy() -> str | None:
  """The policy to compute in; None: that of the run."""
  precision = flags.FLAGS.precision
  return restore.policy(precision) if precision else None


def data(config: config_lib.Stage1Config) -> config_lib.DataConfig:
  """The data of a tokenizer's run, with the flags on top."""
  return config_lib.replace(config, flags_lib.changes_from_flags(SETTINGS)).data
