"""The curves of a sampling study: a row of panels for each sweep."""

import os

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_PANEL_INCHES = (3.3, 2.7)
_DPI = 110
_ACCENT, _SECOND, _FAINT, _INK = '#0f766e', '#b45309', '#c9ced6', '#3a424d'


def draw(study: dict, path: str | os.PathLike):
  """Draws a study.

  Args:
    study: What `sampling_study` writes.
    path: The PNG file.
  """
  network = study['protocol']['network']
  sweeps = (
    ('guidance', 'guidance_scale', 'guidance scale'),
    ('acceptance', 'acceptance', 'acceptance rate'),
  )
  panels = (_distance, _kernel, _score, _manifold, _recognition)
  width, height = _PANEL_INCHES
  figure = Figure(
    figsize=(len(panels) * width, len(sweeps) * height), layout='constrained'
  )
  FigureCanvasAgg(figure)  # Without pyplot, which would look for a display.
  for row, (sweep, key, label) in enumerate(sweeps):
    points = sorted(study[sweep], key=lambda point: point[key])
    places = [point[key] for point in points]
    for column, panel in enumerate(panels):
      axes = figure.add_subplot(
        len(sweeps), len(panels), row * len(panels) + column + 1
      )
      axes.set_xlabel(label)
      panel(axes, places, points, study['baselines'], network)
      _tidy(axes)
      if sweep == 'acceptance':  # Fewer are kept to the right.
        axes.set_xscale('log')
        axes.invert_xaxis()
      axes.xaxis.set_major_locator(ticker.FixedLocator(places))
      axes.xaxis.set_minor_locator(ticker.NullLocator())
      axes.xaxis.set_major_formatter(ticker.StrMethodFormatter('{x:g}'))
  figure.savefig(path, dpi=_DPI, metadata={'Software': None})


def _distance(axes: Axes, places, points, baselines, network):
  axes.set_title(f'Fréchet distance\n{network}')
  key = f'gfd_{network}'
  _line(axes, places, points, key, _ACCENT)
  _reference(axes, baselines, f'held_out_{key}', 'real, held out')
  _reference(axes, baselines, f'reconstructed_{key}', 'reconstructions')


def _kernel(axes: Axes, places, points, baselines, network):
  axes.set_title(f'Kernel distance\n{network}')
  key, error = f'gkd_{network}', f'gkd_error_{network}'
  values = [point[key] for point in points]
  # Of few images there is none, which JSON has as null.
  errors = [point[error] or 0.0 for point in points]
  axes.errorbar(places, values, errors, color=_ACCENT, marker='o', capsize=2)
  _reference(axes, baselines, f'held_out_{key}', 'real, held out')
  _reference(axes, baselines, f'reconstructed_{key}', 'reconstructions')


def _score(axes: Axes, places, points, baselines, network):
  axes.set_title(f'Classifier score\n{network}, ImageNet classes')
  key = f'is_{network}'
  if all(key in point for point in points):
    _line(axes, places, points, key, _ACCENT)
  _reference(axes, baselines, f'held_out_{key}', 'real, held out')


def _manifold(axes: Axes, places, points, baselines, network):
  axes.set_title('Precision and recall\nof 3 neighbours')
  _line(axes, places, points, f'gprecision_{network}', _ACCENT, 'precision')
  _line(axes, places, points, f'grecall_{network}', _SECOND, 'recall')
  axes.legend(frameon=False, fontsize=8)


def _recognition(axes: Axes, places, points, baselines, network):
  del network
  axes.set_title('Recognised as its class, %\n(grey: each class)')
  rows = [point['recognition'] for point in points]
  for name in rows[0]['by_class']:
    values = [100 * row['by_class'][name] for row in rows]
    axes.plot(places, values, color=_FAINT, linewidth=0.9)
  values = [100 * row['accuracy'] for row in rows]
  axes.plot(places, values, color=_ACCENT, marker='o', linewidth=1.8)
  for prefix, name in (
    ('held_out', 'real, held out'),
    ('reconstructed', 'reconstructions'),
  ):
    found = baselines.get(f'{prefix}_recognition')
    if found:
      _dashed(axes, 100 * found['accuracy'], name)


def _line(axes: Axes, places, points, key, colour, label=None):
  values = [point[key] for point in points]
  axes.plot(
    places, values, color=colour, marker='o', linewidth=1.8, label=label
  )


def _reference(axes: Axes, baselines: dict, key: str, name: str):
  if key in baselines:
    _dashed(axes, baselines[key], name)


def _dashed(axes: Axes, value: float, name: str):
  axes.axhline(value, color=_INK, linewidth=1.0, linestyle=(0, (4, 3)))
  axes.annotate(
    name,
    (1.0, value),
    xycoords=('axes fraction', 'data'),
    xytext=(0, 2),
    textcoords='offset points',
    ha='right',
    fontsize=7,
    color=_INK,
  )


def _tidy(axes: Axes):
  axes.spines[['top', 'right']].set_visible(False)
  axes.grid(True, linewidth=0.6, color='#e3e6ea')
  axes.set_axisbelow(True)
  axes.title.set_fontsize(9)
  axes.tick_params(labelsize=8)
  axes.margins(y=0.12)
