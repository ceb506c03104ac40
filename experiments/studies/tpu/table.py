"""What the compiler said, as a table and in words."""

from collections.abc import Mapping, Sequence

from experiments.studies.tpu.chips import CHIPS
from experiments.studies.tpu.programs import PROGRAMS

_GB = 1e9
_ALONE = (
  *('program', 'chip', 'compiles and fits', 'images of a chip'),
  *('arguments, GB', 'temporaries, GB', 'share of the memory'),
  *('TFLOPs an image', 'at least', 'program, MB', 'code, MB'),
  'compiled in, minutes of a core',
)
_TOGETHER = (
  *('program', 'chip', 'compiles and fits', 'chips', 'summed, GB'),
  *('over the links, ms', 'matrix units, ms'),
)


def markdown(records: Mapping[str, Mapping]) -> str:
  """Two tables: what one chip takes, and what several send each other.

  Below them, what is not compiled yet, for some chips or for all.

  Args:
    records: By name of the program what `__main__` keeps of it.
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


def verdict(found: Mapping) -> str:
  """'yes', or the compiler's complaint, without what it lists."""
  if found['fits']:
    return 'yes'
  text = found['error']
  used = text.find('Used ')
  if 'RESOURCE_EXHAUSTED' in text and used >= 0:
    return f'no: u{text[used + 1 :].split(". ")[0]}'
  return f'no: {text.splitlines()[0][:100]}'


def _alone(name: str, chip: str, record: Mapping) -> dict[str, object]:
  program, found = PROGRAMS[name], record['chips'][chip]
  row = {
    'program': name,
    'chip': chip,
    'compiles and fits': verdict(found),
    'images of a chip': program.batch,
    'at least': f'{program.flops() / 1e12:.2f}',
    'program, MB': f'{record["hlo_bytes"] / 1e6:.1f}',
    'compiled in, minutes of a core': f'{found["cpu_seconds"] / 60:.1f}',
  }
  if found['fits']:
    used = (  # What is updated is there once.
      found['argument_bytes']
      + found['output_bytes']
      - found['aliased_bytes']
      + found['temporary_bytes']
      + found['code_bytes']
    )
    row |= {
      'arguments, GB': f'{found["argument_bytes"] / _GB:.2f}',
      'temporaries, GB': f'{found["temporary_bytes"] / _GB:.2f}',
      'share of the memory': f'{used / CHIPS[chip].memory:.0%}',
      'TFLOPs an image': f'{found["flops"] / 1e12 / program.batch:.2f}',
      'code, MB': f'{found["code_bytes"] / 1e6:.0f}',
    }
  return row


def _together(name: str, chip: str, record: Mapping) -> dict[str, object]:
  program, kind = PROGRAMS[name], CHIPS[chip]
  found = record['chips'].get(chip)
  # As in a ring: each chip sends every part but its own, twice.
  sent = 2 * (program.replicas - 1) / program.replicas * record['summed_bytes']
  computed = program.flops() * program.batch
  return {
    'program': name,
    'chip': chip,
    'compiles and fits': verdict(found) if found else 'not compiled',
    'chips': program.replicas,
    'summed, GB': f'{record["summed_bytes"] / _GB:.2f}',
    'over the links, ms': f'{1e3 * sent / kind.link_rate:.1f}',
    'matrix units, ms': f'{1e3 * computed / kind.flops:.1f}',
  }


def _lines(headings: Sequence[str], rows: Sequence[Mapping]) -> str:
  cells = [headings, ['---'] * len(headings)]
  cells += [[row.get(heading, '') for heading in headings] for row in rows]
  return '\n'.join(f'| {" | ".join(map(str, row))} |' for row in cells)
