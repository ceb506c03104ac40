"""Encodes a data set with a tokenizer, into a cache of codes."""

from collections.abc import Iterator
import os

from absl import logging
import numpy as np
import tensorflow as tf

from vim_tf import config as config_lib
from vim_tf import restore
from vim_tf.data import code_cache, code_cache_writer, pipeline, sources
from vim_tf.training import progress


def encode(
  tokenizer: restore.Restored,
  data: config_lib.DataConfig,
  out: str | os.PathLike,
  *,
  crops: int,
  seed: int = 0,
  batch_size: int = 64,
  shard_bytes: int = 2**27,
  on_bad_example: str = 'stop',
):
  """Writes a cache of codes.

  Args:
    tokenizer: Makes the codes.
    data: The images and their augmentation.
    out: Folder of the cache; must not exist.
    crops: Augmented crops of each training image.
    seed: Seed of the augmentation.
    batch_size: Images at once.
    shard_bytes: Size of a file at most.
    on_bad_example: At an image that cannot be read 'stop', or 'skip' it, so
      that the codes of another one stand in for its own.

  Raises:
    DataError: If the data cannot be used or the folder not be written.
  """
  train = sources.load(data, data.train_split, on_bad_example)
  held_out = sources.load(data, data.eval_split, on_bad_example)
  total = crops * train.num_examples + held_out.num_examples
  to_codes = tf.function(tokenizer.model.encode, autograph=False)
  done = 0

  def codes_of(batches: tf.data.Dataset) -> Iterator[dict[str, np.ndarray]]:
    nonlocal done
    for batch in batches:
      keep = batch['mask'].numpy() > 0
      yield {
        'codes': to_codes(batch['images']).numpy()[keep],
        'labels': batch['labels'].numpy()[keep],
        'indices': batch['indices'].numpy()[keep],
      }
      done += int(keep.sum())
      bar.update(done)

  def content(source, passes):
    return code_cache_writer.Content(
      source.split,
      source.fingerprint,
      source.num_examples,
      [codes_of(batches) for batches in passes],
    )

  with progress.Bar('Encoding', 0, total, 'image') as bar:
    code_cache_writer.write(
      out,
      code_cache.Description(
        data=data,
        class_names=train.class_names,
        licence=train.licence,
        tokenizer_fingerprint=restore.fingerprint(tokenizer.model),
        tokenizer_step=tokenizer.step,
        precision=tokenizer.config.run.precision,
        codebook_size=tokenizer.config.model.codebook_size,
        grid_size=tokenizer.config.model.grid_size,
        crops_per_image=crops,
        seed=seed,
      ),
      content(
        train,
        [
          pipeline.epoch_batches(
            train,
            data,
            batch_size=batch_size,
            seed=seed,
            epoch=crop,
            fill_gaps=True,
          )
          for crop in range(crops)
        ],
      ),
      content(
        held_out,
        [
          pipeline.evaluation_batches(
            held_out, data, batch_size=batch_size, fill_gaps=True
          )
        ],
      ),
      shard_bytes,
    )
  logging.info(
    'The codes of %d crops each of %d images, and of %d held-out ones, are in '
    '%s.',
    crops,
    train.num_examples,
    held_out.num_examples,
    out,
  )
