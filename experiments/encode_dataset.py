"""Encodes a data set with a trained tokenizer, once, for `train_vim --codes`.

  ./bazelw run //experiments:encode_dataset -- \
    --workdir=runs/tokenizer --out=codes --crops=10

It writes NumPy arrays of codes, of every training image in several augmented
crops and of every held-out one in its centre crop, and `manifest.json`, which
says what they are of. The data are those of the tokenizer's run, unless flags
say otherwise.
"""

from absl import flags
from etils import epy

from experiments import encoding_flags
from experiments import flags as flags_lib

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from vim_tf.data import codes_writer
  from vim_tf.jobs import encode as encode_job
  from vim_tf.jobs import restore

encoding_flags.define()
flags_lib.define_strategy_flags()


def main():
  """Encodes with the settings of the flags."""
  given = flags.FLAGS
  codes_writer.check_new(given.out)  # Told before any data are read.
  with flags_lib.strategy_of_one_process().scope():
    tokenizer = restore.tokenizer(given.workdir, encoding_flags.policy())
  encode_job.encode(
    tokenizer,
    given.out,
    encoding_flags.data(tokenizer.config),
    crops=given.crops,
    seed=given.seed,
    batch_size=given.batch_size,
    shard_bytes=given.shard_megabytes * 2**20,
    on_bad_example=given.on_bad_example,
  )


if __name__ == '__main__':
  flags_lib.run(main, encoding_flags.SETTINGS)
