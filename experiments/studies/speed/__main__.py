"""Times everything that takes long, against what the machine can do.

  ./bazelw run //experiments/studies/speed -- --out=benchmark.jsonl

Beside each row it measures the machine's ceilings (matrix products in float32
and bfloat16, reading from memory), and says which share of its limit the row
reaches; `counts.py` beside it counts what a row has to do at least.
`docs/performance.md` has the method, `docs/results/speed.md` the figures.

  ./bazelw run //experiments/studies/speed -- --rows=sampling --threads=2
  ./bazelw run //experiments/studies/speed -- --rows='^encode_f' --vs=xla=true

The second runs a row in two settings in turn, and gives the ratios of their
times pair by pair, which hold also where other work disturbs the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
import dataclasses
import json

from absl import flags
from etils import epy

from experiments import flags as flags_lib
from experiments.studies.speed import sizes as sizes_lib
from vim_tf import config as config_lib
from vim_tf.config import ConfigError

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  import tensorflow as tf

  from experiments.studies.speed import limits, rows, session, table

SIZES = flags.DEFINE_enum(
  'sizes',
  'paper',
  list(sizes_lib.SIZES),
  '[what] paper: the small-small tokenizer, a VIM of 12 blocks; tiny: in '
  'seconds.',
)
SET = flags.DEFINE_multi_string(
  'set',
  [],
  '[what] Any size as PATH=VALUE, such as stage2.model.grid_size=32; may be '
  'given many times.',
)
ROWS = flags.DEFINE_string(
  'rows', '', '[what] Regular expression of the rows to run; empty: all.'
)
LIST = flags.DEFINE_bool('list', False, '[what] Only tell what there is.')
SETTING = flags.DEFINE_multi_string(
  'setting',
  [],
  '[what] A setting of the rows as NAME=VALUE, such as precision=bfloat16; '
  'rows without it are left out; may be given many times.',
)
VS = flags.DEFINE_multi_string(
  'vs',
  [],
  '[what] The same, for a second version of each row that runs in turn with '
  'the first.',
)
SECONDS = flags.DEFINE_float(
  'seconds', 5.0, '[how] Time for the calls of a row.', lower_bound=0.0
)
CALLS = flags.DEFINE_integer(
  'calls', 3, '[how] Calls of a row at least.', lower_bound=1
)
THREADS = flags.DEFINE_integer(
  'threads',
  0,
  '[how] Threads of TensorFlow; 0: as many as cores that it may use.',
  lower_bound=0,
)
PROFILE = flags.DEFINE_integer(
  'profile',
  0,
  '[output] How many operations to tell of each row, those that take most time '
  'in one more call under the profiler.',
  lower_bound=0,
)
OUT = flags.DEFINE_string(
  'out', '', '[output] File for the records, one JSON object a line.'
)


def main():
  """Runs the rows that the flags ask for."""
  sizes = config_lib.replace(
    sizes_lib.SIZES[SIZES.value](), _changes('set', SET.value)
  )
  chosen = rows.chosen(sizes, ROWS.value)
  if LIST.value:
    for row in chosen:
      settings = dataclasses.asdict(row.settings)
      told = ' '.join(f'{name}={value}' for name, value in settings.items())
      print(f'{row.name:26} {row.what}\n{"":26} {told}'.rstrip())
    return
  planned = _planned(chosen)
  # Every row has models of its own: it would warn of so many traces.
  tf.get_logger().setLevel('ERROR')
  if THREADS.value:
    tf.config.threading.set_intra_op_parallelism_threads(THREADS.value)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS.value)
  running = session.Session(
    sizes,
    limits.Ceilings(sizes.matmul, sizes.memory),
    SECONDS.value,
    CALLS.value,
    PROFILE.value,
  )
  with contextlib.ExitStack() as stack:
    tell = _teller(stack)
    tell(session.machine(sizes))
    print(table.HEADER)
    for row, versions in planned:
      for record in running.run(row, versions):
        tell(record)
    tell(running.end())


def _planned(chosen: Sequence[rows.Row]):
  """The rows that have the settings of the flags, with those settings."""
  changes = _changes('setting', SETTING.value)
  vs = _changes('vs', VS.value)
  planned = []
  for row in chosen:
    versions = session.versions(row, changes, vs)
    if versions:
      planned.append((row, versions))
  if not planned:
    names = ', '.join(dict.fromkeys([*changes, *vs]))
    raise ConfigError(
      f'None of the rows has all of the settings {names}; --list tells those '
      'of each.'
    )
  return planned


def _changes(flag: str, texts: Sequence[str]) -> dict[str, str]:
  """Settings and their values from NAME=VALUE."""
  changes = {}
  for text in texts:
    name, equals, value = text.partition('=')
    if not equals:
      raise ConfigError(
        f'--{flag}={text} has no value: write --{flag}=NAME=VALUE.'
      )
    changes[name] = value
  return changes


def _teller(stack: contextlib.ExitStack):
  """A function that prints a record, and keeps it in the file."""
  file = None
  if OUT.value:
    try:
      file = stack.enter_context(open(OUT.value, 'x'))
    except OSError as error:
      raise ConfigError(
        f'Cannot make --out={OUT.value}: {error.strerror}.'
      ) from error

  def tell(record: dict):
    print(table.line(record), flush=True)
    if file:
      file.write(json.dumps(record) + '\n')
      file.flush()

  return tell


if __name__ == '__main__':
  flags_lib.run(main)
