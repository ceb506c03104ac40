"""Multi-head self-attention: whole sequences, or a window with a cache."""

from typing import NamedTuple

import tensorflow as tf

from vim_tf.nn import fusion, layers, tiled
from vim_tf.nn import positions as positions_lib

_HIDDEN = -1e9


class KVCache(tf.experimental.ExtensionType):
  """Keys and values of the positions that a causal layer has seen.

  Both are of fixed size, so that one compiled loop serves every position:
  `[batch, heads, length, head_width]`, zero where nothing was written yet.

  Attributes:
    keys: What queries are compared with.
    values: What is averaged.
    in_place: Whether `decode` writes into this very memory, so that a cache
      is worth nothing once its successor is made. TensorFlow's scatter copies
      the cache for each position otherwise; XLA does not, and knows no such
      operation. The values are float32 then: in bfloat16 each product of one
      row would pack them first, which takes longer than the product.
  """

  keys: tf.Tensor
  values: tf.Tensor
  in_place: bool = False

  def written(
    self, keys: tf.Tensor, values: tf.Tensor, places: 'Places'
  ) -> 'KVCache':
    """With `[batch, heads, window, head_width]` more in `places`."""

    def write(cache, new):
      new = tf.reshape(tf.cast(new, cache.dtype), [-1, cache.shape[3]])
      old = tf.reshape(cache, [-1, cache.shape[3]])
      if self.in_place:
        old = tf.raw_ops.InplaceUpdate(x=old, i=places.lines, v=new)
      else:
        lines = places.lines[:, None]
        old = tf.tensor_scatter_nd_update(old, lines, new)
      old = tf.reshape(old, places.shape)
      old.set_shape(cache.shape)
      return old

    return KVCache(
      write(self.keys, keys), write(self.values, values), self.in_place
    )

  def grown(self, more: int) -> 'KVCache':
    """With room for `more` positions: of its own, and zero."""

    def pad(cache):
      return tf.pad(cache, [[0, 0], [0, 0], [0, more], [0, 0]])

    return KVCache(pad(self.keys), pad(self.values), self.in_place)


class Places(NamedTuple):
  """A window of positions of each sequence, and where a cache has them.

  Attributes:
    lines: int32 `[batch * heads * window]`: which lines of the cache they are,
      if that has one line a sequence, head and position.
    hidden: float32 `[batch, 1, window, length]`, to be added to scores: 0
      where a position sees another, so low where it does not that nothing is
      left of the score.
    shape: int32 `[4]`, that of the cache.
    parts: int32 `[5]`, that of queries, keys and values as they are projected.
    turns: Of modern layers, cosines and sines of the rotary positions.
  """

  lines: tf.Tensor
  hidden: tf.Tensor
  shape: tf.Tensor
  parts: tf.Tensor
  turns: tuple[tf.Tensor, tf.Tensor] | None


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class MultiHeadAttention(layers.Layer):
  """Scaled dot-product self-attention (Vaswani et al., 2017).

  Args:
    num_heads: Number of heads.
    head_width: Width of one head.
    causal: Whether a position sees itself and earlier positions only.
    qkv_bias: Whether the query, key and value projections have a bias.
    modern: Whether queries and keys are normalised (Dehghani et al., 2023), and
      turned by their rotary positions.
    grid_size: Positions along one side, for these; causal sequences have one
      element before those of the grid.
    **kwargs: Arguments of `tf.keras.layers.Layer`.
  """

  def __init__(
    self,
    num_heads: int,
    head_width: int,
    causal: bool = False,
    qkv_bias: bool = True,
    modern: bool = False,
    grid_size: int = 0,
    **kwargs,
  ):
    super().__init__(**kwargs)
    self.num_heads = num_heads
    self.head_width = head_width
    self.causal = causal
    self.qkv_bias = qkv_bias
    self.modern = modern
    self.grid_size = grid_size

  def build(self, input_shape):
    width = input_shape[-1]
    inner = self.num_heads * self.head_width
    self.qkv = layers.dense(
      3 * inner, width, self.dtype_policy, 'qkv', use_bias=self.qkv_bias
    )
    self.out = layers.dense(width, inner, self.dtype_policy, 'out')
    if self.modern:
      self.query_norm, self.key_norm = (
        layers.RMSNorm(dtype=self.dtype_policy, name=name)
        for name in ('query_norm', 'key_norm')
      )
      for norm in (self.query_norm, self.key_norm):
        norm.build([None, self.head_width])
    super().build(input_shape)

  def call(self, x: tf.Tensor) -> tf.Tensor:
    """Attends within a whole sequence: `[batch, length, width]` to the same."""
    length = x.shape[1]
    queries, keys, values = self._project(
      x, self._parts(length), self._turns(lambda angles: angles[:length])
    )
    if fusion.inside_xla():
      y = tiled.attend(queries, keys, values, self.causal)
      return self._merge(y, length)
    scores = tf.matmul(queries, keys, transpose_b=True)
    if self.causal:
      mask = tf.linalg.band_part(tf.ones([length, length], tf.bool), -1, 0)
    else:
      mask = None
    weights = tf.cast(_softmax(scores, mask), values.dtype)
    return self._merge(tf.matmul(weights, values), length)

  def new_cache(
    self, batch: int | tf.Tensor, in_place: bool = False
  ) -> KVCache:
    """A cache for no position yet; see `KVCache.grown`.

    Args:
      batch: Number of sequences.
      in_place: See `KVCache`; not under XLA.
    """
    shape = tf.stack([batch, self.num_heads, 0, self.head_width])
    if not in_place:
      zeros = tf.zeros(shape, self.compute_dtype)
      return KVCache(keys=zeros, values=zeros)

    def empty(dtype):
      # Not zeros: equal constants would be merged into one.
      return tf.raw_ops.PlaceholderWithDefault(
        input=tf.raw_ops.Empty(shape=shape, dtype=dtype),
        shape=[None, self.num_heads, None, self.head_width],
      )

    return KVCache(empty(self.compute_dtype), empty(tf.float32), in_place=True)

  def places(self, cache: KVCache, positions: tf.Tensor) -> Places:
    """Places for this layer and all others of its sizes; see `Places`.

    Args:
      cache: Theirs, or one of the same shape.
      positions: int32 `[batch, window]`, which may begin anywhere.
    """
    shape = tf.shape(cache.keys)
    batch, heads, length, _ = tf.unstack(shape)
    rows = tf.reshape(tf.range(batch * heads) * length, [batch, heads, 1])
    later = tf.range(length) > positions[:, None, :, None]
    return Places(
      lines=tf.reshape(rows + positions[:, None], [-1]),
      hidden=tf.where(later, _HIDDEN, 0.0),
      shape=shape,
      parts=tf.stack(self._parts(tf.shape(positions)[1])),
      turns=self._turns(lambda angles: tf.gather(angles, positions)[:, None]),
    )

  def decode(
    self, x: tf.Tensor, cache: KVCache, places: Places
  ) -> tuple[tf.Tensor, KVCache]:
    """Attends from a window of positions to each other and all before them.

    Args:
      x: `[batch * window, width]`, the inputs there.
      cache: Keys and values of the positions before them.
      places: Which positions.

    Returns:
      The outputs `[batch * window, width]`, and the cache with them.
    """
    queries, keys, values = self._project(
      tf.cast(x, self.compute_dtype), places.parts, places.turns
    )
    cache = cache.written(keys, values, places)
    scores = tf.matmul(queries, cache.keys, transpose_b=True)
    weights = tf.nn.softmax(tf.cast(scores, tf.float32) + places.hidden)
    y = tf.matmul(tf.cast(weights, cache.values.dtype), cache.values)
    return self._merge(y), cache

  def _parts(self, length):
    return [-1, length, 3, self.num_heads, self.head_width]

  def _turns(self, choose):
    """Cosines and sines of the rotary positions chosen; None without them."""
    if not self.modern:
      return None
    angles = choose(
      positions_lib.rotary_2d(
        self.grid_size, self.head_width, start=self.causal
      )
    )
    return tuple(
      tf.cast(f(angles), self.compute_dtype) for f in (tf.cos, tf.sin)
    )

  def _project(self, x, parts, turns):
    """Queries, keys and values `[batch, heads, length, head_width]`."""
    qkv = tf.transpose(tf.reshape(self.qkv(x), parts), [2, 0, 3, 1, 4])
    queries, keys, values = tf.unstack(qkv)
    if turns:
      queries = _turned(self.query_norm(queries), *turns)
      keys = _turned(self.key_norm(keys), *turns)
    scale = tf.constant(self.head_width**-0.5, queries.dtype)
    return queries * scale, keys, values

  def _merge(self, x, *length):
    x = tf.cast(x, self.compute_dtype)
    x = tf.transpose(x, [0, 2, 1, 3])  # [batch, length, heads, head_width]
    return self.out(
      tf.reshape(x, [-1, *length, self.num_heads * self.head_width])
    )


def _turned(x: tf.Tensor, cos: tf.Tensor, sin: tf.Tensor) -> tf.Tensor:
  """Turns pairs of elements, one from either half: `[.., length, width]`."""
  a, b = tf.split(x, 2, axis=-1)
  return tf.concat([a * cos - b * sin, a * sin + b * cos], axis=-1)


def _softmax(scores: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
  """Float32 weights that sum to one where `mask` lets them."""
  scores = tf.cast(scores, tf.float32)
  if mask is not None:
    scores = tf.where(mask, scores, _HIDDEN)
  return tf.nn.softmax(scores)
