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

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import json
import os
import platform
import statistics

from absl import flags
from etils import epy

from experiments import flags as flags_lib
from vim_tf import config as config_lib
from vim_tf import machine as machine_lib
from vim_tf.config import ConfigError

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  import tensorflow as tf

  from experiments.studies.speed import counts, profiling, timing
  from experiments.studies.speed import rows as rows_lib

SIZES = flags.DEFINE_enum(
  'sizes',
  'paper',
  ['paper', 'tiny'],
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
STREAMS = flags.DEFINE_bool(
  'streams',
  False,
  '[how] One thread an operation, and for each thread a part of the batch in '
  'encoding, decoding and sampling, as the programs that do that have it.',
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

_HEADER = (
  f'{"row":26} {"calls":>5} {"median":>9} {"min":>9} {"max":>9} '
  f'{"rate":>18} {"share of the limit":>19} {"memory":>9}'
)


def main():
  """Runs the rows that the flags ask for."""
  sizes = config_lib.replace(
    rows_lib.SIZES[SIZES.value](), _changes('set', SET.value)
  )
  chosen = rows_lib.chosen(sizes, ROWS.value)
  if LIST.value:
    for row in chosen:
      told = ' '.join(f'{name}={x}' for name, x in row.values().items())
      print(f'{row.name:26} {row.what}\n{"":26} {told}')
    return
  planned = _planned(chosen)
  # Every row has models of its own: it would warn of so many traces.
  tf.get_logger().setLevel('ERROR')
  if THREADS.value or STREAMS.value:
    each = 1 if STREAMS.value else THREADS.value
    tf.config.threading.set_intra_op_parallelism_threads(each)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS.value)
  try:
    file = open(OUT.value, 'x') if OUT.value else open(os.devnull, 'w')
  except OSError as error:
    raise ConfigError(
      f'Cannot make --out={OUT.value}: {error.strerror}.'
    ) from error
  with file:

    def tell(record: dict, text: str):
      print(text, flush=True)
      print(json.dumps(record), file=file, flush=True)

    tell(*_machine(sizes))
    print(_HEADER)
    ceilings = timing.Ceilings(sizes.matmul, sizes.memory)
    for versions in planned:
      for record, text in _measured(sizes, versions, ceilings):
        tell(record, text)
    tell(*_highest(ceilings))


def _planned(chosen: Sequence[rows_lib.Row]) -> list[list[rows_lib.Row]]:
  """The rows that have the settings of the flags: each in one or two versions.

  Raises:
    ConfigError: If there is none, or a value does not fit.
  """
  changes = _changes('setting', SETTING.value)
  vs = _changes('vs', VS.value)

  def changed(row, values):
    settings = config_lib.replace(row.settings, values)
    return dataclasses.replace(row, settings=settings)

  planned = []
  for row in chosen:
    if {*changes, *vs} <= set(row.uses):
      first = changed(row, changes)
      planned.append([first, changed(first, vs)] if vs else [first])
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


def _measured(
  sizes: rows_lib.Sizes,
  versions: Sequence[rows_lib.Row],
  ceilings: timing.Ceilings,
) -> Iterator[tuple[dict, str]]:
  """Times a row, or two versions of it in turn.

  Yields:
    Records, each with what is printed of it: of each version, then of the
    operations that it spends most time in if those are wanted; of two versions
    the ratios of their times.
  """
  before = timing.resident_bytes()
  jobs = [row.prepare(sizes, row.settings) for row in versions]
  kinds = sorted({counts.MEMORY, *(job.work.precision for job in jobs)})
  # On both sides, the higher one: a share is never flattered by a ceiling
  # that something else disturbed.
  first = {kind: ceilings.measure(kind) for kind in kinds}
  times = timing.measure(jobs, seconds=SECONDS.value, min_calls=CALLS.value)
  rates = {
    kind: max(rate, ceilings.measure(kind)) for kind, rate in first.items()
  }
  operations = [
    profiling.operations(job)[: PROFILE.value] if PROFILE.value else []
    for job in jobs
  ]
  for row, job, found, most in zip(versions, jobs, times, operations):
    yield _row(row, job, found, rates, before)
    if most:
      yield _profile(row, most)
  if len(versions) == 2:
    yield _pair(versions, times)


def _row(
  row: rows_lib.Row,
  job: timing.Job,
  times: timing.Times,
  rates: Mapping[str, float],
  before: int | None,
) -> tuple[dict, str]:
  """Of a row: seconds, rate, the ceiling it meets first and the share of it."""
  seconds, peak = times.seconds, times.peak_bytes
  median = statistics.median(seconds)
  limit, least = job.work.limit(rates)
  record = {
    'kind': 'row',
    'row': row.name,
    'what': row.what,
    'settings': row.values(),
    'calls': len(seconds),
    'seconds': median,
    'fastest': min(seconds),
    'slowest': max(seconds),
    'all_seconds': list(seconds),
    'first_seconds': times.first,
    'unit': job.unit,
    'per_second': job.units / median,
    'peak_bytes': peak,
    'flops': job.work.flops,
    'bytes': job.work.bytes,
    'limit': limit,
    'limit_rate': rates[limit],
    'share': least / median,
  }
  share, memory = f'{least / median:.1%} {limit}', '-'
  if peak is not None:
    record['peak_above_start_bytes'] = peak - before
    memory = f'{(peak - before) / 1e6:.0f} MB'
  rate = f'{record["per_second"]:.3g} {job.unit}s/s'
  found = ' '.join(f'{x:7.3g} s' for x in (median, min(seconds), max(seconds)))
  return record, (
    f'{row.name:26} {len(seconds):5} {found} {rate:>18} {share:>19} {memory:>9}'
  )


def _profile(row: rows_lib.Row, operations: list[dict]) -> tuple[dict, str]:
  record = {
    'kind': 'profile',
    'row': row.name,
    'settings': row.values(),
    'operations': operations,
  }
  return record, '\n'.join(
    f'  {one["share"]:6.1%} {one["seconds"] * 1e3:9.2f} ms {one["runs"]:6} x '
    f'{one["operation"]}'
    for one in operations
  )


def _pair(versions, times) -> tuple[dict, str]:
  one, other = (row.values() for row in versions)
  ratios = [b / a for a, b in zip(*(found.seconds for found in times))]
  record = {
    'kind': 'pair',
    'row': versions[0].name,
    'settings': one,
    'vs': other,
    'ratios': ratios,
  }
  changes = ', '.join(
    f'{name}={other[name]} instead of {value}'
    for name, value in one.items()
    if other[name] != value
  )
  pairs = ' '.join(f'{ratio:.3f}' for ratio in ratios)
  return record, (
    f'  {changes or "the same settings"} takes {statistics.median(ratios):.3f} '
    f'of the time (median of {len(ratios)} pairs)\n  pair by pair: {pairs}'
  )


def _machine(sizes: rows_lib.Sizes) -> tuple[dict, str]:
  """Where and with what a run is made."""
  cores = machine_lib.cores()
  threads = tf.config.threading.get_inter_op_parallelism_threads() or cores
  load = os.getloadavg()[0]
  record = {
    'kind': 'machine',
    'cpu': machine_lib.cpu(),
    'cores': cores,
    'threads': threads,
    'streams': STREAMS.value,
    'load_average': load,
    'python': platform.python_version(),
    'tensorflow': tf.__version__,
    'sizes': config_lib.to_dict(sizes),
  }
  return record, (
    f'{record["cpu"]}, {cores} cores, {threads} threads, load average '
    f'{load:.2f}; TensorFlow {tf.__version__}'
  )


def _highest(ceilings: timing.Ceilings) -> tuple[dict, str]:
  """The highest ceilings that were met."""
  found = [
    f'{rate / 1e9:.3g} '
    + ('GB/s read from memory' if kind == counts.MEMORY else f'GFLOP/s {kind}')
    for kind, rate in ceilings.best.items()
  ]
  return {'kind': 'ceilings', **ceilings.best}, f'ceilings: {", ".join(found)}'


if __name__ == '__main__':
  flags_lib.run(main)
