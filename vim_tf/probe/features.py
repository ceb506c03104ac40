"""Features of a frozen VIM, averaged over the codes, and tables of them.

A feature is computed once for each image and crop and kept: training a softmax
layer then costs next to nothing, and every block comes from the same pass.
"""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import pathlib

import numpy as np
import tensorflow as tf

from vim_tf.config import UserError
from vim_tf.vim import model as model_lib

MAX_MEMORY = 2**30
"""Bytes up to which a table is held in memory; larger ones go to a file."""


def block_name(index: int) -> str:
  """What a block's features are called, here and in `VIM.intermediates`."""
  return f'block_{index}'


def block_features(
  model: model_lib.VIM, codes: tf.Tensor, last_block: int | None = None
) -> dict[str, tf.Tensor]:
  """Averages over the codes, of every block up to one (paper 4.2).

  All codes are fed, the last one, too, after the start of an image without a
  class: a class-conditional VIM must not be told what it is asked for. The
  average is over the elements of the codes, in float32.

  Args:
    model: The VIM; nothing of it is changed.
    codes: int32 `[batch, num_codes]`.
    last_block: Index of the last block to run; None runs all.

  Returns:
    float32 `[batch, width]` by 'block_<index>'.

  Raises:
    UserError: If there is no such block.
  """
  class_ids = tf.fill(tf.shape(codes)[:1], model.config.num_classes)
  if last_block is None:
    last_block = model.config.transformer.num_blocks - 1
  out = model.intermediates(codes, class_ids, last_block)
  return {
    name: tf.reduce_mean(tf.cast(out[name], tf.float32), axis=1)
    for name in map(block_name, range(last_block + 1))
  }


@dataclasses.dataclass(frozen=True)
class Table:
  """Features of a set of images in one or more crops.

  Attributes:
    features: By name `[passes, num_images, width]`, float32.
    labels: Class of each image, int32 `[num_images]`.
  """

  features: Mapping[str, np.ndarray]
  labels: np.ndarray

  @property
  def num_images(self) -> int:
    return len(self.labels)

  @property
  def num_passes(self) -> int:
    return len(next(iter(self.features.values())))

  def only(self, names: Iterable[str]) -> 'Table':
    """The same images with fewer features."""
    return Table({name: self.features[name] for name in names}, self.labels)

  def views(
    self, images: np.ndarray, augmented: bool
  ) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What is measured of some images.

    Args:
      images: Their indices.
      augmented: Whether to take all passes but the first, which is that over
        the centre crops, instead of the first alone.

    Returns:
      By name float32 `[passes * count, width]`, pass after pass, and the
      labels, int32 `[passes * count]`.
    """
    passes = slice(1, None) if augmented else slice(1)
    features = {
      name: x[passes, images].reshape(-1, x.shape[-1])
      for name, x in self.features.items()
    }
    count = self.num_passes - 1 if augmented else 1
    return features, np.tile(self.labels[images], count)

  def part(self, images: np.ndarray) -> 'Table':
    """The same features of fewer images, by index."""
    features = {name: x[:, images] for name, x in self.features.items()}
    return Table(features, self.labels[images])


def tabulate(
  compute: Callable[[tf.Tensor], Mapping[str, np.ndarray]],
  passes: list[Iterable[Mapping[str, tf.Tensor]]],
  num_images: int,
  folder: str | pathlib.Path,
  may_lack: bool = False,
) -> Table:
  """Runs over images and keeps all their features.

  Args:
    compute: From images `[batch, size, size, 3]` to features `[batch, width]`
      by name.
    passes: For each pass the batches of all images in the same order:
      'images', 'labels' and 'mask'.
    num_images: Images of one pass.
    folder: Where tables go that are too large for the memory.
    may_lack: Whether images may be left out, the same ones of each pass.

  Returns:
    The table.

  Raises:
    UserError: If a pass has other images than it should.
  """
  tables = {}
  labels = np.full([num_images], -1, np.int32)
  for number, batches in enumerate(passes):
    first = 0
    for batch in batches:
      keep = batch['mask'].numpy() > 0
      last = first + int(keep.sum())
      if last > num_images:
        break
      for name, values in compute(batch['images']).items():
        if name not in tables:
          shape = [len(passes), num_images, values.shape[-1]]
          tables[name] = _allocate(shape, pathlib.Path(folder) / f'{name}.npy')
        tables[name][number, first:last] = np.asarray(values)[keep]
      labels[first:last] = batch['labels'].numpy()[keep]
      first = last
    if may_lack and not number:
      num_images = first
    if not first or first != num_images:
      raise UserError(
        f'A pass over the images gave {first}, but there are {num_images}.'
      )
  return Table(
    {name: x[:, :num_images] for name, x in tables.items()}, labels[:num_images]
  )


def _allocate(shape: list[int], path: pathlib.Path) -> np.ndarray:
  if np.prod(shape, dtype=np.int64) * 4 <= MAX_MEMORY:
    return np.empty(shape, np.float32)
  path.parent.mkdir(parents=True, exist_ok=True)
  return np.lib.format.open_memmap(
    path, mode='w+', dtype=np.float32, shape=tuple(shape)
  )
