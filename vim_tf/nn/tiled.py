"""Attention in tiles of queries: no table of all pairs of positions is kept.

For programs that XLA compiles as a whole. The table of one block of the paper's
VIM takes half a gigabyte in float32, several times over in a backward pass;
here what is kept between the passes is one number a query, and tables of one
tile are computed again (as in Dao et al., 2022). Keys that no query of a causal
tile sees are left out of its products.
"""

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

from vim_tf.nn import fusion

_LARGEST = 2**28  # Bytes of a tile's table.
_STEP = 128  # Rows of a TPU's matrix unit.
_UNSEEN = -1e9  # Score of a key that a query does not see.


def attend(
  queries: tf.Tensor,
  keys: tf.Tensor,
  values: tf.Tensor,
  causal: bool,
  tile: int | None = None,
) -> tf.Tensor:
  """Values averaged by the softmax of queries times keys.

  Args:
    queries: `[batch, heads, length, head_width]`, scaled.
    keys: Of the same shape and type.
    values: Of the same shape and type.
    causal: Whether a position sees itself and earlier positions only.
    tile: Queries of a tile; by default what makes tables of some size.

  Returns:
    A tensor like `values`. The softmax is float32.
  """
  batch, heads, length, _ = queries.shape
  if tile is None:
    rows = _LARGEST // (4 * (batch or 1) * heads * length)
    tile = max(1, rows // _STEP) * _STEP
  # The first and last query of each tile, and how many keys it sees.
  tiles = [
    (first, min(first + tile, length)) for first in range(0, length, tile)
  ]
  tiles = [(first, end, end if causal else length) for first, end in tiles]

  def scores(queries, keys, place):
    first, end, seen = place
    found = _product(
      queries[:, :, first:end], keys[:, :, :seen], transpose_b=True
    )
    found = tf.cast(found, tf.float32)
    if causal:
      mask = _causal(first, end, seen)
      found = tf.where(mask, found, _UNSEEN)
    return found

  def forward(queries, keys, values, place):
    table = scores(queries, keys, place)
    largest = tf.reduce_max(table, axis=-1, keepdims=True)
    table = tf.exp(table - largest)
    total = tf.reduce_sum(table, axis=-1, keepdims=True)
    weights = tf.cast(table / total, values.dtype)
    out = _product(weights, values[:, :, : place[2]])
    return out, largest + tf.math.log(total)

  def backward(queries, keys, values, place, out, norm, dy):
    """Gradients by the tile's queries, and by all keys and values."""
    first, end, seen = place
    out, norm, dy = (x[:, :, first:end] for x in (out, norm, dy))
    weights = tf.exp(scores(queries, keys, place) - norm)
    by_values = _product(tf.cast(weights, dy.dtype), dy, transpose_a=True)
    by_weights = _product(dy, values[:, :, :seen], transpose_b=True)
    # The mean of `by_weights` under the weights.
    mean = tf.reduce_sum(
      tf.cast(dy, tf.float32) * tf.cast(out, tf.float32), -1, keepdims=True
    )
    by_scores = weights * (tf.cast(by_weights, tf.float32) - mean)
    by_scores = tf.cast(by_scores, queries.dtype)
    by_keys = _product(by_scores, queries[:, :, first:end], transpose_a=True)
    room = [[0, 0], [0, 0], [0, length - seen], [0, 0]]
    return _product(by_scores, keys[:, :, :seen]), *(
      tf.pad(tf.cast(x, tf.float32), room) for x in (by_keys, by_values)
    )

  @tf.custom_gradient
  def call(queries, keys, values):
    found = [forward(queries, keys, values, place) for place in tiles]
    out, norm = (tf.concat(parts, axis=2) for parts in zip(*found))

    def gradient(dy):
      kept = queries, keys, values, out, norm, dy
      if fusion.inside_xla():  # Or the forward pass's tables would be kept.
        kept = fusion.barrier(*kept)
      queries_, keys_, values_, *others = kept
      by_queries, by_keys, by_values = zip(
        *[backward(queries_, keys_, values_, place, *others) for place in tiles]
      )
      return (
        tf.concat(by_queries, axis=2),
        tf.cast(tf.add_n(by_keys), keys.dtype),
        tf.cast(tf.add_n(by_values), values.dtype),
      )

    return out, gradient

  return call(queries, keys, values)


def _product(a, b, transpose_a=False, transpose_b=False) -> tf.Tensor:
  """`tf.matmul`, in XLA's default precision if it is of bfloat16.

  Where float32 products are of float32 on a TPU, TensorFlow asks for the
  highest precision of all of them. That says nothing of bfloat16, but of the
  kernel that libtpu makes of attention it is refused.
  """
  if a.dtype != tf.bfloat16 or not fusion.inside_xla():
    return tf.matmul(a, b, transpose_a, transpose_b)
  sums = xla.DotDimensionNumbers(
    lhs_batch_dimensions=[0, 1],
    rhs_batch_dimensions=[0, 1],
    lhs_contracting_dimensions=[2 if transpose_a else 3],
    rhs_contracting_dimensions=[3 if transpose_b else 2],
  )
  return xla.dot_general(a, b, sums)


def _causal(first: int, end: int, seen: int) -> tf.Tensor:
  """Which of the keys before `seen` the queries of a tile see."""
  rows = fusion.places(end - first) + first
  return fusion.places(seen) <= rows[:, None]
