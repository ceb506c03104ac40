"""The curves of a sampling study: a row of panels for each sweep."""

import os

from matplotlib import ticker
from matplotlib.axes import Axes

from vim_tf.jobs import curves

_ACCENT, _SECOND = curves.LIGHT.accent, curves.LIGHT.second


def draw(study: dict, path: str | os.PathLike):
  """Draws a study.

  Args:
    study: What the program writes.
    path: The PNG file.
  """
  with curves.style():
    _draw(study, path)


def _draw(study: dict, path: str | os.PathLike):
  network = study['protocol']['network']
  sweeps = (
    ('guidance', 'guidance_scale', 'guidance scale'),
    ('acceptance', 'acceptance', 'acceptance rate'),
  )
  panels = (
    _distance,
    _kernel,
    _class_score,
    _network_score,
    _manifold,
    _recognition,
  )
  figure = curves.new_figure(len(sweeps), len(panels))
  for row, (sweep, key, label) in enumerate(sweeps):
    points = sorted(study[sweep], key=lambda point: point[key])
    places = [point[key] for point in points]
    for column, panel in enumerate(panels):
      axes = figure.add_subplot(
        len(sweeps), len(panels), row * len(panels) + column + 1
      )
      axes.set_xlabel(label)
      axes.margins(y=0.12)
      panel(axes, places, points, study['baselines'], network)
      if sweep == 'acceptance':  # Fewer are kept to the right.
        axes.set_xscale('log')
        axes.invert_xaxis()
      axes.xaxis.set_major_locator(ticker.FixedLocator(places))
      axes.xaxis.set_minor_locator(ticker.NullLocator())
      axes.xaxis.set_major_formatter(ticker.StrMethodFormatter('{x:g}'))
  if 'sets' in study['guidance'][0]:
    figure.supxlabel(
      f'Means of {len(study["protocol"]["seeds"])} sets of '
      f'{study["protocol"]["num_samples"]} samples; the bands reach from the '
      'lowest to the highest set.',
      fontsize=8,
    )
  figure.savefig(path, dpi=curves.DPI, metadata={'Software': None})


def _distance(axes: Axes, places, points, baselines, network):
  axes.set_title(f'Fréchet distance\n{network}')
  key = f'gfd_{network}'
  _line(axes, places, points, key, _ACCENT)
  _reference(axes, baselines, f'held_out_{key}', 'real, held out')
  _reference(axes, baselines, f'reconstructed_{key}', 'reconstructions')


def _kernel(axes: Axes, places, points, baselines, network):
  axes.set_title(f'Kernel distance\n{network}')
  key, error = f'gkd_{network}', f'gkd_error_{network}'
  _line(axes, places, points, key, _ACCENT)
  if 'sets' not in points[0]:
    values = [point[key] for point in points]
    # Of few images there is none, which JSON has as null.
    errors = [point[error] or 0.0 for point in points]
    axes.errorbar(places, values, errors, fmt='none', ecolor=_ACCENT, capsize=2)
  _reference(axes, baselines, f'held_out_{key}', 'real, held out')
  _reference(axes, baselines, f'reconstructed_{key}', 'reconstructions')


def _class_score(axes: Axes, places, points, baselines, network):
  axes.set_title("Classifier score\nover the data's classes")
  _score(axes, places, points, baselines, f'class_score_{network}')


def _network_score(axes: Axes, places, points, baselines, network):
  axes.set_title(f"Classifier score\nover {network}'s classes")
  _score(axes, places, points, baselines, f'is_{network}')


def _score(axes: Axes, places, points, baselines, key):
  if all(key in point for point in points):
    _line(axes, places, points, key, _ACCENT)
  _reference(axes, baselines, f'held_out_{key}', 'real, held out')
  _reference(axes, baselines, f'reconstructed_{key}', 'reconstructions')


def _manifold(axes: Axes, places, points, baselines, network):
  axes.set_title('Precision and recall\nof 3 neighbours')
  _line(axes, places, points, f'gprecision_{network}', _ACCENT, 'precision')
  _line(axes, places, points, f'grecall_{network}', _SECOND, 'recall')
  axes.legend()


def _recognition(axes: Axes, places, points, baselines, network):
  del network
  axes.set_title('Recognised as its class, %\n(grey: each class)')
  rows = [point['recognition'] for point in points]
  for name in rows[0]['by_class']:
    values = [100 * row['by_class'][name] for row in rows]
    axes.plot(places, values, color=_SECOND, alpha=0.5, linewidth=0.9)
  values = [100 * row['accuracy'] for row in rows]
  axes.plot(places, values, color=_ACCENT, marker='o', linewidth=1.8)
  _band(axes, places, points, 'recognition.accuracy', _ACCENT, 100.0)
  for prefix, name in (
    ('held_out', 'real, held out'),
    ('reconstructed', 'reconstructions'),
  ):
    found = baselines.get(f'{prefix}_recognition')
    if found:
      curves.draw_reference(axes, name, 100 * found['accuracy'])


def _line(axes: Axes, places, points, key, colour, label=None):
  values = [point[key] for point in points]
  axes.plot(
    places, values, color=colour, marker='o', linewidth=1.8, label=label
  )
  _band(axes, places, points, key, colour)


def _band(axes: Axes, places, points, key, colour, unit=1.0):
  """From the lowest to the highest set of each point, if there are sets."""
  sets = [point.get('sets', {}).get(key, [point.get(key)]) for point in points]
  if any(len(values) > 1 for values in sets):
    low, high = ([unit * f(values) for values in sets] for f in (min, max))
    axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)


def _reference(axes: Axes, baselines: dict, key: str, name: str):
  if key in baselines:
    curves.draw_reference(axes, name, baselines[key])
