"""Grids of images, to look at."""

import math

import numpy as np
import tensorflow as tf

from vim_tf.data import images as images_lib

_GAP = 2  # Pixels of white between images.


def to_bytes(images) -> np.ndarray:
  """Images in [0, 1] as a uint8 array, rounded and clamped."""
  return np.asarray(images_lib.to_uint8(images))


def grid(images: tf.Tensor, columns: int) -> np.ndarray:
  """Lays images out in rows.

  Args:
    images: `[count, height, width, 3]` in [0, 1].
    columns: Images in one row.

  Returns:
    uint8 `[grid height, grid width, 3]`.
  """
  images = to_bytes(images)
  count, height, width, _ = images.shape
  rows = math.ceil(count / columns)
  canvas = np.full(
    [rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3],
    255,
    np.uint8,
  )
  for i, image in enumerate(images):
    top = _GAP + (i // columns) * (height + _GAP)
    left = _GAP + (i % columns) * (width + _GAP)
    canvas[top : top + height, left : left + width] = image
  return canvas


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
