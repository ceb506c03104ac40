"""The page of the ablations: which claims hold, the rows, the pictures."""

import collections
from collections.abc import Mapping, Sequence
import dataclasses
import math
import pathlib

import jinja2
import numpy as np
from PIL import Image
from scipy import stats

from experiments.studies.ablations import claims as claims_lib
from experiments.studies.ablations import rows as rows_lib
from experiments.studies.ablations.budgets import Budget
from experiments.studies.ablations.claims import (
  CLAIMS,
  METRICS,
  VERDICTS,
  Claim,
)
from experiments.studies.ablations.rows import Row
from vim_tf.data import openmoji
from vim_tf.jobs import curves

PAGE, CHART = 'ablations.md', 'ablations.png'
SHEETS = {
  'reconstructions.png': (rows_lib.TOKENIZER,),
  'samples.png': (rows_lib.VIM, rows_lib.SAMPLES),
}
"""Pictures of rows one below the other: file, and the kinds of its rows."""
PICTURES, ORIGINALS = 'rows', 'originals'
"""Folder of the rows' own pictures, and the name of that of the originals."""

SHOWN_SEED = 0
"""Seed of the runs that have pictures."""

_TITLES = {
  CHART: 'Every run as a dot, the mean as a bar; dashed: the base',
  'reconstructions.png': (
    f'Held-out originals and reconstructions, seed {SHOWN_SEED}'
  ),
  'samples.png': f'Samples by class, seed {SHOWN_SEED}',
}
_KINDS = (
  (rows_lib.TOKENIZER,),
  (rows_lib.VIM, rows_lib.SAMPLES),
  (rows_lib.PROBE,),
)
_BASES = 'base', 'vim_deep', 'probe_deep'
_PANELS = ('l2', 'usage', 'rfd', 'gfd', 'gis', 'top1')
_COLUMNS = {
  rows_lib.TOKENIZER: ('l2', 'psnr', 'lpips', 'usage', 'rfd'),
  rows_lib.VIM: ('bits_per_code', 'gfd', 'gis', 'recognised'),
  rows_lib.PROBE: ('top1', 'top1_first', 'top1_middle', 'top1_last'),
}


@dataclasses.dataclass(frozen=True)
class Results:
  """What there is to show.

  Attributes:
    name: Name of the budget.
    budget: The budget.
    rows: All rows by name.
    lines: The finished runs of these rows and this budget: 'row', 'seed',
      'figures' and 'cpu_seconds'.
  """

  name: str
  budget: Budget
  rows: Mapping[str, Row]
  lines: Sequence[Mapping]

  def values(self, row: str, metric: str) -> list[float]:
    """The metric of a row, one a seed."""
    return [
      line['figures'][metric]
      for line in self.lines
      if line['row'] == row and metric in line['figures']
    ]

  def cpu_seconds(self, row: str) -> str:
    found = [x['cpu_seconds'] for x in self.lines if x['row'] == row]
    return f'{np.mean(found):.0f}' if found else '-'

  def seeds(self, row: str) -> list[int]:
    return sorted(line['seed'] for line in self.lines if line['row'] == row)


def write(results: Results, folder: pathlib.Path):
  """Writes the page and its pictures.

  Args:
    results: The finished runs.
    folder: Where they go, beside the folder of the rows' own pictures.
  """
  if results.lines:
    _draw(results, folder / CHART)
  for file, kinds in SHEETS.items():
    _sheet(results, kinds, folder, file)
  (folder / PAGE).write_text(_page(results, folder))


def _page(results: Results, folder: pathlib.Path) -> str:
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
  )
  claims = [
    (claim, claims_lib.judge(claim, results.rows, results.lines))
    for claim in CLAIMS
    if {claim.row, claim.against} <= set(results.rows)
  ]
  counts = collections.Counter(finding.verdict for _, finding in claims)
  done = {line['row'] for line in results.lines}
  return environment.get_template(f'{PAGE}.jinja').render(
    results=results,
    budget=results.budget,
    done=done,
    missing=[name for name in results.rows if name not in done],
    claims=[_claim(*pair, results.rows) for pair in claims],
    verdicts=', '.join(f'{counts[name]} {name}' for name in VERDICTS),
    percent=round(100 * claims_lib.CONFIDENCE),
    tables=[_table(results, *kinds) for kinds in _KINDS],
    pictures=[
      (file, title)
      for file, title in _TITLES.items()
      if (folder / file).exists()
    ],
    licence=openmoji.LICENCE,
  )


def _claim(claim: Claim, finding: claims_lib.Finding, rows) -> tuple:
  """What the page says of a claim, beside it and what was found."""
  metric, papers = METRICS[claim.metric], claim.papers(rows)
  paper, names = f'{claim.expected}, no figures', metric.words
  if papers:
    # With as many digits as they have in the paper.
    paper = ' against '.join(f'{metric.scale * x:.4g}' for x in papers)
    if metric.paper != metric.words:
      names += f' / {metric.paper}'
  ours, difference = '-', '-'
  if finding.seeds:
    pair = np.mean(finding.ours), np.mean(finding.theirs)
    ours = ' against '.join(metric.write(value) for value in pair)
    difference = metric.write(finding.difference)
    if not math.isnan(finding.half_width):
      difference += f' ± {metric.write(finding.half_width)}'
  return claim, finding, names, paper, ours, difference


def _table(results: Results, *kinds: str) -> tuple[list[str], list[tuple]]:
  """The titles of the metrics of some kinds of rows, and those rows."""
  columns = _COLUMNS[kinds[0]]
  return [METRICS[name].words for name in columns], [
    (
      row,
      [_spread(results.values(row.name, c), c) for c in columns],
      results.cpu_seconds(row.name),
      results.seeds(row.name),
    )
    for row in results.rows.values()
    if row.kind in kinds
  ]


def _spread(values: Sequence[float], name: str) -> str:
  metric = METRICS[name]
  if not values:
    return '-'
  text = metric.write(float(np.mean(values)))
  if len(values) > 1:
    text += f' ± {metric.write(float(stats.sem(values)))}'
  return text


def _draw(results: Results, file: pathlib.Path):
  """A panel for each metric: a line for each row, a dot for each run."""
  panels = []
  for name in _PANELS:
    found = {row: results.values(row, name) for row in results.rows}
    found = {row: values for row, values in found.items() if values}
    if found:
      panels.append((name, found))
  columns = min(3, len(panels))
  lines = math.ceil(len(panels) / columns)
  longest = max(len(found) for _, found in panels)
  accent, ink = curves.LIGHT.accent, curves.LIGHT.ink
  with curves.style():
    figure = curves.new_figure(lines, columns, (4.4, 1.0 + 0.24 * longest))
    for i, (name, found) in enumerate(panels):
      axes = figure.add_subplot(lines, columns, i + 1)
      scale = METRICS[name].scale
      for place, values in enumerate(found.values()):
        values = scale * np.asarray(values)
        axes.plot(values, [place] * len(values), 'o', color=accent, ms=4)
        axes.plot([values.mean()], [place], '|', color=ink, ms=11)
      base = next((found[x] for x in _BASES if x in found), None)
      if base:
        mean = scale * float(np.mean(base))
        axes.axvline(mean, color=ink, linewidth=0.9, linestyle='--')
      axes.set_yticks(range(len(found)), list(found))
      axes.invert_yaxis()
      axes.set_title(METRICS[name].words)
    figure.savefig(file, dpi=curves.DPI, metadata={'Software': None})


def _sheet(results, kinds, folder: pathlib.Path, file: str):
  """The rows' own pictures one below the other, with their names."""
  names = [row.name for row in results.rows.values() if row.kind in kinds]
  strips = [
    (name, folder / PICTURES / f'{name}.png')
    for name in ([ORIGINALS] if 'base' in names else []) + names
  ]
  strips = [(name, path) for name, path in strips if path.exists()]
  if not any(name in names for name, _ in strips):
    return
  figure = curves.new_figure(len(strips), 1, (7.2, 0.62))
  for i, (name, path) in enumerate(strips):
    axes = figure.add_subplot(len(strips), 1, i + 1)
    axes.imshow(np.asarray(Image.open(path)), interpolation='nearest')
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_ylabel(name, rotation=0, ha='right', va='center', fontsize=8)
  figure.savefig(  # Tight, lest long names be cut.
    folder / file,
    dpi=curves.DPI,
    bbox_inches='tight',
    metadata={'Software': None},
  )
