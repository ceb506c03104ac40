"""Encodes a data set with a trained tokenizer, once, for `train_vim --codes`.

  ./bazelw run //experiments:encode_dataset -- \
    --workdir=runs/tokenizer --out=codes --crops=10

It writes TFRecords of codes, of every training image in several augmented crops
and of every held-out one in its centre crop, and `manifest.json`, which says
what they are of. The data are those of the tokenizer's run, unless flags say
otherwise.
"""

from absl import flags

from experiments import cli, encoding
from vim_tf import config as config_lib
from vim_tf import restore
from vim_tf.data import code_cache_writer

WORKDIR = flags.DEFINE_string(
  'workdir', None, '[model] Working directory of a stage-1 run.', required=True
)
OUT = flags.DEFINE_string(
  'out', None, '[output] Folder for the codes; must not exist.', required=True
)
CROPS = flags.DEFINE_integer(
  'crops', 10, '[data] Augmented crops of each training image.', lower_bound=1
)
SEED = flags.DEFINE_integer(
  'seed',
  0,
  '[data] Seed of the augmentation; a run of train_vim with this --seed sees '
  'the codes that it would make online, for as many epochs as crops.',
  lower_bound=0,
)
BATCH = flags.DEFINE_integer(
  'batch_size', 64, '[run] Images at once.', lower_bound=1
)
SHARD = flags.DEFINE_integer(
  'shard_megabytes', 128, '[output] Size of a file at most.', lower_bound=1
)
SETTINGS = tuple(
  setting for setting in cli.DATA if setting.flag != 'balance_classes'
)
for _setting in SETTINGS:
  _setting.define()


def main():
  """Encodes with the settings of the flags."""
  code_cache_writer.check_new(OUT.value)  # Told before any data are read.
  tokenizer = restore.tokenizer(WORKDIR.value)
  config = config_lib.replace(
    tokenizer.config, cli.changes_from_flags(SETTINGS)
  )
  encoding.encode(
    tokenizer,
    config.data,
    OUT.value,
    crops=CROPS.value,
    seed=SEED.value,
    batch_size=BATCH.value,
    shard_bytes=SHARD.value * 2**20,
  )


if __name__ == '__main__':
  cli.run(main)
