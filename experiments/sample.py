"""Draws images from a trained VIM.

  ./bazelw run //experiments:sample -- \
    --workdir=runs/vim --out=samples --classes=Flags,3 --count=8

It writes one PNG an image, a grid of all, and `samples.json` with the seeds
and codes, which make the same images again.
"""

import pathlib

from absl import flags, logging
import numpy as np
from PIL import Image

from experiments import cli, generation, pictures
from vim_tf import restore
from vim_tf.config import ConfigError
from vim_tf.training import workdir as workdir_lib
from vim_tf.vim import sampling

WORKDIR = flags.DEFINE_string(
  'workdir', None, '[model] Working directory of a stage-2 run.', required=True
)
TOKENIZER = flags.DEFINE_string(
  'tokenizer', '', '[model] Its stage-1 run, if that was moved.'
)
OUT = flags.DEFINE_string(
  'out', None, '[output] Folder for the images; must not exist.', required=True
)
CLASSES = flags.DEFINE_list(
  'classes', [], '[what] Names or ids of classes; empty: all.'
)
COUNT = flags.DEFINE_integer(
  'count', 8, '[what] Images of each class.', lower_bound=1
)
SEED = flags.DEFINE_integer(
  'seed', 0, '[what] Seed of the first image; the next ones count up.', 0
)
BATCH = flags.DEFINE_integer(
  'batch_size', 32, '[run] Images drawn at once.', lower_bound=1
)
TEMPERATURE = flags.DEFINE_float(
  'temperature', 1.0, '[sampling] Divides the logits; 0: likeliest (4.1).'
)
TOP_K = flags.DEFINE_integer(
  'top_k', 0, '[sampling] Draw from the k likeliest codes; 0: all (4.1).'
)
TOP_P = flags.DEFINE_float(
  'top_p', 1.0, '[sampling] Draw from the likeliest codes of this share.'
)
GUIDANCE = flags.DEFINE_float(
  'guidance_scale', 1.0, '[sampling] Classifier-free guidance; 1: none.'
)


def main():
  """Draws everything, then writes it."""
  config = sampling.SamplingConfig(
    temperature=TEMPERATURE.value,
    top_k=TOP_K.value,
    top_p=TOP_P.value,
    guidance_scale=GUIDANCE.value,
  )
  out = pathlib.Path(OUT.value)
  if out.exists():
    raise ConfigError(f'--out={out} exists already; name a new folder.')
  tokenizer, vim = restore.both(WORKDIR.value, TOKENIZER.value)
  names = vim.record['class_names']
  classes = parse_classes(CLASSES.value, names, vim.config.model.num_classes)
  try:  # Now, rather than after hours of drawing.
    out.mkdir(parents=True)
  except OSError as error:
    raise ConfigError(f'Cannot make --out={out}: {error.strerror}.') from error
  ids = np.repeat(classes, COUNT.value)
  seeds = SEED.value + np.arange(len(ids))
  codes, images = generation.draw(
    tokenizer.model, vim.model, ids, seeds, config, BATCH.value
  )

  rows = []
  for i, image in enumerate(images):
    file = f'{ids[i]:04d}-{seeds[i]}.png'
    Image.fromarray(image).save(out / file)
    rows.append(
      {
        'file': file,
        'class_id': int(ids[i]),
        'class_name': names[ids[i]] if vim.config.model.num_classes else '',
        'seed': int(seeds[i]),
        'codes': codes[i].tolist(),
      }
    )
  columns = COUNT.value if len(classes) > 1 else int(np.ceil(len(ids) ** 0.5))
  grid = pictures.grid(images / np.float32(255), columns)
  Image.fromarray(grid).save(out / 'grid.png')
  workdir_lib.write_json(
    out / 'samples.json',
    {
      'workdir': WORKDIR.value,
      'step': vim.step,
      'tokenizer_fingerprint': vim.record['tokenizer_fingerprint'],
      'sampling': vars(config),
      'samples': rows,
    },
  )
  logging.info('%d images are in %s.', len(images), out)


def parse_classes(
  wanted: list[str], names: list[str], num_classes: int
) -> list[int]:
  """Ids of classes given by name or id.

  Raises:
    ConfigError: If a class is unknown, or the model has none.
  """
  if not num_classes:
    if wanted:
      raise ConfigError('--classes was given, but the model has no classes.')
    return [0]
  if not wanted:
    return list(range(num_classes))
  lower = [name.lower() for name in names]
  ids = []
  for text in wanted:
    if text.strip().lower() in lower:
      ids.append(lower.index(text.strip().lower()))
    elif text.strip().isdigit() and int(text) < num_classes:
      ids.append(int(text))
    else:
      raise ConfigError(
        f'There is no class {text.strip()!r}; there are the ids 0 to '
        f'{num_classes - 1}: {", ".join(names[:20])}'
        f'{", ..." if len(names) > 20 else ""}.'
      )
  return ids


if __name__ == '__main__':
  cli.run(main)
