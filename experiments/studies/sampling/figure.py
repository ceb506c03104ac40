"""The curves of a sampling study: a row of panels for each sweep."""

import os

from matplotlib import ticker

from vim_tf.jobs import curves
from vim_tf.settings import flat

_ACCENT, _SECOND = curves.LIGHT.accent, curves.LIGHT.second
_SWEEPS = (
  ('guidance', 'guidance_scale', 'guidance scale'),
  ('acceptance', 'acceptance', 'acceptance rate'),
)
# Titles, and the figures of a panel with what the legend calls them.
_PANELS = (
  ('Fréchet distance\n{0}', {'gfd_{0}': ''}),
  ('Kernel distance\n{0}', {'gkd_{0}': ''}),
  ("Classifier score\nover the data's classes", {'class_score_{0}': ''}),
  ("Classifier score\nover {0}'s classes", {'is_{0}': ''}),
  (
    'Precision and recall\nof 3 neighbours',
    {'grecall_{0}': 'recall', 'gprecision_{0}': 'precision'},
  ),
  ('Recognised as its class\n(grey: each class)', {'recognition.accuracy': ''}),
)
_CLASSES = 'recognition.by_class.'


def draw(study: dict, path: str | os.PathLike):
  """Draws what the program writes as a PNG file."""
  network = study['protocol']['network']
  baselines = flat(study['baselines'])
  with curves.style():
    figure = curves.new_figure(len(_SWEEPS), len(_PANELS))
    for row, (sweep, key, label) in enumerate(_SWEEPS):
      points = sorted(study[sweep], key=lambda point: point[key])
      places = [point[key] for point in points]
      for column, (title, figures) in enumerate(_PANELS):
        axes = figure.add_subplot(
          len(_SWEEPS), len(_PANELS), row * len(_PANELS) + column + 1
        )
        axes.set_title(title.format(network))
        axes.set_xlabel(label)
        axes.margins(y=0.12)
        names = {key.format(network): name for key, name in figures.items()}
        _panel(axes, places, points, names, baselines)
        if sweep == 'acceptance':  # Fewer are kept to the right.
          axes.set_xscale('log')
          axes.invert_xaxis()
        axes.xaxis.set_major_locator(ticker.FixedLocator(places))
        axes.xaxis.set_minor_locator(ticker.NullLocator())
        axes.xaxis.set_major_formatter(ticker.StrMethodFormatter('{x:g}'))
    if 'sets' in study['guidance'][0]:
      figure.supxlabel(
        f'Means of {len(study["protocol"]["seeds"])} sets of '
        f'{study["protocol"]["num_samples"]} samples; the bands reach from '
        'the lowest to the highest set.',
        fontsize=8,
      )
    figure.savefig(path, dpi=curves.DPI, metadata={'Software': None})


def _panel(axes, places, points, names: dict[str, str], baselines: dict):
  """Draws figures of all points, by their flat names."""
  rows = [flat(point) for point in points]
  if 'recognition.accuracy' in names:
    for key in (key for key in rows[0] if key.startswith(_CLASSES)):
      values = [row[key] for row in rows]
      axes.plot(places, values, color=_SECOND, alpha=0.5, linewidth=0.9)
  for i, (key, name) in enumerate(names.items()):
    colour = _ACCENT if i == len(names) - 1 else _SECOND
    if all(key in row for row in rows):
      values = [row[key] for row in rows]
      axes.plot(places, values, color=colour, marker='o', label=name)
      sets = [
        point.get('sets', {}).get(key, [value])
        for point, value in zip(points, values)
      ]
      low, high = ([f(x) for x in sets] for f in (min, max))
      axes.fill_between(places, low, high, color=colour, alpha=0.15, lw=0)
    if len(names) == 1:
      for prefix, what in (
        ('held_out_', 'real, held out'),
        ('reconstructed_', 'reconstructions'),
      ):
        if prefix + key in baselines:
          curves.draw_reference(axes, what, baselines[prefix + key])
  if len(names) > 1:
    axes.legend()
