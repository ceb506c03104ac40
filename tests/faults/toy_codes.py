"""A small cache of codes, cheap to write often."""

import pathlib

import numpy as np

from vim_tf.config import DataConfig
from vim_tf.data import code_cache, code_cache_writer, records

EXAMPLES = 40
_GRID = 3
_CODES = 32
_PER_FILE = 10


def write(folder: pathlib.Path):
  """Writes random codes of forty examples of two classes in several files."""
  description = code_cache.Description(
    data=DataConfig(name='toy', image_size=12),
    class_names=('a', 'b'),
    licence='CC0',
    tokenizer_fingerprint='f1',
    tokenizer_step=1,
    precision='float32',
    codebook_size=_CODES,
    grid_size=_GRID,
    crops_per_image=1,
    seed=0,
  )
  rng = np.random.default_rng(0)
  batch = {
    'codes': rng.integers(0, _CODES, [EXAMPLES, _GRID**2]),
    'labels': np.arange(EXAMPLES) % 2,
    'indices': np.arange(EXAMPLES),
  }
  code_cache_writer.write(
    folder,
    description,
    *(
      code_cache_writer.Content(split, 'e1', EXAMPLES, [[batch]])
      for split in ('train', 'validation')
    ),
    _PER_FILE * (description.record_bytes + records.FRAME_BYTES),
  )


def training_batches(
  folder: pathlib.Path, on_bad_example: str
) -> list[dict[str, np.ndarray]]:
  """The batches of two epochs."""
  cache = code_cache.CodeCache(folder, on_bad_example)
  data = code_cache.training_batches(cache, batch_size=8, seed=3)
  return list(data.take(2 * EXAMPLES // 8).as_numpy_iterator())
