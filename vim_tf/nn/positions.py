"""Positions of a square grid: added, learned or fixed; or rotary."""

import numpy as np
import tensorflow as tf

from vim_tf.nn import layers


def sincos_2d(grid_size: int, width: int) -> np.ndarray:
  """Fixed 2-D positions: half the width for the row, half for the column.

  Each half holds sines then cosines of the coordinate at geometrically
  spaced frequencies (Vaswani et al., 2017; He et al., 2022, appendix A).

  Args:
    grid_size: Positions along one side.
    width: Model width, a multiple of 4.

  Returns:
    float32 `[grid_size**2, width]` in raster order.
  """
  frequencies = 10_000.0 ** -(np.arange(width // 4) / (width / 4))
  angles = np.arange(grid_size)[:, None] * frequencies  # [grid, width / 4]
  line = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
  rows = np.repeat(line, grid_size, axis=0)
  columns = np.tile(line, [grid_size, 1])
  return np.concatenate([rows, columns], axis=1).astype(np.float32)


def rotary_2d(grid_size: int, width: int, start: bool) -> np.ndarray:
  """Angles by which to turn pairs of a head's elements (Su et al., 2021).

  Half the pairs turn with the row, half with the column. The frequencies go
  from 1 down to 1/100: grids are far shorter than texts.

  Args:
    grid_size: Positions along one side.
    width: Width of a head, a multiple of 4.
    start: Whether one element comes before those of the grid; it stands
      outside, one up and left of the first.

  Returns:
    float32 `[positions, width / 2]` in raster order.
  """
  frequencies = 100.0 ** -(np.arange(width // 4) / (width / 4))
  grid = np.indices([grid_size, grid_size]).reshape(2, -1).T  # Row, column.
  if start:
    grid = np.concatenate([[[-1, -1]], grid])
  angles = grid[:, :, None] * frequencies
  return angles.reshape(len(grid), -1).astype(np.float32)


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class GridPositions(layers.Layer):
  """Adds a position vector to each element of a raster-ordered grid.

  Args:
    grid_size: Positions along one side.
    kind: 'learned' (a full table, normal of 0.02), 'sincos' (fixed), or
      'factorized' (the sum of a learned row and a learned column vector: the
      paper's "learnable 2-D positional embedding", section 4).
    **kwargs: Arguments of `tf.keras.layers.Layer`.
  """

  def __init__(self, grid_size: int, kind: str = 'learned', **kwargs):
    super().__init__(**kwargs)
    self.grid_size = grid_size
    self.kind = kind

  def build(self, input_shape):
    width = input_shape[-1]
    grid = self.grid_size
    if self.kind == 'learned':
      self.table = self._add_table('embedding', [grid**2, width])
    elif self.kind == 'factorized':
      self.rows = self._add_table('row_embedding', [grid, 1, width])
      self.columns = self._add_table('column_embedding', [1, grid, width])
    super().build(input_shape)

  def _add_table(self, name, shape):
    initializer = tf.keras.initializers.RandomNormal(stddev=0.02)
    return self.add_weight(name, shape, initializer=initializer)

  def vectors(self, width: int) -> tf.Tensor:
    """All position vectors, `[grid_size**2, width]` in the compute dtype."""
    if self.kind == 'sincos':
      table = tf.constant(sincos_2d(self.grid_size, width))
    elif self.kind == 'learned':
      table = self.table
    else:
      table = tf.reshape(self.rows + self.columns, [-1, width])
    return tf.cast(table, self.compute_dtype)

  def call(self, x: tf.Tensor) -> tf.Tensor:
    """Adds positions to the first elements `[batch, length, width]`."""
    return x + self.vectors(x.shape[-1])[: x.shape[1]]
