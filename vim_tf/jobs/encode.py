"""Encodes a data set with a tokenizer, into a cache of codes."""

from collections.abc import Iterator
import os

from absl import logging
import numpy as np

from vim_tf import config as config_lib
from vim_tf.data import codes as codes_lib
from vim_tf.data import codes_writer, pipeline, sources
from vim_tf.jobs import restore
from vim_tf.nn import replicas
from vim_tf.training import summaries


class Encoder:
  """Makes the codes of a data set.

  Args:
    tokenizer: Makes the codes.
    data: The images and their augmentation.
    crops: Augmented crops of each training image.
    seed: Seed of the augmentation.
    batch_size: Images at once.
    on_bad_example: At an image that cannot be read 'stop', or 'skip' it, so
      that the codes of another one stand in for its own.

  Attributes:
    description: What the codes are.
    parts: What there is of both splits.

  Raises:
    DataError: If the data cannot be used.
  """

  def __init__(
    self,
    tokenizer: restore.Restored,
    data: config_lib.DataConfig,
    crops: int,
    seed: int,
    batch_size: int,
    on_bad_example: str = 'stop',
  ):
    self._to_codes = replicas.OnReplicas(
      tokenizer.model.encode, replicas.of(tokenizer.model)
    )
    self._batch_size = batch_size
    self._sources = {
      name: sources.load(data, split, on_bad_example)
      for name, split in (
        (codes_lib.TRAIN, data.train_split),
        (codes_lib.EVALUATION, data.eval_split),
      )
    }
    train = self._sources[codes_lib.TRAIN]
    self.description = codes_lib.Description(
      data=data,
      class_names=train.class_names,
      licence=train.licence,
      tokenizer_fingerprint=restore.fingerprint(tokenizer.model),
      tokenizer_step=tokenizer.step,
      precision=restore.precision(tokenizer.model),
      codebook_size=tokenizer.config.model.codebook_size,
      grid_size=tokenizer.config.model.grid_size,
      crops_per_image=crops,
      seed=seed,
    )
    self.parts = {
      name: codes_writer.Part(
        source.split,
        source.fingerprint,
        source.num_examples,
        crops if name == codes_lib.TRAIN else 1,
      )
      for name, source in self._sources.items()
    }

  def batches(
    self, name: str, crop: int, part: range | None = None
  ) -> Iterator[codes_writer.Batch]:
    """The codes of one crop of all examples, in the source's order.

    Args:
      name: 'train' or 'evaluation'.
      crop: Which crop.
      part: Which examples, by their place in that order; None: all.
    """
    source, data = self._sources[name], self.description.data
    settings = dict(batch_size=self._batch_size, part=part, fill_gaps=True)
    if name == codes_lib.TRAIN:
      seed = self.description.seed
      found = pipeline.epoch_batches(
        source, data, seed=seed, epoch=crop, **settings
      )
    else:
      found = pipeline.evaluation_batches(source, data, **settings)
    for batch in found:
      keep = batch['mask'].numpy() > 0
      yield {
        'codes': self._to_codes(batch['images'])[keep],
        'labels': batch['labels'].numpy()[keep],
        'indices': batch['indices'].numpy()[keep],
      }


def encode(
  tokenizer: restore.Restored,
  out: str | os.PathLike,
  data: config_lib.DataConfig | None = None,
  *,
  crops: int = 10,
  seed: int = 0,
  batch_size: int = 64,
  shard_bytes: int = 2**27,
  on_bad_example: str = 'stop',
):
  """Writes a cache of codes.

  Args:
    tokenizer: Makes the codes.
    out: Folder of the cache; must not exist.
    data: The images and their augmentation; None: those of the tokenizer's
      run.
    crops: Augmented crops of each training image.
    seed: Seed of the augmentation.
    batch_size: Images at once.
    shard_bytes: Size of a file at most; one batch at least goes into each.
    on_bad_example: As of `Encoder`.

  Raises:
    DataError: If the data cannot be used or the folder not be written.
  """
  data = data or tokenizer.config.data
  encoder = Encoder(tokenizer, data, crops, seed, batch_size, on_bad_example)
  total = sum(part.examples * part.crops for part in encoder.parts.values())
  done = 0

  def told(batches) -> Iterator[dict[str, np.ndarray]]:
    nonlocal done
    for batch in batches:
      yield batch
      done += len(batch['codes'])
      bar.update(done)

  with summaries.Bar('Encoding', 0, total, 'image') as bar:
    codes_writer.write(
      out,
      encoder.description,
      encoder.parts,
      {
        name: [told(encoder.batches(name, crop)) for crop in range(part.crops)]
        for name, part in encoder.parts.items()
      },
      batch_size,
      shard_bytes,
    )
  logging.info(
    'The codes of %d crops each of %d images, and of %d held-out ones, are in '
    '%s.',
    crops,
    encoder.parts[codes_lib.TRAIN].examples,
    encoder.parts[codes_lib.EVALUATION].examples,
    out,
  )
