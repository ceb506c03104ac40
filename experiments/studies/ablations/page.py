"""The page of the ablations: which claims hold, the rows, the pictures."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import math
import pathlib

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
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

_ACCENT, _FAINT, _INK = '#0f766e', '#e3e6ea', '#3a424d'
_DPI = 110
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
  text = '\n'.join(_page(results, folder)) + '\n'
  (folder / PAGE).write_text(text)


def _page(results: Results, folder: pathlib.Path) -> Iterable[str]:
  yield '# The claims of the paper at small scale'
  yield ''
  yield '<!-- Written by //experiments/studies/ablations; do not edit. -->'
  yield ''
  yield from _budget(results)
  yield ''
  claims = [c for c in CLAIMS if {c.row, c.against} <= set(results.rows)]
  if claims:
    yield from _claims(results, claims)
    yield ''
  yield from _rows(results)
  for file, title in (
    (CHART, 'Every run as a dot, the mean as a bar; dashed: the base'),
    (
      'reconstructions.png',
      f'Held-out originals and reconstructions, seed {SHOWN_SEED}',
    ),
    ('samples.png', f'Samples by class, seed {SHOWN_SEED}'),
  ):
    if (folder / file).exists():
      yield from ('', f'![{title}]({file})', '', f'*{title}.*')
  yield from ('', f'Pictures: {openmoji.LICENCE}.')


def _budget(results: Results) -> Iterable[str]:
  budget, lines = results.budget, results.lines
  total = len(results.rows)
  done = {line['row'] for line in lines}
  yield (
    f'OpenMoji at {budget.image_size} px, trained on {budget.train_split} and '
    f'measured on {budget.eval_split}, {budget.codebook_size} codes, '
    f'patches of {budget.patch_size} px. A tokenizer: {budget.tokenizer_steps} '
    f'steps of {budget.tokenizer_batch} images (with codes from step '
    f'{budget.codes_start}, with the perceptual and the adversarial term from '
    f'step {budget.full_loss_start} on), width {budget.width}, '
    f'{budget.blocks} + {budget.blocks} blocks (the base). A VIM: '
    f'{budget.vim_steps} steps of {budget.vim_batch} images, width '
    f'{budget.vim_width}, {budget.vim_blocks} or {budget.vim_blocks // 2} '
    f'blocks; {budget.samples} samples are scored. The paper: '
    'ImageNet at 256 px, 8,192 codes, 500,000 and 450,000 steps of 256 and '
    '1,024 images. Budget '
    f'`{results.name}` of `//experiments/studies/ablations`.'
  )
  yield ''
  yield (
    f'{len(lines)} runs, of {len(done)} of the {total} rows, took '
    f'{sum(line["cpu_seconds"] for line in lines) / 60:.0f} CPU minutes.'
  )
  missing = [name for name in results.rows if name not in done]
  if missing:
    yield f'Not run: {", ".join(missing)}.'


def _claims(results: Results, claims: Sequence[Claim]) -> Iterable[str]:
  findings = [
    claims_lib.judge(claim, results.rows, results.lines) for claim in claims
  ]
  counts = {
    verdict: sum(finding.verdict == verdict for finding in findings)
    for verdict in VERDICTS
  }
  percent = round(100 * claims_lib.CONFIDENCE)
  yield '## Claims'
  yield ''
  yield ', '.join(f'{count} {name}' for name, count in counts.items()) + '.'
  yield ''
  yield (
    'Two rows are compared at a time, paired by seed. The verdict is "within '
    f'noise" unless the {percent}% interval of the mean difference (Student\'s '
    't over the seeds) leaves out zero; if it does, the sign decides. Where '
    f'nothing differs, {100 - percent} comparisons in a hundred are thus '
    'decided by chance. "FD" is over EfficientNet-Lite0: not the papers\' FID, '
    'nor is the classifier score their IS. Figures of ours: mean over the '
    'seeds; differences with half their interval.'
  )
  yield ''
  yield (
    "| claim | where | metric: ours / the paper's | paper | ours | difference "
    '| seeds | verdict |'
  )
  yield '|---|---|---|---|---|---|---|---|'
  for claim, finding in zip(claims, findings):
    yield _claim_row(claim, finding, results.rows)


def _claim_row(claim, finding, rows) -> str:
  metric = METRICS[claim.metric]
  papers = claim.papers(rows)
  if papers:
    paper = f'{_plain(papers[0], metric)} against {_plain(papers[1], metric)}'
  else:
    paper = f'{claim.expected}, no figures'
  ours, difference = '-', '-'
  if finding.seeds:
    pair = (np.mean(finding.ours), np.mean(finding.theirs))
    ours = ' against '.join(metric.write(value) for value in pair)
    difference = metric.write(finding.difference)
    if not math.isnan(finding.half_width):
      difference += f' ± {metric.write(finding.half_width)}'
  names = metric.words
  if papers and metric.paper != metric.words:
    names += f' / {metric.paper}'
  return (
    f'| {claim.words} (`{claim.row}` against `{claim.against}`) '
    f'| {claim.source} | {names} | {paper} | {ours} | {difference} '
    f'| {len(finding.seeds)} | **{finding.verdict}** |'
  )


def _plain(value: float, metric) -> str:
  """A figure of the paper with as many digits as it has there."""
  return f'{metric.scale * value:.4g}'


def _rows(results: Results) -> Iterable[str]:
  yield '## Rows'
  yield ''
  yield 'Mean and standard error over the seeds.'
  for kinds in (
    (rows_lib.TOKENIZER,),
    (rows_lib.VIM, rows_lib.SAMPLES),
    (rows_lib.PROBE,),
  ):
    columns = _COLUMNS[kinds[0]]
    titles = [METRICS[name].words for name in columns]
    yield ''
    yield f'| row | what | {" | ".join(titles)} | CPU seconds | seeds |'
    yield '|---' * (len(columns) + 4) + '|'
    for row in results.rows.values():
      if row.kind in kinds:
        cells = [_spread(results.values(row.name, c), c) for c in columns]
        seeds = ', '.join(map(str, results.seeds(row.name))) or 'none'
        cells.append(results.cpu_seconds(row.name))
        yield (
          f'| `{row.name}` | {row.words} | {" | ".join(cells)} | {seeds} |'
        )


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
  figure = Figure(
    figsize=(4.4 * columns, lines * (1.0 + 0.24 * longest)),
    layout='constrained',
  )
  FigureCanvasAgg(figure)  # Without pyplot, which would look for a display.
  for i, (name, found) in enumerate(panels):
    axes = figure.add_subplot(lines, columns, i + 1)
    scale = METRICS[name].scale
    for place, values in enumerate(found.values()):
      values = scale * np.asarray(values)
      axes.plot(values, [place] * len(values), 'o', color=_ACCENT, ms=4)
      axes.plot([values.mean()], [place], '|', color=_INK, ms=11)
    base = found.get('base') or found.get('vim_deep') or found.get('probe_deep')
    if base:
      axes.axvline(
        scale * float(np.mean(base)), color=_INK, linewidth=0.9, linestyle='--'
      )
    axes.set_yticks(range(len(found)), list(found), fontsize=8)
    axes.invert_yaxis()
    axes.set_title(METRICS[name].words, fontsize=9)
    axes.tick_params(axis='x', labelsize=8)
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(True, axis='x', linewidth=0.6, color=_FAINT)
    axes.set_axisbelow(True)
  figure.savefig(file, dpi=_DPI, metadata={'Software': None})


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
  figure = Figure(figsize=(7.2, 0.62 * len(strips)), layout='constrained')
  FigureCanvasAgg(figure)
  for i, (name, path) in enumerate(strips):
    axes = figure.add_subplot(len(strips), 1, i + 1)
    axes.imshow(np.asarray(Image.open(path)), interpolation='nearest')
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_ylabel(name, rotation=0, ha='right', va='center', fontsize=8)
  figure.savefig(  # Tight, lest long names be cut.
    folder / file, dpi=_DPI, bbox_inches='tight', metadata={'Software': None}
  )
