"""Like `encode_dataset`, as an Apache Beam pipeline for many machines.

  ./bazelw run //experiments:encode_dataset_beam -- \
    --workdir=runs/tokenizer --out=codes --crops=10 \
    --beam_option=--runner=FlinkRunner --beam_option=--flink_master=host:8081

It takes the flags of `encode_dataset` and writes the same files, record for
record. Without options it runs on this machine. It needs the packages of
requirements-beam.lock; all paths must mean the same on all machines.
"""

from absl import flags
from apache_beam.options import pipeline_options

from experiments import beam_encoding, cli, encode_dataset
from vim_tf import config as config_lib
from vim_tf import restore

OPTIONS = flags.DEFINE_multi_string(
  'beam_option',
  [],
  "[hardware] An option of Beam's pipeline, such as --runner=FlinkRunner; may "
  'be given many times.',
)


def main():
  """Encodes with the settings of the flags."""
  workdir = encode_dataset.WORKDIR.value
  config = config_lib.replace(
    restore.tokenizer(workdir).config,
    cli.changes_from_flags(encode_dataset.SETTINGS),
  )
  beam_encoding.encode(
    beam_encoding.Job(
      workdir,
      config.data,
      encode_dataset.OUT.value,
      encode_dataset.CROPS.value,
      encode_dataset.SEED.value,
      encode_dataset.BATCH.value,
      encode_dataset.SHARD.value * 2**20,
    ),
    pipeline_options.PipelineOptions(OPTIONS.value),
  )


if __name__ == '__main__':
  cli.run(main)
