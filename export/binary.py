"""What the exporters' binaries share: flags, and errors in one line."""

from __future__ import annotations

from collections.abc import Callable
import os
import sys

from absl import app, flags, logging
from etils import epy

from experiments import flag_help
from export.limits import Limits
from vim_tf import places
from vim_tf.config import UserError
from vim_tf.training import preemption

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from export import saved_model, server_configs
  from vim_tf import restore

_LIMITS = Limits()
_PLACES = {
  'base': places.anywhere,
  **dict.fromkeys(
    ('workdir', 'tokenizer', 'vim', 'model_config_file'), places.local
  ),
}
"""The flags that name paths, of all exporters, and where those may be."""


def define_flags(name: str):
  """Defines the flags of every exporter.

  Args:
    name: The name to serve the model under, if no flag says another.
  """
  flags.DEFINE_string(
    'base',
    None,
    '[output] Folder of the versions, BASE/<version>/; may be gs://BUCKET/PATH.',
  )
  flags.mark_flag_as_required('base')
  flags.DEFINE_integer(
    'version', 0, '[output] Number of the version; 0: the next one.'
  )
  flags.DEFINE_string('name', name, '[output] Name to serve the model under.')
  flags.DEFINE_enum(
    'precision',
    'float32',
    ['float32', 'bfloat16'],
    '[graph] Compute in float32 or bfloat16; weights stay float32.',
  )
  flags.DEFINE_integer(
    'max_side',
    _LIMITS.side,
    '[graph] Largest height or width of an image taken, in pixels.',
    lower_bound=1,
  )
  flags.DEFINE_integer(
    'max_pixels',
    _LIMITS.pixels,
    '[graph] Most pixels of an image taken.',
    lower_bound=1,
  )
  flags.DEFINE_integer(
    'max_batch_size',
    32,
    '[server] Most examples that it runs together.',
    lower_bound=1,
  )


def limits() -> Limits:
  """The largest images that the flags let an export decode."""
  return Limits(flags.FLAGS.max_side, flags.FLAGS.max_pixels)


def dtype() -> str:
  """The Keras policy that the flags ask for."""
  return restore.policy(flags.FLAGS.precision)


def write(make: Callable[[], saved_model.Export]):
  """Writes what an exporter makes, and the server's files beside it.

  Args:
    make: Called once the output is known to be free.
  """
  values = flags.FLAGS
  saved_model.new_version(values.base, values.version)
  folder = saved_model.write(make(), values.base, values.version)
  server_configs.write(values.base, values.name, values.max_batch_size)
  logging.info('The export is in %s.', folder)


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
    # TensorFlow tells of inputs that it renames, which no caller of ours sees.
    logging.get_absl_handler().addFilter(
      lambda record: record.module != 'signature_serialization'
    )
    values = flags.FLAGS
    with preemption.Interrupts() as interrupts:
      try:
        if len(argv) > 1:
          raise UserError(
            f'{argv[1]!r} is not a flag; every setting is given as '
            '--name=value.'
          )
        for name, of in _PLACES.items():
          if name in values and values[name].value:
            values[name].value = of(values[name].value, f'--{name}')
        main()
      except KeyboardInterrupt:
        interrupts.leave()
      except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(1)

  app.run(wrapped, flags_parser=flag_help.parse)
