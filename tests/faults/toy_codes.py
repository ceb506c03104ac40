"""A small cache of codes, cheap to write often."""

import pathlib

import numpy as np

from vim_tf.config import DataConfig
from vim_tf.data import codes as codes_lib
from vim_tf.data import codes_writer

EXAMPLES = 40
_GRID = 3
_CODES = 32
_PER_FILE = 10


def write(folder: pathlib.Path):
  """Writes random codes of forty examples of two classes in several files."""
  description = codes_lib.Description(
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
  batches = [
    {name: x[i : i + _PER_FILE] for name, x in batch.items()}
    for i in range(0, EXAMPLES, _PER_FILE)
  ]
  parts = {
    name: codes_writer.Part(name, 'e1', EXAMPLES, 1)
    for name in (codes_lib.TRAIN, codes_lib.EVALUATION)
  }
  crops = {name: [batches] for name in parts}
  codes_writer.write(folder, description, parts, crops, _PER_FILE, 1)


def training_batches(folder: pathlib.Path) -> list[dict[str, np.ndarray]]:
  """The batches of two epochs, of files that are as they were written."""
  cache = codes_lib.Cache(folder)
  cache.check_files()
  data = codes_lib.training_batches(cache, batch_size=8, seed=3)
  return list(data.take(2 * EXAMPLES // 8).as_numpy_iterator())
