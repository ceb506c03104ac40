"""What the compiler said, as a table and in words."""

from collections.abc import Mapping

from experiments.studies.tpu.chips import CHIPS
from experiments.studies.tpu.programs import PROGRAMS

_GB = 1e9
_ALONE = (
  'program',
  'chip',
  'compiles and fits',
  'images of a chip',
  'arguments, GB',
  'temporaries, GB',
  'share of the memory',
  'TFLOPs an image',
  'at least',
  'program, MB',
  'code, MB',
  'compiled in, minutes of a core',
)
_TOGETHER = (
  'program',
  'chip',
  'compiles and fits',
  'chips',
  'summed, GB',
  'over the links, ms',
  'matrix units, ms',
)


def markdown(records: Mapping[str, Mapping]) -> str:
  """Two tables: what one chip takes, and what several send each other.

  Below them, what is not compiled yet, for some chips or for all.

  Args:
    records: By name of the program, as `Records.get` returns them.
  """
  alone, together, waiting = [], [], []
  for name, record in records.items():
    if PROGRAMS[name].replicas > 1:
      if 'summed_bytes' in record:
        together += [_together(name, chip, record) for chip in CHIPS]
      else:
        waiting.append(name)
      continue
    known = [chip for chip in CHIPS if chip in record['chips']]
    alone += [_alone(name, chip, record) for chip in known]
    rest = ', '.join(chip for chip in CHIPS if chip not in known)
    if rest:
      waiting.append(f'{name} ({rest})' if known else name)
  tables = f'{_lines(_ALONE, alone)}\n\n{_lines(_TOGETHER, together)}\n'
  if waiting:
    tables += f'\nNot compiled yet: {", ".join(waiting)}.\n'
  return tables


def in_words(found: Mapping) -> str:
  """A result in one line."""
  seconds = f'{found["cpu_seconds"]:.0f} s of the processor'
  if not found['fits']:
    return f'{_complaint(found)} ({seconds})'
  return (
    f'{found["argument_bytes"] / _GB:.2f} GB of arguments, '
    f'{found["temporary_bytes"] / _GB:.2f} GB of temporaries, '
    f'{found["flops"] / 1e12:.2f} TFLOPs ({seconds})'
  )


def used_bytes(found: Mapping) -> int:
  """What a program takes of a chip's memory; what is updated is there once."""
  return (
    found['argument_bytes']
    + found['output_bytes']
    - found['aliased_bytes']
    + found['temporary_bytes']
    + found['code_bytes']
  )


def _alone(name, chip, record) -> tuple:
  batch, found = PROGRAMS[name].batch, record['chips'][chip]
  least = f'{PROGRAMS[name].flops() / 1e12:.2f}'
  size = f'{record["hlo_bytes"] / 1e6:.1f}'
  minutes = f'{found["cpu_seconds"] / 60:.1f}'
  if not found['fits']:
    empty = [''] * 4
    start = (name, chip, _complaint(found), batch, *empty)
    return (*start, least, size, '', minutes)
  return (
    name,
    chip,
    'yes',
    batch,
    f'{found["argument_bytes"] / _GB:.2f}',
    f'{found["temporary_bytes"] / _GB:.2f}',
    f'{used_bytes(found) / CHIPS[chip].memory:.0%}',
    f'{found["flops"] / 1e12 / batch:.2f}',
    least,
    size,
    f'{found["code_bytes"] / 1e6:.0f}',
    minutes,
  )


def _together(name, chip, record) -> tuple:
  program, kind = PROGRAMS[name], CHIPS[chip]
  # As in a ring: each chip sends every part but its own, twice.
  sent = 2 * (program.replicas - 1) / program.replicas * record['summed_bytes']
  found = record['chips'].get(chip)
  if found is None:
    told = 'not compiled'
  else:
    told = 'yes' if found['fits'] else _complaint(found)
  return (
    name,
    chip,
    told,
    program.replicas,
    f'{record["summed_bytes"] / _GB:.2f}',
    _ms(sent, kind.link_rate),
    _ms(program.flops() * program.batch, kind.flops),
  )


def _ms(amount: float, rate: float) -> str:
  return f'{1e3 * amount / rate:.1f}'


def _complaint(found: Mapping) -> str:
  """The compiler's, without what it lists."""
  text = found['error']
  used = text.find('Used ')
  if 'RESOURCE_EXHAUSTED' in text and used >= 0:
    return f'no: u{text[used + 1 :].split(". ")[0]}'
  return f'no: {text.splitlines()[0][:100]}'


def _lines(headings, rows) -> str:
  cells = [headings, ['---'] * len(headings), *rows]
  return '\n'.join(f'| {" | ".join(map(str, row))} |' for row in cells)
