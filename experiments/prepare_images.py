"""Prepares a folder of one's own photographs for training.

  ./bazelw run //experiments:prepare_images -- \
    --source="$HOME/Pictures/holidays" --out=photos --size=128

It writes a folder with the same subfolders: every picture turned upright, in
sRGB, made small, as JPEG or PNG. What is no picture or a broken one is named
and left out. The originals are left as they are. Started again it adds the
pictures that are not there yet.
"""

import pathlib

from absl import flags, logging
from etils import epy

from experiments import flags as flags_lib

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from vim_tf.data import folders, preparation

SOURCE = flags.DEFINE_string(
  'source', None, 'Folder of pictures, with one subfolder a class or none.'
)
OUT = flags.DEFINE_string(
  'out', None, 'Folder for what is prepared, new or to be added to.'
)
SIZE = flags.DEFINE_integer(
  'size',
  128,
  'Shorter side of what is written, in pixels: about twice the image size that '
  'is trained on. Smaller pictures are not enlarged.',
  lower_bound=1,
)

flags.mark_flags_as_required(['source', 'out'])


def main():
  """Prepares, then tells what training will find."""
  source = pathlib.Path(SOURCE.value).expanduser()
  out = pathlib.Path(OUT.value).expanduser()
  report = preparation.prepare(source, out, SIZE.value)
  for problem in report.left_out:
    logging.warning('left out: %s', problem)
  logging.info(
    '%d images were added to %s, %d were there already, %d files were left '
    'out.',
    report.num_written,
    out,
    report.num_there,
    len(report.left_out),
  )
  found = {
    split: folders.list_images(str(out), split) for split in folders.SPLITS
  }
  names = found['train'][2]
  logging.info(
    'Training reads %d of them and holds out %d, %s: --data=folder:%s',
    len(found['train'][0]),
    len(found['validation'][0]),
    f'in {len(names)} classes ({", ".join(names)})'
    if len(names) > 1
    else 'without classes',
    out,
  )


if __name__ == '__main__':
  flags_lib.run(main)
