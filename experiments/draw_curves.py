"""Draws every curve of a run as one picture.

  ./bazelw run //experiments:draw_curves -- --workdir=runs/tokenizer \
    --out=curves.png

Works on the working directory of any binary that trains, also while it does. A
quantity that was measured on training batches and on held-out images has both
in one panel.
"""

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

_COLOURS = 64  # Of the file: text and lines need no more.


def main():
  """Reads the metrics and writes the picture."""
  out = pathlib.Path(OUT.value)
  if out.exists():
    raise config_lib.ConfigError(f'--out={out} exists already; name a new one.')
  workdir_lib.read(WORKDIR.value)  # Refuses what is no working directory.
  found = curves.all_panels(workdir_lib.read_metrics(WORKDIR.value))
  if not found:
    raise config_lib.UserError(
      f'{WORKDIR.value} holds no metrics yet: they come every log_every steps.'
    )
  image = Image.open(io.BytesIO(curves.png(found))).convert('RGB')
  out.parent.mkdir(parents=True, exist_ok=True)
  image.quantize(_COLOURS).save(out, optimize=True)


if __name__ == '__main__':
  flags_lib.run(main)
