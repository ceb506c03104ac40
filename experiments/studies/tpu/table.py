"""What the compiler said, as a table and in words."""

from collections.abc import Mapping
import math
import re

from experiments.studies.tpu.chips import CHIPS
from experiments.studies.tpu.programs import PROGRAMS

_GB = 1e9
_BYTES = {'f32': 4, 's32': 4, 'u32': 4, 'bf16': 2}
_ALONE = (
  'program',
  'chip',
  'compiles and fits',
  'images of a chip',
  'arguments, GB',
  'temporaries, GB',
  'share of the memory',
  'TFLOPs an image',
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
  'memory, ms',
)


def markdown(records: Mapping[str, Mapping]) -> str:
  """Two tables: what one chip takes, and what several send each other.

  Args:
    records: By name of the program, as `Records.get` returns them.
  """
  alone, together = [], []
  for name, record in records.items():
    several = PROGRAMS[name].replicas > 1
    rows, row = (together, _together) if several else (alone, _alone)
    known = record['chips']
    rows += [row(name, chip, record) for chip in CHIPS if chip in known]
    rest = ', '.join(chip for chip in CHIPS if chip not in known)
    if rest:
      width = len(_TOGETHER if several else _ALONE)
      rows.append((name, rest, 'not compiled', *[''] * (width - 3)))
  return f'{_lines(_ALONE, alone)}\n\n{_lines(_TOGETHER, together)}\n'


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


def type_bytes(text: str) -> int:
  """Bytes of a type of XLA's, such as '(f32[8,4]{1,0:T(8,128)}, bf16[])'."""
  return sum(
    _BYTES[dtype] * math.prod(map(int, filter(None, sizes.split(','))))
    for dtype, sizes in re.findall(r'(\w+)\[([\d,]*)\]', text)
  )


def _alone(name, chip, record) -> tuple:
  batch, found = PROGRAMS[name].batch, record['chips'][chip]
  size = f'{record["hlo_bytes"] / 1e6:.1f}'
  minutes = f'{found["cpu_seconds"] / 60:.1f}'
  if not found['fits']:
    empty = [''] * 4
    return (name, chip, _complaint(found), batch, *empty, size, '', minutes)
  return (
    name,
    chip,
    'yes',
    batch,
    f'{found["argument_bytes"] / _GB:.2f}',
    f'{found["temporary_bytes"] / _GB:.2f}',
    f'{used_bytes(found) / CHIPS[chip].memory:.0%}',
    f'{found["flops"] / 1e12 / batch:.2f}',
    size,
    f'{found["code_bytes"] / 1e6:.0f}',
    minutes,
  )


def _together(name, chip, record) -> tuple:
  replicas, found = PROGRAMS[name].replicas, record['chips'][chip]
  if not found['fits']:
    return (name, chip, _complaint(found), replicas, *[''] * 4)
  summed = sum(map(type_bytes, found['summed']))
  # As in a ring: each chip sends every part but its own, twice.
  sent = 2 * (replicas - 1) / replicas * summed
  kind = CHIPS[chip]
  return (
    name,
    chip,
    'yes',
    replicas,
    f'{summed / _GB:.2f}',
    f'{1e3 * sent / kind.link_rate:.1f}',
    f'{1e3 * found["flops"] / kind.flops:.1f}',
    f'{1e3 * found["accessed_bytes"] / kind.memory_rate:.1f}',
  )


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
