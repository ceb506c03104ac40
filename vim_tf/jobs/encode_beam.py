"""Encodes a data set as an Apache Beam pipeline, for many machines.

The pipeline makes the files of `encode.encode`, byte for byte. Its elements are
shards: a worker encodes one by itself and writes its files. It opens the
tokenizer and the data by their paths, which all machines must see. A smaller
`shard_bytes` spreads the work more evenly.
"""

import dataclasses
import pathlib

import apache_beam as beam

from vim_tf import config as config_lib
from vim_tf.data import codes_writer
from vim_tf.jobs import encode as encode_job
from vim_tf.jobs import restore


@dataclasses.dataclass(frozen=True)
class Job:
  """What to encode; for the attributes see `encode.encode`.

  All workers compute by one policy, `dtype`; None: that of the run.
  """

  workdir: str
  data: config_lib.DataConfig
  out: str
  crops: int
  seed: int
  batch_size: int
  shard_bytes: int
  on_bad_example: str = 'stop'
  dtype: str | None = None

  def encoder(self) -> encode_job.Encoder:
    """Opens tokenizer and data."""
    return encode_job.Encoder(
      restore.tokenizer(self.workdir, self.dtype),
      self.data,
      self.crops,
      self.seed,
      self.batch_size,
      self.on_bad_example,
    )


class Encode(beam.DoFn):
  """Encodes a shard and writes its files."""

  def __init__(self, job: Job, folder: pathlib.Path):
    super().__init__()
    self._job, self._folder = job, folder

  def setup(self):
    self._encoder = self._job.encoder()

  def process(self, element: codes_writer.Shard):
    encoder = self._encoder
    crops = [
      encoder.batches(element.part, crop, element.examples)
      for crop in range(encoder.parts[element.part].crops)
    ]
    codes_writer.write_shard(self._folder, encoder.description, element, crops)


def encode(job: Job, options=None):
  """Runs the pipeline and writes the manifest.

  Args:
    job: What to encode.
    options: Beam's `PipelineOptions`; by default the runner on this machine.

  Raises:
    DataError: If the data cannot be used or the folder exists.
  """
  codes_writer.check_new(job.out)
  encoder = job.encoder()
  description, parts = encoder.description, encoder.parts
  shards = codes_writer.plan(
    description, parts, job.batch_size, job.shard_bytes
  )
  with codes_writer.new_folder(job.out) as folder:
    with beam.Pipeline(options=options) as root:
      _ = (
        root
        | 'shards' >> beam.Create(shards)
        | 'spread' >> beam.Reshuffle()
        | 'encode' >> beam.ParDo(Encode(job, folder))
      )
    codes_writer.finish(folder, description, parts, shards)
