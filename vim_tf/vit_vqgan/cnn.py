"""The CNN backbone of stage 1: VQGAN's, the paper's baseline (Table 1, 4).

It is the encoder and decoder of VQGAN (Esser et al., 2021, Table 7): residual
blocks at every resolution and, at the grid of the codes, self-attention
between two of them. The paper says of its baseline only that the channels are
those of VQGAN times 1 or 2; the number of blocks and the channels of each
resolution are those of CompVis' published configs. Unlike their code, which
also attends after each other block at the grid, this follows their table.
"""

import math

import tensorflow as tf

from vim_tf.config import CNN_CHANNELS
from vim_tf.nn import attention, layers

_BLOCKS_PER_LEVEL = 2  # VQGAN's decoder has one more.
_NORM_EPSILON = 1e-6
_NORM_GROUPS = 32
_PIXEL_STDDEV = 0.02 * layers.INIT_STDDEV

# By the number of halvings. From 2 on they are the published ones of patch
# sizes 4, 8 (Rombach et al., 2022), 16 (Esser et al., 2021) and 32 (the
# former, without a codebook).
_LEVEL_MULTIPLIERS = (
  (1,),
  (1, 2),
  (1, 2, 4),
  (1, 2, 2, 4),
  (1, 1, 2, 2, 4),
  (1, 1, 2, 2, 4, 4),
)


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class CNNEncoder(layers.Layer):
  """Convolutions from the image down to the grid of the codes.

  Args:
    image_size: Height and width of the images, in pixels.
    patch_size: Pixels along one side of the image behind one code: 1, 2, 4,
      8, 16 or 32.
    multiplier: Factor of all channels; the paper has 1 and 2.
    **kwargs: Arguments of `tf.keras.layers.Layer`.

  Attributes:
    width: Channels of the output.
  """

  def __init__(
    self, image_size: int, patch_size: int, multiplier: float = 1.0, **kwargs
  ):
    # Keras would round the images to bfloat16 before they are centred.
    super().__init__(**{'autocast': False, **kwargs})
    self.image_size = image_size
    self.patch_size = patch_size
    self.multiplier = multiplier
    widths = _widths(patch_size, int(multiplier * CNN_CHANNELS))
    self.width = widths[-1]
    dtype = self.dtype_policy
    self.stem = _conv(widths[0], dtype, 'stem')
    self.blocks = []
    for level, width in enumerate(widths):
      if level:
        self.blocks.append(
          _conv(widths[level - 1], dtype, f'down_{level}', strides=2)
        )
      for i in range(_BLOCKS_PER_LEVEL):
        self.blocks.append(
          _ResidualBlock(width, dtype=dtype, name=f'block_{level}_{i}')
        )
    self.blocks.extend(_middle(self.width, dtype))
    self.out = _NormSwishConv(
      _conv(self.width, dtype, 'conv'), dtype=dtype, name='out'
    )

  def build(self, input_shape=None):
    _build([self.stem, *self.blocks, self.out], 3)
    super().build(input_shape)

  def call(self, images: tf.Tensor) -> tf.Tensor:
    """Images `[batch, size, size, 3]` in [0, 1] to `[batch, codes, width]`."""
    x = tf.cast(2.0 * images - 1.0, self.compute_dtype)
    x = self.stem(x)
    for block in self.blocks:
      x = block(x)
    grid = self.image_size // self.patch_size
    return tf.reshape(self.out(x), [-1, grid**2, self.width])


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class CNNDecoder(layers.Layer):
  """Convolutions from the grid of the codes up to pixels.

  Args:
    image_size: Height and width of the images, in pixels.
    patch_size: As in `CNNEncoder`.
    channels: Output channels of a pixel.
    multiplier: As in `CNNEncoder`.
    **kwargs: Arguments of `tf.keras.layers.Layer`.

  Attributes:
    width: Channels of the input.
  """

  def __init__(
    self,
    image_size: int,
    patch_size: int,
    channels: int = 3,
    multiplier: float = 1.0,
    **kwargs,
  ):
    super().__init__(**kwargs)
    self.image_size = image_size
    self.patch_size = patch_size
    self.channels = channels
    self.multiplier = multiplier
    widths = _widths(patch_size, int(multiplier * CNN_CHANNELS))
    self.width = widths[-1]
    dtype = self.dtype_policy
    self.stem = _conv(self.width, dtype, 'stem')
    self.blocks = _middle(self.width, dtype)
    for level, width in reversed(list(enumerate(widths))):
      for i in range(_BLOCKS_PER_LEVEL + 1):
        self.blocks.append(
          _ResidualBlock(width, dtype=dtype, name=f'block_{level}_{i}')
        )
      if level:
        self.blocks.append(
          _Upsample(
            _conv(width, dtype, 'conv'), dtype=dtype, name=f'up_{level}'
          )
        )
    # Starts as plain gray, for the reason that ViTDecoder gives.
    self.to_pixels = _NormSwishConv(
      _conv(
        channels,
        dtype,
        'conv',
        kernel_initializer=tf.keras.initializers.TruncatedNormal(
          stddev=_PIXEL_STDDEV
        ),
        bias_initializer=tf.keras.initializers.Constant(
          0.5 if channels == 3 else 0.0
        ),
      ),
      dtype=dtype,
      name='to_pixels',
    )

  def build(self, input_shape=None):
    _build([self.stem, *self.blocks, self.to_pixels], self.width)
    super().build(input_shape)

  def call(self, x: tf.Tensor) -> tf.Tensor:
    """`[batch, codes, width]` to float32 `[batch, size, size, channels]`."""
    grid = self.image_size // self.patch_size
    x = self.stem(tf.reshape(x, [-1, grid, grid, self.width]))
    for block in self.blocks:
      x = block(x)
    return tf.cast(self.to_pixels(x), tf.float32)

  def start_from(self, color: tf.Tensor):
    """Makes an untrained decoder answer with one colour everywhere.

    Args:
      color: Outputs of a pixel's channels, `[channels]`.
    """
    self.to_pixels.conv.bias.assign(color)

  @property
  def last_layer(self) -> tf.Variable:
    """The kernel that adaptive adversarial weights are measured at."""
    return self.to_pixels.conv.kernel


class _NormSwishConv(tf.keras.layers.Layer):
  """GroupNorm and swish before a convolution."""

  def __init__(self, conv, **kwargs):
    super().__init__(**kwargs)
    self.conv = conv
    self.filters = conv.filters

  def build(self, input_shape):
    self.norm = _group_norm(input_shape[-1])
    self.norm.build(input_shape)
    self.conv.build(input_shape)
    super().build(input_shape)

  def call(self, x):
    x = tf.cast(self.norm(x), self.compute_dtype)
    return self.conv(tf.nn.silu(x))


class _ResidualBlock(tf.keras.layers.Layer):
  """Two convolutions beside a skip, which is linear if the width changes."""

  def __init__(self, filters, **kwargs):
    super().__init__(**kwargs)
    self.filters = filters
    dtype = self.dtype_policy
    self.first = _NormSwishConv(
      _conv(filters, dtype, 'conv'), dtype=dtype, name='first'
    )
    self.second = _NormSwishConv(
      _conv(filters, dtype, 'conv'), dtype=dtype, name='second'
    )

  def build(self, input_shape):
    channels = input_shape[-1]
    _build([self.first, self.second], channels)
    self.skip = None
    if channels != self.filters:
      self.skip = _conv(self.filters, self.dtype_policy, 'skip', kernel_size=1)
      self.skip.build(input_shape)
    super().build(input_shape)

  def call(self, x):
    skip = x if self.skip is None else self.skip(x)
    return skip + self.second(self.first(x))


class _AttentionBlock(tf.keras.layers.Layer):
  """Self-attention with one head between all positions of the grid."""

  def __init__(self, filters, **kwargs):
    super().__init__(**kwargs)
    self.filters = filters
    self.norm = _group_norm(filters)
    self.attention = attention.MultiHeadAttention(
      1, filters, dtype=self.dtype_policy, name='attention'
    )

  def build(self, input_shape):
    self.norm.build(input_shape)
    self.attention.build([None, None, self.filters])
    super().build(input_shape)

  def call(self, x):
    _, height, width, channels = x.shape
    y = tf.reshape(self.norm(x), [-1, height * width, channels])
    y = self.attention(y)
    return x + tf.reshape(y, [-1, height, width, channels])


class _Upsample(tf.keras.layers.Layer):
  """Doubles height and width by repetition, before a convolution."""

  def __init__(self, conv, **kwargs):
    super().__init__(**kwargs)
    self.conv = conv
    self.filters = conv.filters

  def build(self, input_shape):
    self.conv.build(input_shape)
    super().build(input_shape)

  def call(self, x):
    return self.conv(tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2))


def _widths(patch_size, channels):
  """Channels of each resolution, from the image down to the codes."""
  multipliers = _LEVEL_MULTIPLIERS[patch_size.bit_length() - 1]
  return [channels * m for m in multipliers]


def _middle(width, dtype):
  """What VQGAN has at the codes' grid on either side of the codes."""
  return [
    _ResidualBlock(width, dtype=dtype, name='middle_0'),
    _AttentionBlock(width, dtype=dtype, name='middle_attention'),
    _ResidualBlock(width, dtype=dtype, name='middle_1'),
  ]


def _conv(filters, dtype, name, kernel_size=3, strides=1, **kwargs):
  """A convolution that starts as PyTorch's do, with which VQGAN was trained."""
  initializer = tf.keras.initializers.VarianceScaling(
    1 / 3, mode='fan_in', distribution='uniform'
  )
  return tf.keras.layers.Conv2D(
    filters,
    kernel_size,
    strides=strides,
    padding='same',
    dtype=dtype,
    name=name,
    **{'kernel_initializer': initializer, **kwargs},
  )


def _group_norm(channels):
  """A GroupNorm that computes in float32, its input's dtype whatever."""
  return tf.keras.layers.GroupNormalization(
    math.gcd(_NORM_GROUPS, channels),
    epsilon=_NORM_EPSILON,
    dtype='float32',
    name='norm',
  )


def _build(chain, channels):
  """Makes the variables of layers that follow each other."""
  for layer in chain:
    layer.build([None, None, None, channels])
    channels = layer.filters
