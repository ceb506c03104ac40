"""Encodes a data set with a trained tokenizer, once, for `train_vim --codes`.

  ./bazelw run //experiments:encode_dataset -- \
    --workdir=runs/tokenizer --out=codes --crops=10

It writes TFRecords of codes, of every training image in several augmented crops
and of every held-out one in its centre crop, and `manifest.json`, which says
what they are of. The data are those of the tokenizer's run, unless flags say
otherwise.
"""

from absl import flags
from etils import epy

from experiments import cli, encoding_flags

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from experiments import encoding
  from vim_tf import restore
  from vim_tf.data import code_cache_writer

encoding_flags.define()


def main():
  """Encodes with the settings of the flags."""
  given = flags.FLAGS
  code_cache_writer.check_new(given.out)  # Told before any data are read.
  tokenizer = restore.tokenizer(given.workdir)
  encoding.encode(
    tokenizer,
    encoding_flags.data(tokenizer.config),
    given.out,
    crops=given.crops,
    seed=given.seed,
    batch_size=given.batch_size,
    shard_bytes=given.shard_megabytes * 2**20,
    on_bad_example=given.on_bad_example,
  )


if __name__ == '__main__':
  cli.run(main, encoding_flags.SETTINGS)
