"""Draws images from a trained VIM.

  ./bazelw run //experiments:sample -- \
    --workdir=runs/vim --out=samples --classes=Flags,Symbols --count=8

It writes one PNG an image, a grid of all, and `samples.json` with the seeds,
the parameters and the codes. Those make the same images again:

  ./bazelw run //experiments:sample -- \
    --workdir=runs/vim --out=again --from_json=samples/samples.json

With `--complete=image.png --keep_rows=N` the first N rows of codes are those
of an image, prepared as evaluation images are (its largest centred square,
resized), and the rest is drawn. A row of codes is `patch_size` pixels high.
With `--acceptance=0.5` twice as many images are drawn, and the half is kept
whose class a classifier finds likeliest.
"""

import pathlib

from absl import flags, logging
from etils import epy
import numpy as np

from experiments import flags as flags_lib
from experiments import output, sampling_flags
from vim_tf import config as config_lib
from vim_tf.config import ConfigError
from vim_tf.jobs import class_names

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from PIL import Image

  from vim_tf.jobs import completion, restore, sample_folder, scoring
  from vim_tf.jobs import sample as sample_job

WORKDIR = flags.DEFINE_string(
  'workdir', None, '[model] Working directory of a stage-2 run.', required=True
)
TOKENIZER = flags.DEFINE_string(
  'tokenizer', '', '[model] Its stage-1 run, if that was moved.'
)
OUT = flags.DEFINE_string(
  'out', None, '[output] New or empty folder for the images.', required=True
)
CLASSES = flags.DEFINE_list(
  'classes',
  [],
  '[what] Names of classes (of ImageNet, words too), or ids; empty: all.',
)
COUNT = flags.DEFINE_integer(
  'count', 8, '[what] Images of each class.', lower_bound=1
)
SEED = flags.DEFINE_integer(
  'seed', 0, '[what] Seed of the first image; the next ones count up.', 0
)
COMPLETE = flags.DEFINE_string(
  'complete', '', '[what] Image file whose top rows are kept.'
)
KEEP_ROWS = flags.DEFINE_integer(
  'keep_rows', None, '[what] Rows of codes of --complete that are kept.'
)
FROM_JSON = flags.DEFINE_string(
  'from_json', '', '[what] A samples.json: draw the very same images again.'
)
BATCH = flags.DEFINE_integer(
  'batch_size', 32, '[run] Images drawn at once.', lower_bound=1
)
sampling_flags.define()

(_DATA_DIR,) = flags_lib.settings_of(config_lib.Stage2Config, ['data_dir'])
_DATA_DIR.define()
flags_lib.define_bad_example_flag()

_MAX_IMAGES = 50_000  # That a head is trained on, at most.
_IN_JSON = (
  'classes',
  'count',
  'seed',
  'complete',
  'keep_rows',
  'batch_size',
  *sampling_flags.ALL,
)


def main():
  """Draws everything, then writes it."""
  with output.new_folder(OUT.value) as out:
    if FROM_JSON.value:
      _draw_again(out)
    else:
      _draw(out)


def _draw(out: pathlib.Path):
  config, acceptance = sampling_flags.config(), sampling_flags.acceptance()
  if bool(COMPLETE.value) != (KEEP_ROWS.value is not None):
    raise ConfigError(
      '--complete and --keep_rows go together: an image, and how many rows of '
      'its codes are kept.'
    )
  tokenizer, vim = restore.both(
    WORKDIR.value,
    TOKENIZER.value,
    restore.policy(flags.FLAGS[sampling_flags.PRECISION].value),
  )
  sampling_flags.warn(config.guidance_scale, vim.config)
  names = vim.record['class_names']
  classes = class_names.parse(
    CLASSES.value, names, vim.config.model.num_classes
  )
  image, prefix, length, selection = None, None, 0, {'acceptance': acceptance}
  if COMPLETE.value:
    image, prefix, length = completion.read_prefix(
      tokenizer, COMPLETE.value, KEEP_ROWS.value
    )
    selection['completed'] = COMPLETE.value
  classifier = None
  if acceptance < 1:
    changes = flags_lib.changes_from_flags([_DATA_DIR])
    data = config_lib.replace(vim.config, changes).data
    classifier = scoring.load_classifier(
      flags.FLAGS.classifier,
      vim,
      scoring.Data(data, _MAX_IMAGES, BATCH.value, flags.FLAGS.on_bad_example),
      scoring.heads_folder(WORKDIR.value),
    )
    selection['classifier'] = classifier.name
  ids = np.repeat(classes, COUNT.value)
  kept = sample_job.Sampler(tokenizer.model, vim.model).keep_best(
    ids,
    SEED.value,
    config,
    acceptance=acceptance,
    classifier=classifier,
    batch_size=BATCH.value,
    prefix=prefix,
    prefix_length=length,
  )
  selection['num_candidates'] = kept.num_candidates
  samples = sample_folder.Samples(
    ids,
    kept.seeds,
    kept.codes,
    config,
    BATCH.value,
    np.zeros([0], np.int32) if prefix is None else prefix[:length],
    kept.probabilities if classifier else None,
    selection,
  )
  sample_folder.write(out, samples, kept.images, tokenizer, vim, WORKDIR.value)
  if image is not None:
    Image.fromarray(image).save(out / 'original.png')
  logging.info('%d images are in %s.', len(ids), out)


def _draw_again(out: pathlib.Path):
  for name in _IN_JSON:
    if flags.FLAGS[name].present:
      raise ConfigError(
        f'--{name} is said by --from_json already: leave it out, or draw '
        'without --from_json.'
      )
  record = sample_folder.read(FROM_JSON.value)
  tokenizer, vim = restore.both(
    WORKDIR.value, TOKENIZER.value, record.precision
  )
  sample_folder.draw_again(record, tokenizer, vim)
  samples = record.samples
  images = sample_folder.decode(tokenizer, samples.codes, samples.batch_size)
  sample_folder.write(out, samples, images, tokenizer, vim, WORKDIR.value)
  logging.info('%d images are in %s.', len(samples.ids), out)


if __name__ == '__main__':
  flags_lib.run(main, [_DATA_DIR])
