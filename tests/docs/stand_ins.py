"""What the documents take for granted: pictures, data sets, weights."""

import itertools
import pathlib
import shutil
from unittest import mock

import numpy as np
import PIL.Image
import tensorflow as tf
import tensorflow_datasets as tfds

from tests.docs import pages
from tests.experiments import tiny_runs
from tests.interop import enhancing_reference
from vim_tf.training import workdir as workdir_lib

CLASSES = ('Flags', 'cats', 'dogs', 'Symbols')
"""Subfolders of the pictures; all but the dogs are named by commands."""
_IMAGES = {'train': 10, 'validation': 3}  # Of each class.

_FOLDERS = ('data/photos', 'PHOTOS', 'Pictures/holidays')
"""Folders of pictures, below a page's own."""


def make(root: pathlib.Path) -> dict[str, pathlib.Path]:
  """Makes what needs a path in the commands.

  Returns:
    Where they are: 'imagenet', where TFDS keeps data, and two feature
    networks, 'coarse' and 'fine'.
  """
  places = {name: root / name for name in ('imagenet', 'coarse', 'fine')}
  _prepare_imagenet(places['imagenet'])
  tf.saved_model.save(tiny_runs.Means(2), str(places['coarse']))
  tf.saved_model.save(tiny_runs.Means(4), str(places['fine']))
  return places


def put(folder: pathlib.Path):
  """Puts what commands name into a page's folder."""
  for name, split in itertools.product(_FOLDERS, _IMAGES):
    for label, kind in enumerate(CLASSES):
      path = folder / name / split / kind
      path.mkdir(parents=True)
      for i in range(_IMAGES[split]):
        picture(100 * label + i, 24 + i, 20).save(path / f'{i:04}.jpg')
  sizes = enhancing_reference.Sizes()  # Those of the `tiny` preset.
  enhancing_reference.write_checkpoint(
    folder / 'imagenet_vitvq_base.ckpt',
    enhancing_reference.random_weights(sizes),
  )
  for name in ('requirements.lock', 'requirements-beam.lock'):
    shutil.copy(pages.ROOT / name, folder)


def other_probe(probe: pathlib.Path, path: pathlib.Path):
  """The figures of a probe as if its VIM had been trained once more."""
  record = workdir_lib.read_json(probe / 'figures.json')
  record['protocol']['vim_fingerprint'] = path.name
  path.mkdir(parents=True)
  workdir_lib.write_json(path / 'figures.json', record)


def picture(seed: int, width: int, height: int) -> PIL.Image.Image:
  """Coarse noise, with sizes in pixels."""
  noise = np.random.default_rng(seed).integers(0, 256, [5, 6, 3], np.uint8)
  return PIL.Image.fromarray(noise).resize((width, height))


def _prepare_imagenet(data_dir: pathlib.Path):
  """A few pictures as TFDS's ImageNet, with all of its classes."""

  def examples(count):
    for i in range(count):
      image = np.asarray(picture(i, 24, 20))
      yield i, {'image': image, 'label': i, 'file_name': f'{i}.jpg'}

  def splits(builder, manager):
    del builder, manager
    return {'train': examples(16), 'validation': examples(8)}

  builder = tfds.builder('imagenet2012', data_dir=data_dir)
  with mock.patch.object(type(builder), '_split_generators', splits):
    builder.download_and_prepare()
