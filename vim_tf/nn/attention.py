"""Multi-head self-attention: whole sequences, or one position with a cache."""

import tensorflow as tf

from vim_tf.nn import layers, positions


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


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class MultiHeadAttention(tf.keras.layers.Layer):
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
    queries, keys, values = self._project(x)
    scores = tf.matmul(queries, keys, transpose_b=True)
    if self.causal:
      mask = tf.linalg.band_part(tf.ones([length, length], tf.bool), -1, 0)
    else:
      mask = None
    weights = tf.cast(_softmax(scores, mask), values.dtype)
    return self._merge(tf.matmul(weights, values))

  def new_cache(
    self, batch: int | tf.Tensor, length: int, in_place: bool = False
  ) -> KVCache:
    """An empty cache.

    Args:
      batch: Number of sequences.
      length: Positions of a sequence at most.
      in_place: See `KVCache`; not under XLA.
    """
    shape = [batch, self.num_heads, length, self.head_width]
    dtype = self.compute_dtype
    if not in_place:
      zeros = tf.zeros(shape, dtype)
      return KVCache(keys=zeros, values=zeros)

    def memory(dtype):
      # Of its own: equal constants would be merged into one, and kept.
      zeros = tf.raw_ops.Empty(shape=shape, dtype=dtype, init=True)
      return tf.ensure_shape(
        zeros, [None, self.num_heads, length, self.head_width]
      )

    return KVCache(keys=memory(dtype), values=memory(tf.float32), in_place=True)

  def decode(
    self, x: tf.Tensor, cache: KVCache, position: tf.Tensor
  ) -> tuple[tf.Tensor, KVCache]:
    """Attends from one new position to itself and all before it.

    Args:
      x: `[batch, 1, width]`, the input at `position`.
      cache: Keys and values of the positions before it.
      position: int32 scalar, below the cache's length.

    Returns:
      The output `[batch, 1, width]`, and the cache with `position` filled.
    """
    x = tf.cast(x, self.compute_dtype)
    queries, keys, values = self._project(x, position)
    write = _write_in_place if cache.in_place else _write
    cache = KVCache(
      keys=write(cache.keys, keys, position),
      values=write(cache.values, tf.cast(values, cache.values.dtype), position),
      in_place=cache.in_place,
    )
    scores = tf.matmul(queries, cache.keys, transpose_b=True)
    mask = tf.range(cache.keys.shape[2]) <= position
    weights = tf.cast(_softmax(scores, mask), cache.values.dtype)
    return self._merge(tf.matmul(weights, cache.values)), cache

  def _project(self, x, first=0):
    """Queries, keys and values of elements of which the first is at `first`."""
    length = x.shape[1]
    qkv = tf.reshape(
      self.qkv(x), [-1, length, 3, self.num_heads, self.head_width]
    )
    qkv = tf.transpose(qkv, [2, 0, 3, 1, 4])  # [3, batch, heads, length, width]
    queries, keys, values = tf.unstack(qkv)
    if self.modern:
      angles = positions.rotary_2d(
        self.grid_size, self.head_width, start=self.causal
      )
      angles = tf.slice(angles, [first, 0], [length, angles.shape[1]])
      queries = _turned(self.query_norm(queries), angles)
      keys = _turned(self.key_norm(keys), angles)
    scale = tf.constant(self.head_width**-0.5, queries.dtype)
    return queries * scale, keys, values

  def _merge(self, x):
    length = x.shape[2]
    x = tf.cast(x, self.compute_dtype)
    x = tf.transpose(x, [0, 2, 1, 3])  # [batch, length, heads, head_width]
    return self.out(
      tf.reshape(x, [-1, length, self.num_heads * self.head_width])
    )

  def get_config(self):
    return {
      **super().get_config(),
      'num_heads': self.num_heads,
      'head_width': self.head_width,
      'causal': self.causal,
      'qkv_bias': self.qkv_bias,
      'modern': self.modern,
      'grid_size': self.grid_size,
    }


def _turned(x: tf.Tensor, angles: tf.Tensor) -> tf.Tensor:
  """Turns pairs of elements, one from either half: `[.., length, width]`."""
  cos, sin = (tf.cast(f(angles), x.dtype) for f in (tf.cos, tf.sin))
  a, b = tf.split(x, 2, axis=-1)
  return tf.concat([a * cos - b * sin, a * sin + b * cos], axis=-1)


def _softmax(scores: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
  """Float32 weights that sum to one where `mask` lets them."""
  scores = tf.cast(scores, tf.float32)
  if mask is not None:
    scores = tf.where(mask, scores, -1e9)
  return tf.nn.softmax(scores)


def _write(cache: tf.Tensor, new: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
  """Puts `new` [batch, heads, 1, width] at `position` of `cache`."""
  heads, width = cache.shape[1], cache.shape[3]
  rows = tf.range(tf.shape(cache)[0] * heads)
  indices = tf.stack(
    [rows // heads, rows % heads, tf.fill(tf.shape(rows), position)], axis=1
  )
  return tf.tensor_scatter_nd_update(
    cache, indices, tf.reshape(new, [-1, width])
  )


def _write_in_place(
  cache: tf.Tensor, new: tf.Tensor, position: tf.Tensor
) -> tf.Tensor:
  """As `_write`, into the memory of `cache`."""
  length, width = cache.shape[2:]
  new = tf.reshape(new, [-1, width])  # [batch * heads, width]
  rows = tf.range(tf.shape(new)[0]) * length + position
  lines = tf.raw_ops.InplaceUpdate(
    x=tf.reshape(cache, [-1, width]), i=rows, v=new
  )
  return tf.reshape(lines, [-1, *cache.shape[1:]])
