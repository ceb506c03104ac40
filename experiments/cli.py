"""What all binaries share: flags to configs, and errors in one line."""

from collections.abc import Callable, Sequence
import dataclasses
import os
import sys

from absl import app, flags, logging
import tensorflow as tf

from vim_tf import config as config_lib
from vim_tf import config_faults
from vim_tf.data import errors
from vim_tf.training import preemption, workers
from vim_tf.training import strategy as strategy_lib


@dataclasses.dataclass(frozen=True)
class Setting:
  """A flag that stands for settings of a config.

  Attributes:
    flag: The flag's name.
    paths: The settings it sets, with dots.
    help: What it is, with its unit and the paper's section; the group comes
      first, in brackets.
  """

  flag: str
  paths: tuple[str, ...]
  help: str

  def define(self):
    """Defines the flag; unset, it leaves the preset's value."""
    flags.DEFINE_string(self.flag, None, self.help)


RUN = (
  Setting('steps', ('run.num_steps',), '[run] Training steps (5.1, 5.2).'),
  Setting(
    'batch_size', ('run.batch_size',), '[run] Global batch, images (5.1, 5.2).'
  ),
  Setting('seed', ('run.seed',), '[run] The one seed of the run.'),
  Setting(
    'precision', ('run.precision',), '[run] Compute in float32 or bfloat16.'
  ),
  Setting(
    'recompute',
    ('run.recompute',),
    '[run] true: recompute activations in the backward pass, for memory.',
  ),
  Setting(
    'deterministic',
    ('run.deterministic',),
    '[run] true: ask TensorFlow for deterministic kernels.',
  ),
  Setting(
    'steps_per_loop', ('run.steps_per_loop',), '[run] Steps of one chunk.'
  ),
  Setting('log_every', ('run.log_every',), '[run] Steps between rows.'),
  Setting(
    'eval_every', ('run.eval_every',), '[run] Steps between evaluations.'
  ),
  Setting(
    'picture_every', ('run.picture_every',), '[run] Steps between pictures.'
  ),
  Setting(
    'checkpoint_every',
    ('run.checkpoint_every',),
    '[run] Steps between checkpoints.',
  ),
  Setting(
    'keep_checkpoints', ('run.keep_checkpoints',), '[run] Checkpoints kept.'
  ),
  Setting(
    'eval_examples',
    ('run.eval_examples',),
    '[run] Held-out images of one evaluation at most.',
  ),
)

DATA = (
  Setting(
    'data',
    ('data.name',),
    '[data] openmoji, openmoji_variants, digits, a TFDS name, or folder:PATH.',
  ),
  Setting('data_dir', ('data.data_dir',), '[data] Where TFDS keeps data.'),
  Setting('train_split', ('data.train_split',), '[data] Split to train on.'),
  Setting('eval_split', ('data.eval_split',), '[data] Held-out split.'),
  Setting(
    'crop',
    ('data.crop',),
    '[data] Augmentation: center, shift or random_resized.',
  ),
  Setting('max_shift', ('data.max_shift',), '[data] Largest shift, in pixels.'),
  Setting(
    'min_scale',
    ('data.min_scale',),
    '[data] Smallest share of the area kept by random_resized.',
  ),
  Setting('flip', ('data.flip',), '[data] true: mirror images at random.'),
  Setting(
    'balance_classes',
    ('data.balance_classes',),
    '[data] true: draw every class equally often.',
  ),
)

OPTIMIZER = (
  Setting(
    'optimizer',
    ('optimizer.name',),
    '[optimizer] adam (5.1) or adafactor (5.2).',
  ),
  Setting(
    'learning_rate',
    ('optimizer.learning_rate',),
    '[optimizer] Highest learning rate (5.1, 5.2).',
  ),
  Setting(
    'beta_1', ('optimizer.beta_1',), '[optimizer] Decay of the first moment.'
  ),
  Setting(
    'beta_2',
    ('optimizer.beta_2',),
    '[optimizer] Decay of the second moment (5.1, 5.2).',
  ),
  Setting(
    'warmup_steps',
    ('optimizer.warmup_steps',),
    '[optimizer] Steps of linear warm-up (5.1, 5.2).',
  ),
  Setting(
    'decay',
    ('optimizer.decay',),
    '[optimizer] Fall of the learning rate: constant, cosine or exponential.',
  ),
  Setting(
    'decay_start',
    ('optimizer.decay_start',),
    '[optimizer] Step at which the learning rate begins to fall (5.1, 5.2).',
  ),
  Setting(
    'decay_end',
    ('optimizer.decay_end',),
    '[optimizer] Step at which the learning rate is lowest (5.1, 5.2).',
  ),
  Setting(
    'final_learning_rate',
    ('optimizer.final_learning_rate',),
    '[optimizer] Lowest learning rate (5.1, 5.2).',
  ),
  Setting(
    'weight_decay',
    ('optimizer.weight_decay',),
    '[optimizer] Decoupled weight decay (5.1).',
  ),
  Setting(
    'clip_norm',
    ('optimizer.clip_norm',),
    '[optimizer] Largest gradient norm; 0: no clipping.',
  ),
  Setting(
    'ema_decay',
    ('optimizer.ema_decay',),
    "[optimizer] Decay of the weights' moving average; 0: none.",
  ),
  Setting(
    'accumulate',
    ('optimizer.accumulate',),
    '[optimizer] Micro-batches of one update.',
  ),
)


def define_run_flags(presets: Sequence[str], default: str):
  """Defines the flags that say what a training run is."""
  flags.DEFINE_string(
    'workdir', None, '[run] Working directory; a run goes on from it.'
  )
  flags.DEFINE_enum(
    'preset', default, list(presets), '[run] Settings to start from.'
  )
  flags.DEFINE_multi_string(
    'set',
    [],
    '[run] Any setting as PATH=VALUE, such as model.encoder.width=384; may be '
    'given many times.',
  )
  flags.DEFINE_string(
    'config', None, '[run] JSON file with a whole config, instead of --preset.'
  )
  define_strategy_flags()


def define_strategy_flags():
  """Defines the flags that say where replicas run."""
  flags.DEFINE_enum(
    'strategy',
    'auto',
    list(strategy_lib.NAMES),
    '[hardware] Where to run; auto: all GPUs of this machine, or its CPU; '
    'multi_worker: the cluster of TF_CONFIG.',
  )
  flags.DEFINE_string(
    'tpu', 'local', "[hardware] local on a Cloud TPU VM, or a TPU's name."
  )


def define_bad_example_flag():
  """Defines the flag of all that reads images."""
  flags.DEFINE_enum(
    'on_bad_example',
    'stop',
    list(config_faults.ON_BAD_EXAMPLE),
    '[data] At an image or record that cannot be read: stop and name it, or '
    'skip it. In training and in a cache of codes another example stands in.',
  )


def define_fault_flags():
  """Defines the flags that say what a run does about faults."""
  define_bad_example_flag()
  flags.DEFINE_enum(
    'on_non_finite',
    'stop',
    list(config_faults.ON_NON_FINITE),
    '[run] At a loss that is infinite or not a number: stop, or restore the '
    'last checkpoint and leave out the data since then.',
  )


def faults() -> config_faults.Faults:
  """What the flags say about faults."""
  return config_faults.Faults(
    flags.FLAGS.on_bad_example, flags.FLAGS.on_non_finite
  )


def strategy() -> tf.distribute.Strategy:
  """The strategy that the flags ask for."""
  return strategy_lib.make(flags.FLAGS.strategy, flags.FLAGS.tpu)


def changes_from_flags(settings: Sequence[Setting]) -> dict[str, str]:
  """The settings that flags were given for, as `config.replace` takes them."""
  changes = {}
  for setting in settings:
    value = flags.FLAGS[setting.flag].value
    if value is not None:
      changes.update(dict.fromkeys(setting.paths, value))
  return changes


def config_from_flags(
  preset: Callable, settings: Sequence[Setting], start=None
):
  """The config of a run: its preset, or --config, with the flags on top.

  Args:
    preset: From a preset's name to its config.
    settings: The flags that the binary defined; of two that set the same, the
      later one holds.
    start: The config to start from where neither flag is given.

  Raises:
    ConfigError: If a setting is unknown or does not fit.
  """
  config = preset(flags.FLAGS.preset)
  if start is not None and flags.FLAGS['preset'].using_default_value:
    config = start
  if flags.FLAGS.config:
    try:
      with open(flags.FLAGS.config) as file:
        config = config_lib.from_json(type(config), file.read())
    except OSError as error:
      raise config_lib.ConfigError(
        f'Cannot read --config={flags.FLAGS.config}: {error.strerror}.'
      ) from error
  changes = changes_from_flags(settings)
  for text in flags.FLAGS.set:
    path, equals, value = text.partition('=')
    if not equals:
      raise config_lib.ConfigError(
        f'--set={text} has no value: write --set=PATH=VALUE.'
      )
    changes[path] = value
  return config_lib.replace(config, changes)


def run(main: Callable[[], None]):
  """Runs a binary: in the caller's directory, bad input in one line.

  Args:
    main: What to do once the flags are parsed.
  """

  def wrapped(argv):
    # `bazel run` starts binaries in a folder of its own.
    os.chdir(os.environ.get('BUILD_WORKING_DIRECTORY', '.'))
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    # TFDS tells of every file that it opens; ours are the lines to read.
    logging.get_absl_handler().addFilter(
      lambda record: 'tensorflow_datasets' not in record.pathname
    )
    try:
      if len(argv) > 1:
        raise config_lib.UserError(
          f'{argv[1]!r} is not a flag; every setting is given as --name=value.'
        )
      main()
    except workers.WorkerLost as error:
      _leave(error)
    except preemption.Restart as error:
      print(error, file=sys.stderr)
      sys.exit(preemption.EXIT_STATUS)
    except config_lib.UserError as error:
      _fail(error)
    except Exception as error:
      found = errors.find_data_error(error)
      if found is not None:
        _fail(found)
      found = workers.lost('The run', error)  # Before it came to its loop.
      if found is None:
        raise
      _leave(found)

  app.run(wrapped)


def _leave(error: workers.WorkerLost):
  print(error, file=sys.stderr, flush=True)
  workers.leave(preemption.EXIT_STATUS)


def _fail(error: Exception):
  print(f'error: {error}', file=sys.stderr)
  sys.exit(1)
