"""Draws every curve of a run as one picture.

  ./bazelw run //experiments:draw_curves -- --workdir=runs/tokenizer \
    --out=curves.png

Works on the working directory of any binary that trains, also while it does. A
quantity that was measured on training batches and on held-out images has both
in one panel, and so have the discriminator's logits of real and fake images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import io
import pathlib

from absl import flags
from etils import epy

from experiments import flags as flags_lib
from vim_tf import config as config_lib
from vim_tf.training import workdir as workdir_lib

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from PIL import Image

  from vim_tf.jobs import curves

WORKDIR = flags.DEFINE_string(
  'workdir', None, '[run] Working directory of the run.', required=True
)
OUT = flags.DEFINE_string(
  'out', None, '[output] PNG file to write; must not exist.', required=True
)

_COLUMNS = 4
_COLOURS = 64  # Of the file: text and lines need no more.
_DISCRIMINATOR = 'discriminator/'
_REAL, _FAKE = (f'{_DISCRIMINATOR}{x}_logits' for x in ('real', 'fake'))
# What says how the run goes on, not how good the model is.
_UPDATES = (
  'adaptive_weight',
  'codes_replaced',
  'gradient_norm',
  'images_per_second',
  'learning_rate',
)


def panels(rows: Sequence[Mapping]) -> dict[str, list[curves.Panel]]:
  """Panels of all metrics of a run, in groups.

  Args:
    rows: Rows of `metrics.jsonl`.

  Returns:
    From a row's title to its panels, at most `_COLUMNS`; groups: losses and
    codes, held-out images, the discriminator, updates.
  """
  groups = {
    'Training': [],
    'Held-out': [],
    'Discriminator': [],
    'Updates': [],
  }
  keys = {key for row in rows for key in row} - {'step'}
  for key in sorted(keys):
    held_out = key.startswith(curves.HELD_OUT)
    if held_out and key.removeprefix(curves.HELD_OUT) in keys:
      continue  # In the panel of the training batches.
    panel = _panel(rows, key)
    if panel is None:
      continue
    if held_out:
      groups['Held-out'].append(panel)
    elif key in _UPDATES or key.endswith('gradient_norm'):
      groups['Updates'].append(panel)
    elif not key.startswith(_DISCRIMINATOR):
      groups['Training'].append(panel)
    elif key != _FAKE or _REAL not in keys:
      groups['Discriminator'].append(panel)
  return {
    f'{title} {start // _COLUMNS + 1}': group[start : start + _COLUMNS]
    for title, group in groups.items()
    for start in range(0, len(group), _COLUMNS)
  }


def _panel(rows, key: str) -> curves.Panel | None:
  """The panel of a metric, with what belongs into it; None without values."""
  if key == _REAL:
    lines = [
      curves.line_of(rows, _FAKE, 'fake'),
      curves.line_of(rows, _REAL, 'real'),
    ]
    title = 'logits'
  elif key.startswith(curves.HELD_OUT):
    lines = [curves.line_of(rows, key, curves.ON_HELD_OUT)]
    title = key.removeprefix(curves.HELD_OUT)
  else:
    lines = [
      curves.line_of(rows, key, curves.ON_TRAINING),
      curves.line_of(rows, curves.HELD_OUT + key, curves.ON_HELD_OUT),
    ]
    title = key
  title = title.replace('_', ' ')
  lines = [line for line in lines if line is not None]
  return curves.Panel(title, title, lines, {}) if lines else None


def main():
  """Reads the metrics and writes the picture."""
  out = pathlib.Path(OUT.value)
  if out.exists():
    raise config_lib.ConfigError(f'--out={out} exists already; name a new one.')
  workdir_lib.read(WORKDIR.value)  # Refuses what is no working directory.
  found = panels(workdir_lib.read_metrics(WORKDIR.value))
  if not found:
    raise config_lib.UserError(
      f'{WORKDIR.value} holds no metrics yet: they come every log_every steps.'
    )
  image = Image.open(io.BytesIO(curves.png(found))).convert('RGB')
  out.parent.mkdir(parents=True, exist_ok=True)
  image.quantize(_COLOURS).save(out, optimize=True)


if __name__ == '__main__':
  flags_lib.run(main)
