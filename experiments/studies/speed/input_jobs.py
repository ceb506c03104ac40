"""The job of the input pipeline: batches from JPEG files."""

import dataclasses
import pathlib

import numpy as np
from PIL import Image

from experiments.studies.speed.sizes import Sizes
from experiments.studies.speed.timing import Job
from vim_tf.config import DataConfig, check_least
from vim_tf.data import pipeline, sources

_BATCHES = 4  # More than a pipeline keeps ready, so that it cannot rest.
_SPLITS = ('train', 'validation')


@dataclasses.dataclass(frozen=True)
class Input:
  """Settings of an input pipeline.

  Attributes:
    batch: Images of a batch.
  """

  batch: int

  def __post_init__(self):
    check_least(self, 1, 'batch')


def from_jpeg(sizes: Sizes, settings: Input, folder: pathlib.Path) -> Job:
  """Decodes JPEG files, crops at random, resizes and flips."""
  _write_jpegs(sizes, folder)
  config = DataConfig(
    name=f'folder:{folder}',
    image_size=sizes.stage1.model.image_size,
    crop='random_resized',
  )
  source = sources.load(config, config.train_split)
  data = pipeline.training_batches(
    source, config, batch_size=settings.batch, seed=0
  )
  batches = iter(data)

  def call():
    for _ in range(_BATCHES):
      next(batches)

  return Job(call, unit='image', units=_BATCHES * settings.batch)


def _write_jpegs(sizes: Sizes, folder: pathlib.Path):
  """Smooth colours with some noise, so that files are of a usual length."""
  rng = np.random.default_rng(0)
  height, width = sizes.jpeg_height, sizes.jpeg_width
  for split in _SPLITS:
    path = folder / split / 'images'
    path.mkdir(parents=True)
    for i in range(sizes.jpeg_files if split == 'train' else 1):
      coarse = Image.fromarray(rng.integers(0, 256, [8, 8, 3], np.uint8))
      smooth = np.asarray(coarse.resize([width, height], Image.BICUBIC))
      noisy = smooth + rng.normal(0.0, 8.0, smooth.shape)
      image = Image.fromarray(np.uint8(np.clip(noisy, 0, 255)))
      image.save(path / f'{i:05}.jpg', quality=90)
