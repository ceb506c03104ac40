"""A source of noise and the cache of its codes, for tests of caches."""

import dataclasses
import functools
import io
import pathlib

from absl.testing import parameterized
import numpy as np
import PIL.Image
import tensorflow as tf

from tests import testing
from vim_tf import config as config_lib
from vim_tf.data import codes as codes_lib
from vim_tf.data import codes_writer, pipeline, sources

SIZE = 12
GRID = 3
CODES = 32
LABELS = np.array([0] * 30 + [1] * 6 + [2] * 5, np.int32)
CROPS = 3
SEED = 5
BATCH = 16
TOKENIZER = 'f1f2'


@functools.cache
def source() -> sources.Source:
  """41 images of noise in three classes."""
  rng = np.random.default_rng(0)
  encoded = []
  for _ in LABELS:
    file = io.BytesIO()
    pixels = rng.integers(0, 256, [SIZE, SIZE, 3], np.uint8)
    PIL.Image.fromarray(pixels).save(file, 'PNG')
    encoded.append(file.getvalue())
  return sources.Source(
    name='noise',
    split='train',
    version='1',
    class_names=('a', 'b', 'c'),
    num_examples=len(encoded),
    flippable=(True, False, True),
    licence='CC0',
    labels=LABELS,
    records=encoded,
  )


def streamed() -> sources.Source:
  """The same images, streamed, with numbers that are not their places."""

  def stream(seed, epoch):
    del seed, epoch
    return tf.data.Dataset.from_tensor_slices(
      dict(
        image=source().records,
        index=np.arange(len(LABELS)) * 7 + 100,
        label=LABELS,
      )
    )

  return dataclasses.replace(source(), labels=None, records=None, stream=stream)


def data(**settings) -> config_lib.DataConfig:
  """How they are cropped; settings are changed by keyword."""
  settings = dict(crop='shift', max_shift=2, flip=True) | settings
  return config_lib.DataConfig(name='noise', image_size=SIZE, **settings)


def encode(images) -> np.ndarray:
  """A stand-in for a tokenizer: the brightness of each patch."""
  patch = SIZE // GRID
  pixels = np.asarray(images).reshape([-1, GRID, patch, GRID, patch, 3])
  values = pixels[:, :, 0, :, 1].sum(axis=-1).reshape([-1, GRID**2])
  return (values * 1000).astype(int) % CODES


def _codes_of(batches) -> list[dict[str, np.ndarray]]:
  out = []
  for batch in batches.as_numpy_iterator():
    keep = batch['mask'] > 0
    out.append(
      {
        'codes': encode(batch['images'])[keep],
        'labels': batch['labels'][keep],
        'indices': batch['indices'][keep],
      }
    )
  return out


def description(**changes) -> codes_lib.Description:
  """What a cache of them says of itself."""
  values = dict(
    data=data(),
    class_names=('a', 'b', 'c'),
    licence='CC0',
    tokenizer_fingerprint=TOKENIZER,
    tokenizer_step=20,
    precision='float32',
    codebook_size=CODES,
    grid_size=GRID,
    crops_per_image=CROPS,
    seed=SEED,
  )
  return codes_lib.Description(**values | changes)


@functools.cache
def crops(data, make_source=source) -> dict[str, list]:
  """The batches of every crop, of both parts."""
  images, settings = make_source(), dict(batch_size=BATCH)
  return {
    'train': [
      _codes_of(
        pipeline.epoch_batches(images, data, seed=SEED, epoch=crop, **settings)
      )
      for crop in range(CROPS)
    ],
    'evaluation': [
      _codes_of(pipeline.evaluation_batches(images, data, **settings))
    ],
  }


def parts(examples=41) -> dict[str, codes_writer.Part]:
  """The parts of a cache, of which one holds so many examples."""
  fingerprint = source().fingerprint
  return {
    'train': codes_writer.Part('train', fingerprint, examples, CROPS),
    'evaluation': codes_writer.Part('validation', 'e1', 41, 1),
  }


def write(folder, batches=None, examples=41, **changes):
  """Writes a cache whose shards hold a batch each."""
  described = description(**changes)
  batches = batches or crops(described.data)
  codes_writer.write(folder, described, parts(examples), batches, BATCH, 1)


def everything(split) -> np.ndarray:
  """All codes of a split, `[crops, examples, num_codes]`."""
  crop, example = np.indices([split.crops, split.num_examples])
  found = split.read(tf.constant(example.ravel()), tf.constant(crop.ravel()))
  return found.numpy().reshape([split.crops, split.num_examples, -1])


@functools.cache
def cache() -> codes_lib.Cache:
  """One that nobody changes, made once a process."""
  folder = testing.new_folder('cache') / 'kept'
  write(folder)
  return codes_lib.Cache(folder)


class TestCase(parameterized.TestCase, tf.test.TestCase):
  """A test of caches: the cache, and a folder that is not there yet."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.cache = cache()

  def setUp(self):
    super().setUp()
    self._new = pathlib.Path(self.create_tempdir().full_path) / 'new'
