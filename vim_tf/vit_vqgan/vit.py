"""The ViT backbone of stage 1: patches to features and back (paper 3.1)."""

import tensorflow as tf

from vim_tf.config import TransformerConfig
from vim_tf.nn import layers, positions, transformer

_PIXEL_STDDEV = 0.02 * layers.INIT_STDDEV


class _Side(layers.Layer):
  """What encoder and decoder share: their settings, and a Transformer.

  Args:
    config: Sizes of the Transformer.
    image_size: Height and width of the images, in pixels.
    patch_size: Height and width of a patch, in pixels.
    position_kind: A kind of `positions.GridPositions`.
    output_mlp: Whether a two-layer MLP with tanh follows the blocks. The
      paper's wording leaves its place open; after the stack it explains the
      published 91M parameters of the Base size.
    recompute: See `transformer.Transformer`.
    **kwargs: Arguments of `tf.keras.layers.Layer`.
  """

  def __init__(
    self,
    config: TransformerConfig,
    image_size: int,
    patch_size: int,
    position_kind: str = 'learned',
    output_mlp: bool = True,
    recompute: bool = False,
    **kwargs,
  ):
    super().__init__(**kwargs)
    self.config = config
    self.image_size = image_size
    self.patch_size = patch_size
    self.position_kind = position_kind
    self.output_mlp = output_mlp
    self.recompute = recompute
    self.width = config.width

  def _new_trunk(self, float32_stream: bool = False) -> '_Trunk':
    return _Trunk(
      self.config,
      self.image_size // self.patch_size,
      self.position_kind,
      self.output_mlp,
      self.recompute,
      float32_stream,
      dtype=self.dtype_policy,
      name='trunk',
    )

  def build(self, input_shape=None):
    self.trunk.build([None, None, self.width])
    super().build(input_shape)


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class ViTEncoder(_Side):
  """Non-overlapping patches through a Transformer; for arguments see `_Side`.

  Under a bfloat16 policy the blocks compute in bfloat16, but what they add up,
  and all that comes before and after them, stays float32: each rounding there
  would move features as far as all roundings within the blocks do, and codes
  change where two of them are nearly as near.
  """

  def __init__(self, *args, **kwargs):
    # Keras would round the images to bfloat16 before they are centred.
    super().__init__(*args, **{'autocast': False, **kwargs})
    self.embed = layers.dense(
      self.width, 3 * self.patch_size**2, 'float32', 'patch_embedding'
    )
    self.trunk = self._new_trunk(float32_stream=True)

  def call(self, images: tf.Tensor) -> tf.Tensor:
    """Images `[batch, size, size, 3]` in [0, 1] to `[batch, codes, width]`.

    The output is float32.
    """
    x = 2.0 * tf.cast(images, tf.float32) - 1.0
    x = tf.nn.space_to_depth(x, self.patch_size)
    x = tf.reshape(x, [-1, x.shape[1] * x.shape[2], x.shape[3]])
    return self.trunk(self.embed(x))


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class ViTDecoder(_Side):
  """The mirror of `ViTEncoder`: features through a Transformer to pixels.

  Args:
    *args: See `_Side`.
    channels: Output channels of a pixel.
    **kwargs: See `_Side`.
  """

  def __init__(self, *args, channels: int = 3, **kwargs):
    super().__init__(*args, **kwargs)
    self.channels = channels
    self.trunk = self._new_trunk()
    # Starts as plain gray (0.5, or sigmoid(0) with logit-laplace): the noise of
    # untrained features would be the larger part of the first errors.
    self.to_pixels = layers.dense(
      channels * self.patch_size**2,
      self.width,
      self.dtype_policy,
      'to_pixels',
      stddev=_PIXEL_STDDEV,
      bias=0.5 if channels == 3 else 0.0,
    )

  def call(self, x: tf.Tensor) -> tf.Tensor:
    """`[batch, codes, width]` to float32 `[batch, size, size, channels]`."""
    grid = self.image_size // self.patch_size
    x = self.to_pixels(self.trunk(x))
    x = tf.reshape(x, [-1, grid, grid, x.shape[-1]])
    return tf.cast(tf.nn.depth_to_space(x, self.patch_size), tf.float32)

  def start_from(self, color: tf.Tensor):
    """Makes an untrained decoder answer with one colour everywhere.

    Args:
      color: Outputs of a pixel's channels, `[channels]`.
    """
    self.to_pixels.bias.assign(tf.tile(color, [self.patch_size**2]))

  @property
  def last_layer(self) -> tf.Variable:
    """The kernel that adaptive adversarial weights are measured at."""
    return self.to_pixels.kernel


class _Trunk(tf.keras.layers.Layer):
  """Positions, blocks and the output MLP: the same in both directions."""

  def __init__(
    self,
    config,
    grid_size,
    position_kind,
    output_mlp,
    recompute,
    float32_stream=False,
    **kwargs,
  ):
    super().__init__(**{'autocast': not float32_stream, **kwargs})
    dtype = 'float32' if float32_stream else self.dtype_policy
    self.positions = positions.GridPositions(
      grid_size, position_kind, dtype=dtype, name='positions'
    )
    self.transformer = transformer.Transformer(
      config,
      recompute=recompute,
      float32_stream=float32_stream,
      grid_size=grid_size,
      dtype=self.dtype_policy,
      name='transformer',
    )
    self.output_mlp = None
    if output_mlp:
      self.output_mlp = transformer.MLP(
        config.mlp_width, 'tanh', dtype=dtype, name='output_mlp'
      )

  def build(self, input_shape):
    self.positions.build(input_shape)
    self.transformer.build(input_shape)
    if self.output_mlp is not None:
      self.output_mlp.build(input_shape)
    super().build(input_shape)

  def call(self, x):
    x = self.transformer(self.positions(x))
    return x if self.output_mlp is None else self.output_mlp(x)
