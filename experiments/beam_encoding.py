"""Encodes a data set as an Apache Beam pipeline, for many machines.

The pipeline makes the files of `encoding.encode`, record for record: batches
are cut in the same places, so that the codes are the same to the last one. Its
elements are runs of examples; each is encoded by itself, its records go to the
files that they belong to, and a file is written once all its records are there.
A worker opens the tokenizer and the data by their paths, which all machines
must see.
"""

from collections.abc import Iterable, Iterator
import dataclasses
import os
import pathlib

import apache_beam as beam
import tensorflow as tf

from vim_tf import config as config_lib
from vim_tf import restore
from vim_tf.data import (
  code_cache,
  code_cache_writer,
  pipeline,
  records,
  sources,
)

_BATCHES_AT_ONCE = 16


@dataclasses.dataclass(frozen=True)
class Job:
  """What to encode; for the attributes see `encoding.encode`."""

  workdir: str
  data: config_lib.DataConfig
  out: str
  crops: int
  seed: int
  batch_size: int
  shard_bytes: int
  on_bad_example: str = 'stop'


@dataclasses.dataclass(frozen=True)
class Run:
  """A run of examples of one pass.

  Attributes:
    split: 'train' or 'evaluation'.
    crop: Which pass.
    first: Place of the first example.
    stop: Place after the last one.
  """

  split: str
  crop: int
  first: int
  stop: int


class Encode(beam.DoFn):
  """From a run of examples to pieces of files.

  A piece is keyed by split and number of the file; it is the number of its
  first record and the records' data.

  Args:
    job: What to encode.
    description: What the codes are.
    plans: For each split the plan of its files.
    examples: For each split the number of its examples.
  """

  def __init__(self, job, description, plans, examples):
    super().__init__()
    self._job = job
    self._description = description
    self._plans = plans
    self._examples = examples

  def setup(self):
    model = restore.tokenizer(self._job.workdir).model
    self._to_codes = tf.function(model.encode, autograph=False)
    train, held_out = _load(self._job)
    self._sources = {code_cache.TRAIN: train, code_cache.EVALUATION: held_out}

  def process(self, element: Run) -> Iterator:
    payloads = []
    for batch in self._batches(element):
      keep = batch['mask'].numpy() > 0
      found = {
        'codes': self._to_codes(batch['images']).numpy()[keep],
        'labels': batch['labels'].numpy()[keep],
        'indices': batch['indices'].numpy()[keep],
      }
      payloads += code_cache_writer.payloads(
        self._description, found, element.crop
      )
    first = element.crop * self._examples[element.split] + element.first
    for number, (_, place) in enumerate(self._plans[element.split]):
      start, stop = (
        max(first, place.start),
        min(first + len(payloads), place.stop),
      )
      if start < stop:
        piece = payloads[start - first : stop - first]
        yield (element.split, number), (start, piece)

  def _batches(self, element: Run) -> tf.data.Dataset:
    job, part = self._job, range(element.first, element.stop)
    source = self._sources[element.split]
    if element.split == code_cache.EVALUATION:
      return pipeline.evaluation_batches(
        source,
        job.data,
        batch_size=job.batch_size,
        part=part,
        fill_gaps=True,
      )
    return pipeline.epoch_batches(
      source,
      job.data,
      batch_size=job.batch_size,
      seed=job.seed,
      epoch=element.crop,
      part=part,
      fill_gaps=True,
    )


def _load(job: Job) -> list[sources.Source]:
  """The training and the held-out images."""
  return [
    sources.load(job.data, split, job.on_bad_example)
    for split in (job.data.train_split, job.data.eval_split)
  ]


def write_file(keyed, folder: str, plans: dict):
  """Writes a file from its pieces.

  Raises:
    ValueError: If records are missing.
  """
  (split, number), pieces = keyed
  name, numbers = plans[split][number]
  payloads = [
    payload
    for _, piece in sorted(pieces, key=lambda p: p[0])
    for payload in piece
  ]
  if len(payloads) != len(numbers):
    raise ValueError(f'{name} has {len(payloads)} records, not {len(numbers)}.')
  records.write_shard(pathlib.Path(folder) / name, payloads)


def encode(job: Job, options=None):
  """Runs the pipeline and writes the manifest.

  Args:
    job: What to encode.
    options: Beam's `PipelineOptions`; by default the runner on this machine.

  Raises:
    DataError: If the data cannot be used or the folder exists.
  """
  code_cache_writer.check_new(job.out)
  tokenizer = restore.tokenizer(job.workdir)
  train, held_out = _load(job)
  description = code_cache.Description(
    data=job.data,
    class_names=train.class_names,
    licence=train.licence,
    tokenizer_fingerprint=restore.fingerprint(tokenizer.model),
    tokenizer_step=tokenizer.step,
    precision=tokenizer.config.run.precision,
    codebook_size=tokenizer.config.model.codebook_size,
    grid_size=tokenizer.config.model.grid_size,
    crops_per_image=job.crops,
    seed=job.seed,
  )
  splits = {
    code_cache.TRAIN: (train, job.crops),
    code_cache.EVALUATION: (held_out, 1),
  }
  plans = {
    name: records.plan(
      name,
      source.num_examples * crops,
      description.record_bytes,
      job.shard_bytes,
    )
    for name, (source, crops) in splits.items()
  }
  examples = {name: source.num_examples for name, (source, _) in splits.items()}
  folder = pathlib.Path(job.out)
  temporary = folder.with_name(f'{folder.name}.writing-{os.getpid()}')
  temporary.mkdir(parents=True)
  with beam.Pipeline(options=options) as root:
    _ = (
      root
      | 'runs' >> beam.Create(list(runs(splits, job.batch_size)))
      | 'spread' >> beam.Reshuffle()
      | 'encode' >> beam.ParDo(Encode(job, description, plans, examples))
      | 'gather' >> beam.GroupByKey()
      | 'write' >> beam.Map(write_file, str(temporary), plans)
    )
  code_cache_writer.write_manifest(
    temporary,
    description,
    {
      name: code_cache_writer.split_record(
        source.split,
        source.fingerprint,
        source.num_examples,
        crops,
        [
          records.describe(temporary / file, len(numbers))
          for file, numbers in plans[name]
        ],
      )
      for name, (source, crops) in splits.items()
    },
  )
  code_cache_writer.check_new(folder)
  os.rename(temporary, folder)


def runs(splits: dict, batch_size: int) -> Iterable[Run]:
  """All passes, cut where batches end.

  Args:
    splits: By name a source and the number of its passes.
    batch_size: Images at once.
  """
  step = batch_size * _BATCHES_AT_ONCE
  for name, (source, crops) in splits.items():
    for crop in range(crops):
      for first in range(0, source.num_examples, step):
        yield Run(name, crop, first, min(first + step, source.num_examples))
