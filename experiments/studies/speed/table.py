"""Records of the benchmark as lines to read."""

import statistics

from experiments.studies.speed import limits

HEADER = (
  f'{"row":26} {"calls":>5} {"median":>9} {"min":>9} {"max":>9} '
  f'{"rate":>18} {"share of the limit":>19} {"memory":>9}'
)


def line(record: dict) -> str:
  """A record as one line, or as a few."""
  return _LINES[record['kind']](record)


def _machine(record: dict) -> str:
  return (
    f'{record["cpu"]}, {record["cores"]} cores, {record["threads"]} threads, '
    f'load average {record["load_average"]:.2f}; TensorFlow '
    f'{record["tensorflow"]}'
  )


def _row(record: dict) -> str:
  share = '-'
  if 'share' in record:
    share = f'{record["share"]:.1%} {record["limit"]}'
  memory = record.get('peak_above_start_bytes')
  memory = '-' if memory is None else f'{memory / 1e6:.0f} MB'
  rate = f'{record["per_second"]:.3g} {record["unit"]}s/s'
  return (
    f'{record["row"]:26} {record["calls"]:5} {_seconds(record["seconds"])} '
    f'{_seconds(record["fastest"])} {_seconds(record["slowest"])} '
    f'{rate:>18} {share:>19} {memory:>9}'
  )


def _pair(record: dict) -> str:
  ratios, one, other = record['ratios'], record['settings'], record['vs']
  changes = ', '.join(
    f'{name}={other[name]} instead of {value}'
    for name, value in one.items()
    if other[name] != value
  )
  pairs = ' '.join(f'{ratio:.3f}' for ratio in ratios)
  return (
    f'  {changes or "the same settings"} takes {statistics.median(ratios):.3f} '
    f'of the time (median of {len(ratios)} pairs)\n  pair by pair: {pairs}'
  )


def _profile(record: dict) -> str:
  return '\n'.join(
    f'  {one["share"]:6.1%} {one["seconds"] * 1e3:9.2f} ms {one["runs"]:6} x '
    f'{one["operation"]}'
    for one in record['operations']
  )


def _ceilings(record: dict) -> str:
  found = [
    f'{record[kind] / scale:.3g} {text}'
    for kind, (text, scale) in limits.UNITS.items()
    if kind in record
  ]
  return 'ceilings: ' + (', '.join(found) or 'no row has one')


def _seconds(value: float) -> str:
  return f'{value:7.3g} s'


_LINES = {
  'machine': _machine,
  'row': _row,
  'profile': _profile,
  'pair': _pair,
  'ceilings': _ceilings,
}
