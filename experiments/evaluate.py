"""Measures a trained model on held-out images.

  ./bazelw run //experiments:evaluate -- --job=reconstruction \
    --workdir=runs/tokenizer --out=evaluation

It prints a table, and writes `figures.json` (one line, with the whole
protocol) and `reconstructions.png` (best, median and worst). The distances
are over the named network's features: with EfficientNet-Lite0 they are not the
FID of the papers, and are not called so.
"""

import json
import pathlib

from absl import flags
from PIL import Image

from experiments import cli, reconstruction_job
from vim_tf import config as config_lib
from vim_tf import restore
from vim_tf.metrics import feature_networks

JOB = flags.DEFINE_enum(
  'job', 'reconstruction', ['reconstruction'], '[what] What to measure.'
)
WORKDIR = flags.DEFINE_string(
  'workdir', None, '[model] Working directory of the run.', required=True
)
OUT = flags.DEFINE_string(
  'out', None, '[output] Folder for the results; must not exist.', required=True
)
MAX_IMAGES = flags.DEFINE_integer(
  'max_images', 50_000, '[data] Held-out images at most.', lower_bound=1
)
BATCH = flags.DEFINE_integer(
  'batch_size', 32, '[run] Images at once.', lower_bound=1
)
NETWORK = flags.DEFINE_string(
  'network',
  feature_networks.DEFAULT,
  '[metrics] Feature network: efficientnet_lite0, inception, inception:PATH or '
  'file:PATH; empty: no distances.',
)
PERCEPTUAL = flags.DEFINE_bool(
  'perceptual', True, '[metrics] Measure LPIPS (VGG16).'
)
SETTINGS = tuple(
  setting
  for setting in cli.DATA
  if setting.flag in ('data', 'data_dir', 'eval_split')
)
for setting in SETTINGS:
  setting.define()


def main():
  """Measures, prints and writes."""
  out = pathlib.Path(OUT.value)
  if out.exists():
    raise config_lib.ConfigError(
      f'--out={out} exists already; name a new folder.'
    )
  tokenizer = restore.tokenizer(WORKDIR.value)
  config = config_lib.replace(
    tokenizer.config, cli.changes_from_flags(SETTINGS)
  )
  result, picture = reconstruction_job.evaluate(
    tokenizer,
    reconstruction_job.Protocol(
      data=config.data,
      max_images=MAX_IMAGES.value,
      batch_size=BATCH.value,
      network=NETWORK.value,
      perceptual=PERCEPTUAL.value,
    ),
  )
  for part in ('protocol', 'figures'):
    print(f'\n{part}')
    for name, value in result[part].items():
      text = f'{value:.5g}' if isinstance(value, float) else value
      print(f'  {name:32} {text}')
  out.mkdir(parents=True)
  (out / 'figures.json').write_text(json.dumps(result) + '\n')
  Image.fromarray(picture).save(out / 'reconstructions.png')


if __name__ == '__main__':
  cli.run(main)
