"""Pre-norm Transformer blocks and stacks of them, used by both stages."""

import functools

import tensorflow as tf

from vim_tf.config import TransformerConfig
from vim_tf.nn import attention, fusion, gradients, layers, looped, randomness

_DROPOUTS_PER_BLOCK = 3


def _swiglu(x):
  """A gate of the one half times the other (Shazeer, 2020)."""
  gate, x = tf.split(x, 2, axis=-1)
  return tf.nn.silu(gate) * x


def _gelu(x):
  """By erf, as TensorFlow's was: by erfc, as it is now, it takes longer."""
  return 0.5 * x * (1.0 + tf.math.erf(x / tf.cast(2.0**0.5, x.dtype)))


ACTIVATIONS = {
  'gelu': _gelu,
  'tanh': tf.nn.tanh,
  'relu': tf.nn.relu,
  'swiglu': _swiglu,
}
"""By name; swiglu halves the width."""


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class MLP(layers.Layer):
  """Two dense layers with a non-linearity between them.

  Args:
    hidden_width: Width between the layers.
    activation: A key of `ACTIVATIONS`.
    dropout: Rate of dropout after the non-linearity.
    **kwargs: Arguments of `tf.keras.layers.Layer`.
  """

  def __init__(
    self,
    hidden_width: int,
    activation: str = 'gelu',
    dropout: float = 0.0,
    **kwargs,
  ):
    super().__init__(**kwargs)
    self.hidden_width = hidden_width
    self.activation = activation
    self.dropout = dropout

  def build(self, input_shape):
    width = input_shape[-1]
    copies = 2 if self.activation == 'swiglu' else 1
    self.hidden = layers.dense(
      copies * self.hidden_width, width, self.dtype_policy, 'hidden'
    )
    self.out = layers.dense(width, self.hidden_width, self.dtype_policy, 'out')
    super().build(input_shape)

  def call(self, x, seeds=None, stream: int = 0, training=None):
    """Maps `[..., width]` to the same.

    Args:
      x: `[batch, ..., width]`.
      seeds: uint32 `[batch]` of the examples for dropout; None: no dropout.
      stream: Random stream of the dropout.
      training: Whether to fuse the non-linearity for speed. Off by default,
        because a server without XLA could not run what was exported so.
    """
    x = self.hidden(x)
    if seeds is not None and self.dropout:
      x = _fused_activation(self.activation, self.dropout)(
        x, seeds, randomness.stream_tensor(stream)
      )
    elif training:
      x = _fused_activation(self.activation)(x)
    else:
      x = ACTIVATIONS[self.activation](x)
    return self.out(x)


@functools.cache
def _fused_activation(activation: str, dropout: float = 0.0):
  """A non-linearity, with the dropout after it, as one pass."""
  if not dropout:
    return fusion.fused(ACTIVATIONS[activation])
  return fusion.fused(
    lambda x, seeds, stream: randomness.dropped(
      ACTIVATIONS[activation](x), dropout, seeds, stream
    )
  )


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class Block(layers.Layer):
  """Attention and MLP, each after a LayerNorm and added to its input.

  A modern one has RMSNorm, SwiGLU of as many weights, and attention as
  `MultiHeadAttention` has it then.

  Args:
    config: Sizes of the stack that it is of.
    causal: Whether a position sees itself and earlier positions only.
    float32_stream: See `Transformer`.
    grid_size: Positions along one side, for modern blocks.
    **kwargs: Arguments of `tf.keras.layers.Layer`.
  """

  def __init__(
    self,
    config: TransformerConfig,
    causal: bool = False,
    float32_stream: bool = False,
    grid_size: int = 0,
    **kwargs,
  ):
    super().__init__(**{'autocast': not float32_stream, **kwargs})
    self.config = config
    self.causal = causal
    self.float32_stream = float32_stream
    self.grid_size = grid_size

  def build(self, input_shape):
    config, modern = self.config, self.config.block == 'modern'
    norm_dtype = 'float32' if self.float32_stream else self.dtype_policy
    self.attention_norm = _norm(modern, norm_dtype, 'attention_norm')
    self.attention = attention.MultiHeadAttention(
      config.num_heads,
      config.attention_head_width,
      causal=self.causal,
      qkv_bias=config.qkv_bias,
      modern=modern,
      grid_size=self.grid_size,
      dtype=self.dtype_policy,
      name='attention',
    )
    self.mlp_norm = _norm(modern, norm_dtype, 'mlp_norm')
    # Three matrices instead of two.
    self.mlp = MLP(
      config.mlp_width * 2 // 3 if modern else config.mlp_width,
      'swiglu' if modern else config.activation,
      dropout=config.dropout,
      dtype=self.dtype_policy,
      name='mlp',
    )
    for layer in (self.attention_norm, self.attention, self.mlp_norm, self.mlp):
      layer.build(input_shape)
    super().build(input_shape)

  def call(self, x, seeds=None, stream: int = 0):
    """`[batch, length, width]` to the same.

    Args:
      x: `[batch, length, width]`.
      seeds: uint32 `[batch]` of the examples for dropout; None: no dropout.
      stream: First random stream of this block.
    """
    y = self.attention(self.attention_norm(x))
    x = x + tf.cast(self._drop(y, seeds, stream), x.dtype)
    y = self.mlp(self.mlp_norm(x), seeds=seeds, stream=stream + 1)
    return x + tf.cast(self._drop(y, seeds, stream + 2), x.dtype)

  def decode(self, x, cache: attention.KVCache, places: attention.Places):
    """A window of positions; see `MultiHeadAttention.decode`."""
    y = _of_rows(self.attention_norm, x)
    y, cache = self.attention.decode(y, cache, places)
    x = x + tf.cast(y, x.dtype)
    y = self.mlp(_of_rows(self.mlp_norm, x))
    return x + tf.cast(y, x.dtype), cache

  def _drop(self, x, seeds, stream):
    if seeds is None:
      return x
    return randomness.dropout(x, self.config.dropout, seeds, stream)


def _norm(modern, dtype, name):
  if modern:
    return layers.RMSNorm(dtype=dtype, name=name)
  return layers.layer_norm(dtype, name)


def _of_rows(norm, x):
  """A norm of `[rows, width]`; Keras's takes what it was built for."""
  if isinstance(norm, layers.RMSNorm):
    return norm(x)
  return tf.squeeze(norm(tf.expand_dims(x, 1)), 1)


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class Transformer(layers.Layer):
  """A stack of blocks with a norm after the last one.

  Args:
    config: Sizes of the stack.
    causal: Whether a position sees itself and earlier positions only.
    recompute: Whether to recompute a block's activations in the backward
      pass instead of keeping them (Chen et al., 2016). Where XLA compiles the
      whole program, the blocks are one loop then, see `looped`.
    float32_stream: Whether what the blocks add up, and the norms of it, stay
      float32 under a bfloat16 policy, in which the blocks compute all the
      same.
    grid_size: Positions along one side, for modern blocks.
    **kwargs: Arguments of `tf.keras.layers.Layer`.
  """

  def __init__(
    self,
    config: TransformerConfig,
    causal: bool = False,
    recompute: bool = False,
    float32_stream: bool = False,
    grid_size: int = 0,
    **kwargs,
  ):
    super().__init__(**{'autocast': not float32_stream, **kwargs})
    self.config = config
    self.causal = causal
    self.recompute = recompute
    self.float32_stream = float32_stream
    self.grid_size = grid_size

  def build(self, input_shape):
    config = self.config
    self.blocks = [
      Block(
        config,
        self.causal,
        self.float32_stream,
        self.grid_size,
        dtype=self.dtype_policy,
        name=f'block_{i}',
      )
      for i in range(config.num_blocks)
    ]
    self.norm = _norm(
      config.block == 'modern',
      'float32' if self.float32_stream else self.dtype_policy,
      'norm',
    )
    for layer in (*self.blocks, self.norm):
      layer.build(input_shape)
    super().build(input_shape)

  def call(
    self, x, seeds=None, out: dict | None = None, num_blocks: int | None = None
  ):
    """`[batch, length, width]` to the same.

    Args:
      x: `[batch, length, width]`.
      seeds: uint32 `[batch]` of the examples for dropout; None: no dropout.
      out: If given, receives each block's output under 'block_<index>'.
      num_blocks: If given, only the first so many blocks are run, and the
        LayerNorm after the last one is not.
    """
    blocks = self.blocks[:num_blocks]
    if self.recompute and out is None and fusion.inside_xla():
      x = looped.run(
        lambda block, x, i: block(x, seeds, i * _DROPOUTS_PER_BLOCK), blocks, x
      )
      blocks = ()
    for i, block in enumerate(blocks):
      stream = i * _DROPOUTS_PER_BLOCK
      if self.recompute:
        others = () if seeds is None else (seeds,)
        x = gradients.recomputed(
          lambda x, seeds=None, block=block, stream=stream: block(
            x, seeds, stream
          ),
          x,
          *others,
        )
      else:
        x = block(x, seeds, stream)
      if out is not None:
        out[f'block_{i}'] = x
    return self.norm(x) if num_blocks is None else x

  def new_cache(self, batch, in_place: bool = False) -> list[attention.KVCache]:
    """Empty caches of all blocks; see `MultiHeadAttention.new_cache`."""
    return [block.attention.new_cache(batch, in_place) for block in self.blocks]

  def decode(self, x, caches: list[attention.KVCache], positions):
    """A window of positions of a causal stack.

    Args:
      x: `[batch, window, width]`, the inputs at `positions`.
      caches: One cache a block.
      positions: int32 `[batch, window]`.

    Returns:
      The outputs `[batch, window, width]`, and the caches with `positions`
      filled.
    """
    window, width = tf.shape(x), x.shape[-1]
    places = self.blocks[0].attention.places(caches[0], positions)
    x = tf.reshape(self._stream(x), [-1, width])
    new_caches = []
    for block, cache in zip(self.blocks, caches, strict=True):
      x, cache = block.decode(x, cache, places)
      new_caches.append(cache)
    return tf.reshape(_of_rows(self.norm, x), window), new_caches

  def _stream(self, x):
    return tf.cast(x, tf.float32) if self.float32_stream else x
