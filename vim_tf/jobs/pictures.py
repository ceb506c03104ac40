"""Grids of images, to look at."""

from collections.abc import Sequence
import itertools
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont
import tensorflow as tf

from vim_tf.data import images as images_lib

_GAP = 2  # Pixels of white between images.
_CAPTION = 14  # Pixels of white above a row of images that have names.
_TEXT_SIZE = 11


def to_bytes(images) -> np.ndarray:
  """Images in [0, 1] as a uint8 array, rounded and clamped."""
  return np.asarray(images_lib.to_uint8(images))


def grid(
  images: tf.Tensor, columns: int, names: Sequence[str] = ()
) -> np.ndarray:
  """Lays images out in rows.

  Args:
    images: `[count, height, width, 3]` in [0, 1].
    columns: Images in one row.
    names: What to write above each image, once above neighbours of the same
      name; nothing by default.

  Returns:
    uint8 `[grid height, grid width, 3]`.
  """
  images = to_bytes(images)
  count, height, width, _ = images.shape
  rows = math.ceil(count / columns)
  caption = _CAPTION if names else 0
  step, above = width + _GAP, caption + _GAP
  canvas = np.full(
    [rows * (height + above) + _GAP, columns * step + _GAP, 3], 255, np.uint8
  )
  for i, image in enumerate(images):
    top = above + (i // columns) * (height + above)
    left = _GAP + (i % columns) * step
    canvas[top : top + height, left : left + width] = image
  for row in range(rows if names else 0):
    left, top = _GAP, _GAP + row * (height + above)
    own = names[row * columns : (row + 1) * columns]
    for name, same in itertools.groupby(own):
      size = len(list(same)) * step - _GAP
      canvas[top : top + caption, left : left + size] = _text(name, size)
      left += size + _GAP
  return canvas


def _text(text: str, width: int) -> np.ndarray:
  """Text on white, cut to a width; uint8 `[caption, width, 3]`."""
  font = ImageFont.load_default(_TEXT_SIZE)
  shown = text
  while font.getlength(shown) > width and len(text) > 1:
    text = text[:-1]
    shown = f'{text}…'
  image = Image.new('RGB', (width, _CAPTION), 'white')
  ImageDraw.Draw(image).text((0, 0), shown, 'black', font)
  return np.asarray(image)


def pairs(
  images: tf.Tensor, reconstructions: tf.Tensor, columns: int = 8
) -> np.ndarray:
  """Rows of originals, each above the row of its reconstructions.

  Args:
    images: `[count, height, width, 3]` in [0, 1].
    reconstructions: The same shape.
    columns: Images in one row.

  Returns:
    uint8 `[grid height, grid width, 3]`.
  """
  rows = []
  for start in range(0, len(images), columns):
    for part in (images, reconstructions):
      rows.append(grid(part[start : start + columns], columns))
  return np.concatenate(rows, axis=0)
