"""Curves of a run's `metrics.jsonl`, drawn with matplotlib for a report.

A stage has a few panels, each with its own axes and unit: the training loss,
and what was measured on held-out images. A panel can carry dashed lines at the
figures of baselines.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import io
import math

from matplotlib import rc_context, ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

HELD_OUT = 'eval/'
"""Prefix of what was measured on held-out images."""

ON_HELD_OUT = 'held-out images'
ON_TRAINING = 'training batches'
_STEPS = 'training steps'
_PANEL_INCHES = (4.2, 2.7)
DPI = 110
_STYLE = {
  'font.size': 9,
  'axes.titlesize': 10,
  'axes.titlelocation': 'left',
  'axes.titleweight': 'bold',
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.axisbelow': True,
  'axes.grid': True,
  'grid.linewidth': 0.6,
  'lines.linewidth': 1.8,
  'legend.frameon': False,
  'legend.fontsize': 8,
  'svg.fonttype': 'none',  # Text stays text: smaller, and in the page's font.
  'svg.hashsalt': 'vim_tf',  # The same rows give the same file.
}
_MOST_IN_A_ROW = 4  # Panels of a picture of all metrics.


@dataclasses.dataclass(frozen=True)
class Palette:
  """Colours of a drawing, as matplotlib and CSS both read them."""

  paper: str
  ink: str
  grid: str
  accent: str
  second: str


LIGHT = Palette('#ffffff', '#3a424d', '#e3e6ea', '#0f766e', '#8a94a3')
DARK = Palette('#1b2129', '#c3cad4', '#313a45', '#4fc3b5', '#7d8896')


@dataclasses.dataclass(frozen=True)
class Line:
  """One curve: steps, values, and what the legend calls it.

  `errors` are the half heights of a band around the values, if there is one.
  """

  name: str
  steps: Sequence[float]
  values: Sequence[float]
  errors: Sequence[float] = ()


@dataclasses.dataclass(frozen=True)
class Panel:
  """One pair of axes.

  Attributes:
    title: What is shown.
    unit: Label of the vertical axis.
    lines: The curves; the last is the one that matters.
    references: Figures of baselines by name, drawn as dashed lines.
    axis: Label of the horizontal axis.
  """

  title: str
  unit: str
  lines: Sequence[Line]
  references: Mapping[str, float]
  axis: str = _STEPS

  def describe(self) -> str:
    """The panel in one sentence, for those who cannot see it."""
    at = 'step' if self.axis == _STEPS else 'place'
    parts = [
      f'{line.name} from {line.values[0]:.4g} at {at} {line.steps[0]:,} to '
      f'{line.values[-1]:.4g} at {at} {line.steps[-1]:,}'
      for line in self.lines
    ]
    parts += [f'{name} at {y:.4g}' for name, y in self.references.items()]
    return f'{self.title}, {self.unit}: {"; ".join(parts)}.'


@dataclasses.dataclass(frozen=True)
class _Kind:
  """A panel that is known by the key of its metric."""

  key: str
  title: str
  unit: str
  scale: float = 1.0
  also: str = ''  # The same quantity on training batches.


_KNOWN = (
  _Kind('eval/mean_psnr', 'PSNR', 'PSNR in dB'),
  _Kind('eval/ssim', 'SSIM', 'SSIM, 1 is equal'),
  _Kind('eval/usage', 'Codebook usage', 'codes in use, %', 100.0),
  _Kind(
    'eval/bits_per_code', 'Bits per code', 'bits per code', 1.0, 'bits_per_code'
  ),
  _Kind('eval/accuracy', 'Next code guessed right', '%', 100.0, 'accuracy'),
)


def panels(
  rows: Sequence[Mapping], references: Mapping[str, Mapping] | None = None
) -> list[Panel]:
  """What there is to draw of one run.

  Args:
    rows: Rows of `metrics.jsonl`: 'step' and any metrics; values that are no
      finite number are left out.
    references: From a metric's key to figures of baselines by name.

  Returns:
    The training loss and the known held-out metrics. Metrics without a value
    have no panel.
  """
  references = references or {}
  kinds = [_Kind('loss', 'Training loss', _loss_unit(rows)), *_KNOWN]
  result = []
  for kind in kinds:
    held_out = kind.key.startswith(HELD_OUT)
    name = ON_HELD_OUT if held_out else ON_TRAINING
    lines = [
      line_of(rows, kind.also, ON_TRAINING, kind.scale),
      line_of(rows, kind.key, name, kind.scale),
    ]
    if lines[-1]:
      baselines = {
        name: value * kind.scale
        for name, value in references.get(kind.key, {}).items()
        if _is_number(value)
      }
      lines = [line for line in lines if line]
      result.append(Panel(kind.title, kind.unit, lines, baselines))
  return result


def all_panels(rows: Sequence[Mapping]) -> dict[str, list[Panel]]:
  """Panels of all metrics of a run, by their names.

  Args:
    rows: Rows of `metrics.jsonl`.

  Returns:
    Rows of at most four panels by their numbers. What was measured on training
    batches and on held-out images is in one panel.
  """
  keys = {key.removeprefix(HELD_OUT) for row in rows for key in row}
  found = []
  for key in sorted(keys - {'step'}):
    lines = [
      line_of(rows, key, ON_TRAINING),
      line_of(rows, HELD_OUT + key, ON_HELD_OUT),
    ]
    lines = [line for line in lines if line]
    if lines:
      title = key.replace('_', ' ')
      found.append(Panel(title, title, lines, {}))
  return {
    str(start // _MOST_IN_A_ROW + 1): found[start : start + _MOST_IN_A_ROW]
    for start in range(0, len(found), _MOST_IN_A_ROW)
  }


def svg(panel: Panel, palette: Palette = LIGHT) -> bytes:
  """One panel as an SVG picture without any outside reference."""
  return _render(
    [[panel]], palette, format='svg', metadata={'Date': None, 'Creator': None}
  )


def png(stages: Mapping[str, Sequence[Panel]]) -> bytes:
  """The panels of all stages as one PNG picture, a row each."""
  stages = {title: panels for title, panels in stages.items() if panels}
  return _render(
    list(stages.values()),
    LIGHT,
    list(stages),
    format='png',
    dpi=DPI,
    metadata={'Software': None},
  )


@contextlib.contextmanager
def style(palette: Palette = LIGHT) -> Iterator[None]:
  """Figures that are made inside look as all of them do."""
  colours = {
    'figure.facecolor': palette.paper,
    'axes.facecolor': palette.paper,
    'text.color': palette.ink,
    'axes.labelcolor': palette.ink,
    'axes.edgecolor': palette.ink,
    'xtick.color': palette.ink,
    'ytick.color': palette.ink,
    'grid.color': palette.grid,
  }
  with rc_context({**_STYLE, **colours}):
    yield


def new_figure(
  rows: int, columns: int, panel: tuple[float, float] = _PANEL_INCHES
) -> Figure:
  """A figure with room for so many panels of a width and height in inches.

  Not through pyplot, which would keep it and look for a display.
  """
  width, height = panel
  size = columns * width, max(1, rows) * height
  figure = Figure(figsize=size, layout='constrained')
  FigureCanvasAgg(figure)
  return figure


def draw_reference(
  axes: Axes, name: str, value: float, palette: Palette = LIGHT
):
  """A dashed line at the figure of a baseline, with its name."""
  axes.axhline(value, color=palette.ink, linewidth=1.0, linestyle=(0, (4, 3)))
  axes.annotate(
    _plain(name),
    (1.0, value),
    xycoords=('axes fraction', 'data'),
    xytext=(0, 2),
    textcoords='offset points',
    ha='right',
    fontsize=8,
  )


def _render(
  rows: Sequence[Sequence[Panel]],
  palette: Palette,
  titles: Sequence[str] = (),
  **kwargs,
) -> bytes:
  """Draws rows of panels; the keyword arguments are those of `savefig`."""
  out = io.BytesIO()
  with style(palette):
    columns = max((len(row) for row in rows), default=1)
    figure = new_figure(len(rows), columns)
    if not rows:
      figure.text(0.5, 0.5, 'no metrics', ha='center')
    for i, row in enumerate(rows):
      for j, panel in enumerate(row):
        axes = figure.add_subplot(len(rows), columns, i * columns + j + 1)
        _draw(axes, panel, palette)
        if titles and not j:
          axes.set_title(_plain(f'{titles[i]}: {panel.title}'))
    figure.savefig(out, **kwargs)
  return out.getvalue()


def _draw(axes: Axes, panel: Panel, palette: Palette):
  last = len(panel.lines) - 1
  for i, line in enumerate(panel.lines):
    seldom = line.name == ON_HELD_OUT or panel.axis != _STEPS
    few = seldom and len(line.steps) < 20
    if line.errors:
      low, high = (
        [value + sign * error for value, error in zip(line.values, line.errors)]
        for sign in (-1, 1)
      )
      axes.fill_between(
        line.steps,
        low,
        high,
        color=palette.accent if i == last else palette.second,
        alpha=0.2,
        linewidth=0,
      )
    axes.plot(
      line.steps,
      line.values,
      color=palette.accent if i == last else palette.second,
      linewidth=None if i == last else 1.0,
      marker='o' if few or len(line.steps) == 1 else None,
      markersize=3.5,
      label=line.name,
    )
  for name, value in panel.references.items():
    draw_reference(axes, name, value, palette)
  if len(panel.lines) > 1:
    axes.legend()
  axes.set_title(_plain(panel.title))
  axes.set_xlabel(_plain(panel.axis))
  axes.set_ylabel(_plain(panel.unit))
  axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
  axes.xaxis.set_major_formatter(ticker.StrMethodFormatter('{x:,.0f}'))
  axes.margins(y=0.12)
  if panel.axis == _STEPS:
    axes.set_xlim(left=0)


def line_of(
  rows: Sequence[Mapping], key: str, name: str, scale: float = 1.0
) -> Line | None:
  """The finite values of one metric in order of steps; None if none is."""
  points = {
    row['step']: row[key] * scale
    for row in rows
    if _is_number(row.get('step')) and _is_number(row.get(key))
  }
  if not points:
    return None
  steps = sorted(points)
  return Line(name, steps, [points[step] for step in steps])


def _loss_unit(rows: Sequence[Mapping]) -> str:
  """Stage 2 alone has a loss with a unit."""
  is_vim = any('bits_per_code' in row for row in rows)
  return 'nats per code' if is_vim else 'sum of the loss terms'


def _is_number(value) -> bool:
  return (
    isinstance(value, int | float)
    and not isinstance(value, bool)
    and math.isfinite(value)
  )


def _plain(text: str) -> str:
  """Text that matplotlib does not take for a formula."""
  return text.replace('$', r'\$')
