"""The paper's claims as comparisons of two rows, and what ours say of them.

A claim compares a metric of one row with that of another. Ours are paired by
seed: the mean difference counts if its 90% interval (Student's t over the
seeds) leaves out zero; then it goes the paper's way or the other. Otherwise it
is within noise. Where nothing differs, one comparison in ten is thus decided
by chance. The claims themselves stand in `claims.csv`.
"""

from collections.abc import Iterable, Mapping, Sequence
import csv
import dataclasses
import math
import pathlib

import numpy as np
from scipy import stats

from experiments.studies.ablations.rows import Row

SAME, OPPOSITE, NOISE = 'same direction', 'opposite', 'within noise'
TOO_FEW, NOT_RUN = 'too few seeds', 'not run'
VERDICTS = (SAME, OPPOSITE, NOISE, TOO_FEW, NOT_RUN)

CONFIDENCE = 0.9
"""Of the interval that must leave out zero."""

HIGHER, LOWER = 'higher', 'lower'


@dataclasses.dataclass(frozen=True)
class Metric:
  """How a metric is written.

  Attributes:
    words: What ours is.
    paper: What the paper's is.
    scale: Factor in tables.
    digits: Digits after the point, there.
  """

  words: str
  paper: str
  scale: float = 1.0
  digits: int = 2

  def write(self, value: float) -> str:
    return f'{self.scale * value:z.{self.digits}f}'  # No minus zero.


METRICS = {
  'l2': Metric('L2, x1e-3', 'L2, x1e-3', 1e3, 2),
  'psnr': Metric('PSNR, dB', '', 1, 2),
  'lpips': Metric('LPIPS', '', 1, 3),
  'usage': Metric('codes in use, %', 'codes in use, %', 100, 1),
  'rfd': Metric('reconstruction FD (EfficientNet-Lite0)', 'rFID', 1, 1),
  'gfd': Metric('FD of samples (EfficientNet-Lite0)', 'FID', 1, 1),
  'gis': Metric('classifier score of samples', 'IS', 1, 2),
  'bits_per_code': Metric('bits a code', '', 1, 3),
  'recognised': Metric('samples recognised, %', '', 100, 1),
  'top1': Metric('probe top-1, %', 'probe top-1, %', 100, 1),
  'top1_first': Metric('top-1 of the first block, %', '', 100, 1),
  'top1_middle': Metric('top-1 of the middle block, %', '', 100, 1),
  'top1_last': Metric('top-1 of the last block, %', '', 100, 1),
}


@dataclasses.dataclass(frozen=True)
class Claim:
  """One comparison.

  Attributes:
    words: What the paper says.
    source: Where it says so.
    row: The row that the claim is about.
    against: The row that it is compared with.
    metric: The metric compared.
    metric_against: That of the other row, where it is another one.
    expected: HIGHER or LOWER, where the paper gives no figures.
    paper: The paper's two figures, where they are not those of the rows.
  """

  words: str
  source: str
  row: str
  against: str
  metric: str
  metric_against: str = ''
  expected: str = ''
  paper: tuple[float, float] | None = None

  @property
  def metrics(self) -> tuple[str, str]:
    return self.metric, self.metric_against or self.metric

  def papers(self, rows: Mapping[str, Row]) -> tuple[float, float] | None:
    """The paper's figures of both rows; None if it gives none."""
    if self.expected:
      return None
    if self.paper:
      return self.paper
    return tuple(
      rows[name].paper[metric]
      for name, metric in zip((self.row, self.against), self.metrics)
    )

  def direction(self, rows: Mapping[str, Row]) -> str:
    """HIGHER or LOWER, as the paper has it."""
    if self.expected:
      return self.expected
    ours, theirs = self.papers(rows)
    return HIGHER if ours > theirs else LOWER


def _read(file: pathlib.Path) -> Iterable[Claim]:
  """The claims of a table whose columns are the attributes of `Claim`."""
  with file.open(newline='') as lines:
    for line in csv.DictReader(lines):
      paper = tuple(map(float, line.pop('paper').split())) or None
      yield Claim(**line, paper=paper)


CLAIMS = tuple(_read(pathlib.Path(__file__).with_name('claims.csv')))


@dataclasses.dataclass(frozen=True)
class Finding:
  """What ours say of a claim.

  Attributes:
    verdict: One of `VERDICTS`.
    seeds: Seeds that have both rows.
    ours: The metric of the row, one a seed.
    theirs: That of the row it is compared with.
    difference: Mean of ours minus theirs; not a number without a seed.
    half_width: Half the interval of the difference; not a number for fewer
      than two seeds.
  """

  verdict: str
  seeds: tuple[int, ...]
  ours: tuple[float, ...]
  theirs: tuple[float, ...]
  difference: float
  half_width: float


def judge(
  claim: Claim, rows: Mapping[str, Row], lines: Iterable[Mapping]
) -> Finding:
  """Compares our runs as a claim does.

  Args:
    claim: The claim.
    rows: The rows by name.
    lines: Finished runs: 'row', 'seed' and 'figures'.
  """
  found = {(line['row'], line['seed']): line['figures'] for line in lines}
  seeds = sorted(
    seed
    for name, seed in found
    if name == claim.row and (claim.against, seed) in found
  )
  ours = [found[claim.row, seed][claim.metrics[0]] for seed in seeds]
  theirs = [found[claim.against, seed][claim.metrics[1]] for seed in seeds]
  difference, half_width = interval(np.subtract(ours, theirs))
  if not seeds:
    verdict = NOT_RUN
  elif len(seeds) == 1:
    verdict = TOO_FEW
  elif abs(difference) <= half_width:
    verdict = NOISE
  else:
    way = HIGHER if difference > 0 else LOWER
    verdict = SAME if way == claim.direction(rows) else OPPOSITE
  return Finding(
    verdict, tuple(seeds), tuple(ours), tuple(theirs), difference, half_width
  )


def interval(values: Sequence[float]) -> tuple[float, float]:
  """Mean of some values, and half the width of its interval.

  Returns:
    The mean, not a number without values; and half the width of its interval
    of `CONFIDENCE`, not a number for fewer than two.
  """
  values = np.asarray(values, np.float64)
  if not values.size:
    return math.nan, math.nan
  if values.size == 1:
    return float(values[0]), math.nan
  error = values.std(ddof=1) / math.sqrt(values.size)
  quantile = stats.t.ppf(0.5 + 0.5 * CONFIDENCE, values.size - 1)
  return float(values.mean()), float(quantile * error)
