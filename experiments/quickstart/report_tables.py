"""The figures of a run in tables: what each is called and what it means.

`figures.csv` has a line a figure, and for each part one without a key, which
has its title.
"""

from collections.abc import Mapping
import csv
import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True)
class Known:
  """How a figure is shown.

  Attributes:
    name: What it is.
    form: How it is written, as `str.format` has it.
    full: What makes a full bar: a number, or another figure of the part; '':
      there is no bar.
    note: What it means.
  """

  name: str
  form: str
  full: str = ''
  note: str = ''


@dataclasses.dataclass(frozen=True)
class Row:
  """A figure in words, with the length of its bar in [0, 1] if it has one."""

  name: str
  value: str
  note: str
  share: float | None


def _read(file: pathlib.Path) -> dict[str, dict[str, Known]]:
  """What is known of each figure, by part and key."""
  parts = {}
  with file.open(newline='') as lines:
    for line in csv.DictReader(lines):
      part, key = line.pop('part'), line.pop('key')
      parts.setdefault(part, {})[key] = Known(**line)
  return parts


_PARTS = _read(pathlib.Path(__file__).with_name('figures.csv'))


def tables(figures: Mapping[str, Mapping]) -> list[tuple[str, list[Row]]]:
  """Title and rows of each part; figures that are not known come last.

  Args:
    figures: By part, as `Report.figures`.
  """
  found = []
  for part, known in _PARTS.items():
    values = figures.get(part, {})
    keys = [key for key in known if key in values]
    keys += [key for key in values if key not in known]
    rows = [_row(key, values, known.get(key)) for key in keys]
    if rows:
      found.append((known[''].name, rows))
  return found


def _row(key: str, values: Mapping, known: Known | None) -> Row:
  value = values[key]
  if known is None:
    form = '{:.4g}' if isinstance(value, float) else '{}'
    known = Known(key.replace('_', ' ').capitalize(), form)
  if isinstance(value, Mapping):
    value = ', '.join(f'{k.replace("_", " ")} {x}' for k, x in value.items())
  share = None
  if known.full:
    full = float(values.get(known.full, known.full))
    share = min(value / full, 1.0) if full else 0.0
  return Row(known.name, known.form.format(value), known.note, share)
