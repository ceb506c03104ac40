"""Handwritten digits as a TFDS data set: 1,797 images in ten classes.

The second data set that needs no download, because scikit-learn carries it.
The originals are 8x8 pixels of 17 grey values; they are enlarged to the size
asked for. Use it like any other TFDS builder:

  builder = Digits(config=make_config(32), data_dir=...)
  builder.download_and_prepare()
"""

from collections.abc import Iterator
import dataclasses
import functools

import numpy as np
import PIL.Image
import sklearn.datasets
import tensorflow_datasets as tfds

CLASS_NAMES = (
  'zero',
  'one',
  'two',
  'three',
  'four',
  'five',
  'six',
  'seven',
  'eight',
  'nine',
)

LICENCE = (
  'Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998, '
  'https://doi.org/10.24432/C50P49), CC BY 4.0, as scikit-learn carries it'
)

_LARGEST = 16  # The originals' lightest value.
_HELD_OUT = 0.2  # Share of each class that goes to 'validation'.
_SPLIT_SEED = 0


@dataclasses.dataclass
class DigitsConfig(tfds.core.BuilderConfig):
  """How large.

  Attributes:
    size: Height and width of the pictures, in pixels.
  """

  size: int = 32


@functools.cache  # TFDS wants its own configs back, not equal ones.
def make_config(size: int) -> DigitsConfig:
  """The builder config of any size, in pixels."""
  if size < 1:
    raise ValueError(f'Digits cannot be {size} pixels high: at least 1.')
  return DigitsConfig(
    name=f'size_{size}',
    description=f'digits at {size}x{size} pixels',
    size=size,
  )


def held_out(labels: np.ndarray) -> np.ndarray:
  """Which images belong to 'validation': a fifth of each class, seeded.

  Args:
    labels: Class of each image, int `[num_images]`.

  Returns:
    bool `[num_images]`.
  """
  rng = np.random.default_rng(_SPLIT_SEED)
  chosen = np.zeros(len(labels), bool)
  for label in range(len(CLASS_NAMES)):
    members = rng.permutation(np.flatnonzero(labels == label))
    chosen[members[: round(_HELD_OUT * len(members))]] = True
  return chosen


def enlarge(image: np.ndarray, size: int) -> np.ndarray:
  """An original `[8, 8]`, 0 to 16, as uint8 `[size, size, 3]`, light on dark.

  The enlargement is bicubic: enlarged to squares, the digits would show the
  tokenizer nothing but flat patches.
  """
  gray = PIL.Image.fromarray(image.astype(np.float32) * (255.0 / _LARGEST))
  gray = gray.resize((size, size), PIL.Image.Resampling.BICUBIC)
  pixels = np.clip(np.round(np.asarray(gray)), 0, 255).astype(np.uint8)
  return np.repeat(pixels[..., None], 3, axis=-1)


class Digits(tfds.core.GeneratorBasedBuilder):
  """Handwritten digits, split at random, stratified by class."""

  name = 'digits'
  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS = [make_config(size) for size in (16, 32, 64)]

  def _info(self) -> tfds.core.DatasetInfo:
    size = self.builder_config.size
    return self.dataset_info_from_configs(
      description=(
        'Handwritten digits, 8x8 pixels enlarged: the test set of the UCI '
        'data set "Optical Recognition of Handwritten Digits", of 13 '
        f'writers, whose digits are in both splits. {LICENCE}.'
      ),
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(
            shape=(size, size, 3), encoding_format='png'
          ),
          'label': tfds.features.ClassLabel(names=CLASS_NAMES),
        }
      ),
      supervised_keys=('image', 'label'),
      homepage='https://doi.org/10.24432/C50P49',
      citation=(
        '@misc{digits, author={Alpaydin, E. and Kaynak, C.}, title={Optical '
        'Recognition of Handwritten Digits}, year={1998}, '
        'howpublished={UCI Machine Learning Repository}}'
      ),
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # Nothing to download.
    data = sklearn.datasets.load_digits()
    chosen = held_out(data.target)
    return {
      'train': self._generate_examples(data, np.flatnonzero(~chosen)),
      'validation': self._generate_examples(data, np.flatnonzero(chosen)),
    }

  def _generate_examples(
    self, data, indices: np.ndarray
  ) -> Iterator[tuple[int, dict]]:
    for index in indices:
      yield (
        int(index),
        {
          'image': enlarge(data.images[index], self.builder_config.size),
          'label': CLASS_NAMES[data.target[index]],
        },
      )
