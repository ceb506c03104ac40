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

from absl import flags
from etils import epy

from experiments import flags as flags_lib
from experiments import sampling_flags
from vim_tf.config import (
  BadExamples,
  ConfigError,
  SamplingConfig,
  Stage2Config,
)

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
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
  'batch_size', 32, '[run] Images drawn at once, at most.', lower_bound=1
)
WINDOW = flags.DEFINE_integer(
  'window',
  0,
  '[run] Codes of an image that are guessed and checked at once; 0: what suits '
  'the batch. In float32 it changes no image.',
  lower_bound=0,
)
_SAMPLING = sampling_flags.define()

(_DATA_DIR,) = flags_lib.settings_of(Stage2Config, ['data_dir'])
_DATA_DIR.define()
flags_lib.define(BadExamples, 'data')
flags_lib.define_strategy_flags()

_IN_JSON = (
  'classes',
  'count',
  'seed',
  'complete',
  'keep_rows',
  'batch_size',
  'window',
  *_SAMPLING,
)


def main():
  """Draws everything, then writes it."""
  given = flags.FLAGS
  if FROM_JSON.value:
    for name in _IN_JSON:
      if given[name].present:
        raise ConfigError(
          f'--{name} is said by --from_json already: leave it out, or draw '
          'without --from_json.'
        )
    sample_job.sample_again(
      FROM_JSON.value,
      WORKDIR.value,
      OUT.value,
      tokenizer=TOKENIZER.value,
      strategy=flags_lib.strategy_of_one_process(),
    )
    return
  # Checked before TensorFlow is imported.
  config = flags_lib.read(SamplingConfig)
  selection = sampling_flags.selection()
  sample_job.sample(
    WORKDIR.value,
    OUT.value,
    tokenizer=TOKENIZER.value,
    classes=CLASSES.value,
    count=COUNT.value,
    seed=SEED.value,
    config=config,
    complete=COMPLETE.value,
    keep_rows=KEEP_ROWS.value,
    acceptance=selection.acceptance,
    classifier=selection.classifier,
    batch_size=BATCH.value,
    window=WINDOW.value,
    precision=given[sampling_flags.PRECISION].value,
    changes=flags_lib.changes_from_flags([_DATA_DIR]),
    on_bad_example=given.on_bad_example,
    strategy=flags_lib.strategy_of_one_process(
      min(BATCH.value, COUNT.value * max(1, len(CLASSES.value)))
    ),
  )


if __name__ == '__main__':
  flags_lib.run(main, [_DATA_DIR])
