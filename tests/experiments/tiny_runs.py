"""Working directories of both stages with random weights, as if trained."""

import dataclasses
import functools
import pathlib
import tempfile

import numpy as np
from PIL import Image
import tensorflow as tf

from tests import testing
from vim_tf import presets
from vim_tf.config import replace
from vim_tf.jobs import restore
from vim_tf.training import checkpoints
from vim_tf.training import workdir as workdir_lib
from vim_tf.vim import model as vim_model
from vim_tf.vit_vqgan import model as vit_vqgan_model

SIZE = 16
STEP = 7
CLASSES = ('bright', 'dark')
TRAIN = (12, 8)
"""Training images of each class."""
HELD_OUT = (6, 5)
"""Held-out images of each class."""


@dataclasses.dataclass(frozen=True)
class Runs:
  """What `shared` makes: images, and runs on them.

  Attributes:
    images: Folder of the images.
    tokenizer: A stage-1 run.
    vim: A stage-2 run on it.
    unconditional: Another one, without classes.
  """

  images: pathlib.Path
  tokenizer: pathlib.Path
  vim: pathlib.Path
  unconditional: pathlib.Path


@functools.cache
def shared() -> Runs:
  """Made once a process, for tests that change nothing in them."""
  root = pathlib.Path(tempfile.mkdtemp(dir=tf.compat.v1.test.get_temp_dir()))
  names = (field.name for field in dataclasses.fields(Runs))
  runs = Runs(**{name: root / name for name in names})
  make_images(runs.images)
  make_tokenizer(runs.tokenizer, runs.images)
  make_vim(runs.vim, runs.images, runs.tokenizer)
  make_vim(runs.unconditional, runs.images, runs.tokenizer, num_classes=0)
  return runs


def make_images(folder: pathlib.Path):
  """A folder of noise that is bright or dark, in two splits."""
  rng = np.random.default_rng(0)
  for split, counts in (('train', TRAIN), ('validation', HELD_OUT)):
    for label, (name, count) in enumerate(zip(CLASSES, counts)):
      path = folder / split / name
      path.mkdir(parents=True)
      for i in range(count):
        coarse = rng.integers(0, 128, [4, 4, 3], np.uint8) + 127 * (1 - label)
        image = Image.fromarray(np.uint8(coarse))
        image.resize([SIZE, SIZE], Image.BILINEAR).save(path / f'{i:02}.png')


def make_tokenizer(path: pathlib.Path, images: pathlib.Path, **changes: str):
  """A stage-1 run; the keyword arguments change its config."""
  config = replace(
    presets.stage1('tiny'),
    {
      'data.name': f'folder:{images}',
      'model.encoder.num_blocks': '1',
      'model.decoder.num_blocks': '1',
      **changes,
    },
  )
  model = vit_vqgan_model.ViTVQGAN(config.model)
  save(path, 'vit_vqgan', config, model, {})


def make_vim(
  path: pathlib.Path,
  images: pathlib.Path,
  tokenizer: pathlib.Path,
  num_classes: int = 2,
  seed: int = 0,
):
  """A stage-2 run on that tokenizer."""
  config = replace(
    presets.stage2('tiny'),
    {
      'data.name': f'folder:{images}',
      'model.num_classes': str(num_classes),
      'model.transformer.num_blocks': '1',
      'label_drop': '0.1' if num_classes else '0',
      'tokenizer': str(tokenizer),
    },
  )
  fingerprint = restore.fingerprint(restore.tokenizer(tokenizer).model)
  facts = {'class_names': list(CLASSES), 'tokenizer_fingerprint': fingerprint}
  save(path, 'vim', config, vim_model.VIM(config.model), facts, seed)


def save(path, kind, config, model, facts, seed=0):
  """A working directory with one checkpoint, of random weights."""
  workdir = workdir_lib.Workdir(str(path), kind, config, facts)
  model.build()
  testing.randomize(model, seed)
  name = 'average' if config.optimizer.ema_decay else 'model'
  checkpoints.Checkpoints(workdir.checkpoints, {name: model}).save(STEP)


class Means(tf.Module):
  """A network whose features NumPy has as well: the means of some tiles.

  Args:
    tiles: Tiles along each side.
  """

  def __init__(self, tiles: int):
    super().__init__()
    self._side = SIZE // tiles

  @tf.function(input_signature=[tf.TensorSpec([None, SIZE, SIZE, 3])])
  def __call__(self, images):
    means = tf.nn.avg_pool2d(images, self._side, self._side, 'VALID')
    features = tf.reshape(means, [-1, (SIZE // self._side) ** 2 * 3])
    return {'features': features, 'logits': 3.0 * features[:, :4]}


class Brightness(tf.Module):
  """A classifier: the brighter, the more it is of class 0."""

  @tf.function(input_signature=[tf.TensorSpec([None, SIZE, SIZE, 3])])
  def __call__(self, images):
    mean = tf.reduce_mean(images, axis=[1, 2, 3])
    return tf.stack([mean, 1.0 - mean], axis=1)


def means(images: np.ndarray, tiles: int) -> np.ndarray:
  """The features of `Means`, of images in [0, 1]."""
  side = SIZE // tiles
  parts = np.float64(images).reshape([-1, tiles, side, tiles, side, 3])
  return parts.mean(axis=(2, 4)).reshape([len(images), -1])
