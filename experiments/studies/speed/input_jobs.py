"""Jobs of the input pipeline: batches from JPEG files and from caches."""

from collections.abc import Iterable
import dataclasses
import pathlib

import numpy as np
from PIL import Image

from experiments.studies.speed.sizes import Sizes
from experiments.studies.speed.timing import Job
from vim_tf.config import DataConfig, check_least
from vim_tf.data import codes as codes_lib
from vim_tf.data import codes_writer, pipeline, sources

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
  return _images(sizes, settings, folder, 'random_resized')


def from_memory(sizes: Sizes, settings: Input, folder: pathlib.Path) -> Job:
  """Shifts and flips images that are kept decoded in memory."""
  return _images(sizes, settings, folder, 'shift')


def from_codes(sizes: Sizes, settings: Input, folder: pathlib.Path) -> Job:
  """Reads codes that were made once, from files."""
  path = folder / 'codes'
  _write_codes(sizes, path)
  data = codes_lib.training_batches(
    codes_lib.Cache(path), batch_size=settings.batch, seed=0
  )
  return _drawing(data, settings)


def _images(sizes, settings, folder, crop: str) -> Job:
  _write_jpegs(sizes, folder / 'images')
  config = DataConfig(
    name=f'folder:{folder / "images"}',
    image_size=sizes.stage1.model.image_size,
    crop=crop,
    max_shift=sizes.stage1.model.image_size // 16,
  )
  source = sources.load(config, config.train_split)
  data = pipeline.training_batches(
    source, config, batch_size=settings.batch, seed=0
  )
  return _drawing(data, settings)


def _drawing(data: Iterable, settings: Input) -> Job:
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


def _write_codes(sizes: Sizes, folder: pathlib.Path):
  """A cache of random codes, as many images as there are JPEG files."""
  model = sizes.stage2.model
  rng = np.random.default_rng(0)

  parts = {
    codes_lib.TRAIN: codes_writer.Part('train', 'random', sizes.jpeg_files, 1),
    codes_lib.EVALUATION: codes_writer.Part('validation', 'random', 1, 1),
  }

  def batch(part: codes_writer.Part) -> codes_writer.Batch:
    shape = [part.examples, model.num_codes]
    return {
      'codes': rng.integers(0, model.codebook_size, shape),
      'labels': np.zeros([part.examples], np.int32),
      'indices': np.arange(part.examples),
    }

  codes_writer.write(
    folder,
    codes_lib.Description(
      data=sizes.stage2.data,
      class_names=('image',),
      licence='',
      tokenizer_fingerprint='random',
      tokenizer_step=0,
      precision='float32',
      codebook_size=model.codebook_size,
      grid_size=model.grid_size,
      crops_per_image=1,
      seed=0,
    ),
    parts,
    {name: [[batch(part)]] for name, part in parts.items()},
    batch_size=sizes.jpeg_files,
    shard_bytes=2**27,
  )
