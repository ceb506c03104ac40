"""Like `encode_dataset`, as an Apache Beam pipeline for many machines.

  ./bazelw run //experiments:encode_dataset_beam -- \
    --workdir=runs/tokenizer --out=codes --crops=10 \
    --beam_option=--runner=FlinkRunner --beam_option=--flink_master=host:8081

It takes the flags of `encode_dataset` and writes the same files, byte for
byte. Without options it runs on this machine. It needs the packages of
requirements-beam.lock; all paths must mean the same on all machines.
"""

from absl import flags
from etils import epy

from experiments import encoding_flags
from experiments import flags as flags_lib
from vim_tf.config import UserError

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from vim_tf.data import codes_writer
  from vim_tf.jobs import restore

encoding_flags.define()
flags.DEFINE_multi_string(
  'beam_option',
  [],
  "[hardware] An option of Beam's pipeline, such as --runner=FlinkRunner; may "
  'be given many times.',
)


def main():
  """Encodes with the settings of the flags."""
  try:
    from apache_beam.options import pipeline_options

    from vim_tf.jobs import encode_beam
  except ModuleNotFoundError as error:
    raise UserError(
      f'There is no {error.name}: install the packages of '
      'requirements-beam.lock.'
    ) from error
  given = flags.FLAGS
  codes_writer.check_new(given.out)
  encode_beam.encode(
    encode_beam.Job(
      given.workdir,
      encoding_flags.data(restore.tokenizer(given.workdir).config),
      given.out,
      given.crops,
      given.seed,
      given.batch_size,
      given.shard_megabytes * 2**20,
      given.on_bad_example,
      encoding_flags.policy(),
    ),
    pipeline_options.PipelineOptions(given.beam_option),
  )


if __name__ == '__main__':
  flags_lib.run(main, encoding_flags.SETTINGS)
