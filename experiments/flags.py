"""What all binaries share: flags to configs, and errors in one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
import gc
import json
import os
import pathlib
import sys

from absl import app, flags, logging
from etils import epy

from experiments import flag_help
from vim_tf import config as config_lib
from vim_tf import machine, places
from vim_tf.data import errors
from vim_tf.training import preemption, run_record
from vim_tf.training import workdir as workdir_lib

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  import tensorflow as tf

  from vim_tf.training import strategy as strategy_lib
  from vim_tf.training import workers


@dataclasses.dataclass(frozen=True)
class Setting:
  """A flag that stands for settings of a config.

  Attributes:
    flag: The flag's name.
    paths: The settings it sets, with dots: its own, then those that follow it
      unless they are given themselves.
    help: What it is, with its unit and the paper's section; the group comes
      first, in brackets.
    boolean: Whether it is true or false, so that --flag and --noflag do.
  """

  flag: str
  paths: tuple[str, ...]
  help: str
  boolean: bool = False

  def define(self):
    """Defines the flag; unset, it leaves the preset's value."""
    define = flags.DEFINE_boolean if self.boolean else flags.DEFINE_string
    define(self.flag, None, self.help)


def settings_of(
  cls: type,
  only: Sequence[str] | None = None,
  also: Mapping[str, tuple[str, ...]] | None = None,
) -> tuple[Setting, ...]:
  """The flags of a config's settings, as they are declared with them.

  Settings that name one flag are set by it together.

  Args:
    cls: Class of the config.
    only: Names of the flags that are wanted; None: all.
    also: Further settings that a flag sets, by its name.
  """
  found: dict[str, Setting] = {}
  for one in config_lib.settings_of(cls):
    for flag in filter(None, (one.flag, one.general_flag)):
      if flag in found:
        paths = (*found[flag].paths, one.path)
        found[flag] = dataclasses.replace(found[flag], paths=paths)
      else:
        found[flag] = Setting(flag, (one.path,), help_of(one), one.type is bool)
  for flag, paths in (also or {}).items():
    setting = found[flag]
    found[flag] = dataclasses.replace(setting, paths=(*setting.paths, *paths))
  return tuple(found[flag] for flag in (found if only is None else only))


def help_of(setting: config_lib.Setting) -> str:
  """A flag's help: group, meaning, range, the paper's section."""
  text = f'[{setting.group}] {setting.help}'
  if str(setting.range):
    told = str(setting.range)
    text += f' {told[0].upper()}{told[1:]}.'
  if setting.paper:
    text += f' (Paper: {setting.paper}.)'
  if setting.general_flag:
    text += f' Without it --{setting.general_flag} sets it, too.'
  return text


PLACES = {
  **dict.fromkeys(
    (
      *('checkpoint', 'classifier', 'codes', 'compiler', 'complete', 'config'),
      *('finetune_decoder_of', 'from_json', 'lpips_file', 'network', 'out'),
      *('model_config_file', 'probes', 'reference', 'save_reference'),
      *('settings', 'source', 'tokenizer', 'vim', 'workdir'),
    ),
    places.local,
  ),
  **dict.fromkeys(('base', 'data_dir', 'logdir'), places.anywhere),
}
"""The flags that name paths, of all binaries, and where those may be."""


def define_run_flags(presets: Sequence[str], default: str):
  """Defines the flags that say what a training run is."""
  flags.DEFINE_string(
    'workdir',
    None,
    '[run] Working directory; a run goes on from it, with its settings but for '
    'those that flags give.',
  )
  flags.DEFINE_enum(
    'preset',
    default,
    list(presets),
    '[run] Settings to start from; help tells of each.',
  )
  flags.DEFINE_multi_string(
    'set',
    [],
    '[run] Any setting as PATH=VALUE, such as model.encoder.width=384; may be '
    'given many times.',
  )
  flags.DEFINE_string(
    'config',
    None,
    '[run] JSON file with a whole config, or the config.json of a run, instead '
    'of --preset.',
  )
  define_strategy_flags()


def define_strategy_flags():
  """Defines the flags that say where replicas run."""
  flags.DEFINE_enum(
    'strategy',
    'auto',
    list(config_lib.STRATEGIES),
    '[hardware] Where to run; auto: all GPUs of this machine, or its CPU; '
    'multi_worker: the cluster of TF_CONFIG.',
  )
  flags.DEFINE_string(
    'tpu', 'local', "[hardware] local on a Cloud TPU VM, or a TPU's name."
  )


def define_new_data_flag():
  """Defines the flag that lets a run go on with other data."""
  flags.DEFINE_bool(
    'accept_new_data',
    False,
    '[data] Go on with the images of now, though the run began with others.',
  )


def define(cls: type[config_lib.Config], group: str) -> tuple[str, ...]:
  """Defines a flag, with its default, for each setting of a config.

  Args:
    cls: Class of the config.
    group: What `--help` calls its settings.

  Returns:
    The flags' names; those that are there already are left as they are.
  """
  found = config_lib.settings_of(cls, group)
  for one in found:
    if one.flag in flags.FLAGS:
      continue
    if one.range.choices:
      choices = list(one.range.choices)
      flags.DEFINE_enum(one.flag, one.default, choices, help_of(one))
      continue
    define = {
      bool: flags.DEFINE_bool,
      float: flags.DEFINE_float,
      int: flags.DEFINE_integer,
      str: flags.DEFINE_string,
    }[one.type]
    define(one.flag, one.default, help_of(one))
  return tuple(one.flag for one in found)


def read(cls: type[config_lib.Config], **fields):
  """The config that the flags of `define` give.

  Args:
    cls: Its class.
    **fields: Values of what has no flag.

  Raises:
    ConfigError: If a value is out of range.
  """
  values = {
    one.path: flags.FLAGS[one.flag].value for one in config_lib.settings_of(cls)
  }
  return cls(**values, **fields)


def strategy() -> tf.distribute.Strategy:
  """The strategy that the flags ask for."""
  return strategy_lib.make(flags.FLAGS.strategy, flags.FLAGS.tpu)


def strategy_of_one_process(examples: int = 64) -> tf.distribute.Strategy:
  """The same for programs that several workers cannot share, nor train.

  A CPU that has an example for each of its cores gives each operation one
  thread, and each thread its own part of a batch (see `replicas.streams`).

  Args:
    examples: How many of them are computed at once, at most.

  Raises:
    ConfigError: If the flags ask for several workers.
  """
  if flags.FLAGS.strategy == 'multi_worker':
    raise config_lib.ConfigError(
      'Only training runs on several workers: give another --strategy.'
    )
  alone = flags.FLAGS.strategy in ('auto', 'one_device')
  gpus = tf.config.list_physical_devices('GPU')
  if alone and not gpus and examples >= machine.cores():
    # Too late where TensorFlow has computed something: a notebook, a test.
    with contextlib.suppress(RuntimeError):
      tf.config.threading.set_intra_op_parallelism_threads(1)
  return strategy()


def changes_from_flags(
  settings: Sequence[Setting], assignments: Sequence[str] = ()
) -> dict[str, str]:
  """The settings that flags were given for, as `config.replace` takes them.

  Args:
    settings: The flags that the binary defined.
    assignments: Further settings, as PATH=VALUE of --set.

  Raises:
    ConfigError: If two of them set the same, or one has no value.
  """
  given = [
    (f'--{setting.flag}={_text(value)}', setting.paths, _text(value))
    for setting in settings
    if (value := flags.FLAGS[setting.flag].value) is not None
  ]
  for text in assignments:
    path, equals, value = text.partition('=')
    if not equals:
      raise config_lib.ConfigError(
        f'--set={text} has no value: write --set=PATH=VALUE.'
      )
    given.append((f'--set={text}', (path,), value))
  changes = {path: value for _, paths, value in given for path in paths[1:]}
  written: dict[str, str] = {}
  for text, (path, *_), value in given:
    if path in written:
      raise config_lib.ConfigError(
        f'{written[path]} and {text} both set {path}: give one of them.'
      )
    written[path] = text
    changes[path] = value
  return changes


def _text(value: str | bool) -> str:
  return str(value).lower() if isinstance(value, bool) else value


def config_from_flags(
  preset: Callable,
  settings: Sequence[Setting],
  kind: str,
  cls,
  start=None,
):
  """The config of a run, with the flags on top.

  It is that of --config, of --preset, of `start` or of the run that --workdir
  holds already, in this order, or that of the default preset.

  Args:
    preset: From a preset's name to its config.
    settings: The flags that the binary defined.
    kind: What the run trains; see `workdir.Workdir`.
    cls: Class of the config.
    start: The config to start from where neither flag is given.

  Raises:
    UserError: If a setting is unknown, does not fit or is given twice, both
      --preset and --config are given, or a file cannot be read.
  """
  given = flags.FLAGS
  if given.config and not given['preset'].using_default_value:
    raise config_lib.ConfigError(
      f'--preset={given.preset} and --config={given.config} both say what to '
      'start from: give one of them.'
    )
  if given.config:
    config = _read_config(given.config, kind, cls)
  elif not given['preset'].using_default_value:
    config = preset(given.preset)
  elif start is not None:
    config = start
  elif workdir_lib.is_run(given.workdir):
    config = workdir_lib.read_config(given.workdir, kind, cls)
    logging.info('The settings are those of the run in %s.', given.workdir)
  else:
    config = preset(given.preset)
  changes = changes_from_flags(settings, given.set)
  return config_lib.replace(config, changes)


def _read_config(file: str, kind: str, cls):
  """A config out of JSON, or out of a run's `config.json`."""
  try:
    text = pathlib.Path(file).read_text()
  except (OSError, UnicodeDecodeError) as error:
    reason = getattr(error, 'strerror', None) or 'it is not text'
    raise config_lib.ConfigError(
      f'Cannot read --config={file}: {reason}.'
    ) from error
  try:
    record = json.loads(text)
  except json.JSONDecodeError:
    record = None  # Told of below.
  if isinstance(record, dict) and 'kind' in record and 'config' in record:
    try:
      return run_record.config(record, kind, cls)
    except config_lib.UserError as error:
      raise config_lib.ConfigError(f'--config={file} {error}') from error
  return config_lib.from_json(cls, text)


def run(
  main: Callable[[], None],
  settings: Sequence[Setting] = (),
  presets: flag_help.Presets | None = None,
):
  """Runs a binary: in the caller's directory, bad input in one line.

  Args:
    main: What to do once the flags are parsed.
    settings: The settings that its flags stand for, which its help tells of.
    presets: Where those come from that no flag gives.
  """

  def wrapped(argv):
    # What a start makes, TensorFlow's modules and graphs, is hardly ever
    # garbage: to look for some took a sixth of it, and again as it ends.
    gc.set_threshold(50_000, 5, 5)
    # `bazel run` starts binaries in a folder of its own.
    os.chdir(os.environ.get('BUILD_WORKING_DIRECTORY', '.'))
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    # TFDS tells of every file that it opens; ours are the lines to read.
    logging.get_absl_handler().addFilter(
      lambda record: 'tensorflow_datasets' not in record.pathname
    )
    with preemption.Interrupts() as interrupts:
      try:
        if len(argv) > 1:
          raise config_lib.UserError(
            f'{argv[1]!r} is not a flag; every setting is given as '
            '--name=value.'
          )
        _find_places()
        main()
      except KeyboardInterrupt:
        interrupts.leave()
      except preemption.Restart as error:
        if isinstance(error, workers.WorkerLost):
          _leave(error)
        print(error, file=sys.stderr)
        sys.exit(preemption.EXIT_STATUS)
      except config_lib.UserError as error:
        _fail(error)
      except Exception as error:
        if interrupts.came:  # And was wrapped on its way.
          interrupts.leave()
        found = errors.find_data_error(error)
        if found is not None:
          _fail(found)
        found = workers.lost('The run', error)  # Before it came to its loop.
        if found is None:
          raise
        _leave(found)
      finally:
        gc.freeze()

  app.run(
    wrapped,
    flags_parser=lambda argv: flag_help.parse(argv, settings, presets),
  )


def _find_places():
  """Makes of all paths that flags give what is meant by them."""
  for name, of in PLACES.items():
    if name in flags.FLAGS and flags.FLAGS[name].value:
      flag = flags.FLAGS[name]
      if isinstance(flag.value, list):
        flag.value = [of(path, f'--{name}') for path in flag.value]
      else:
        flag.value = of(flag.value, f'--{name}')


def _leave(error: workers.WorkerLost):
  print(error, file=sys.stderr, flush=True)
  workers.leave(preemption.EXIT_STATUS)


def _fail(error: Exception):
  print(f'error: {error}', file=sys.stderr)
  sys.exit(1)
