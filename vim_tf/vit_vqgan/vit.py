"""The ViT backbone of stage 1: patches to features and back (paper 3.1)."""

import tensorflow as tf

from vim_tf.config import TransformerConfig, ViTVQGANConfig
from vim_tf.nn import layers, positions, transformer

_PIXEL_STDDEV = 0.02 * layers.INIT_STDDEV


class _Side(layers.Layer):
  """What encoder and decoder share: their settings, and a Transformer.

  Args:
    config: Every size of the model.
    recompute: See `transformer.Transformer`.
    **kwargs: Arguments of `tf.keras.layers.Layer`.
  """

  config_class = ViTVQGANConfig

  def __init__(self, config: ViTVQGANConfig, recompute=False, **kwargs):
    super().__init__(**kwargs)
    self.config = config
    self.recompute = recompute

  def _new_trunk(self, sizes: TransformerConfig, float32_stream=False):
    return _Trunk(
      self.config,
      sizes,
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
    self.width = self.config.encoder.width
    self.embed = layers.dense(
      self.width, 3 * self.config.patch_size**2, 'float32', 'patch_embedding'
    )
    self.trunk = self._new_trunk(self.config.encoder, float32_stream=True)

  def call(self, images: tf.Tensor) -> tf.Tensor:
    """Images `[batch, size, size, 3]` in [0, 1] to `[batch, codes, width]`.

    The output is float32.
    """
    x = 2.0 * tf.cast(images, tf.float32) - 1.0
    x = tf.nn.space_to_depth(x, self.config.patch_size)
    x = tf.reshape(x, [-1, x.shape[1] * x.shape[2], x.shape[3]])
    return self.trunk(self.embed(x))


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class ViTDecoder(_Side):
  """The mirror of `ViTEncoder`: features through a Transformer to pixels.

  A pixel has 6 channels with logit-laplace outputs, and 3 without.
  """

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    config = self.config
    self.width = config.decoder.width
    self.trunk = self._new_trunk(config.decoder)
    channels = 6 if config.logit_laplace else 3
    # Starts as plain gray (0.5, or sigmoid(0) with logit-laplace): the noise of
    # untrained features would be the larger part of the first errors.
    self.to_pixels = layers.dense(
      channels * config.patch_size**2,
      self.width,
      self.dtype_policy,
      'to_pixels',
      stddev=_PIXEL_STDDEV,
      bias=0.0 if config.logit_laplace else 0.5,
    )

  def call(self, x: tf.Tensor) -> tf.Tensor:
    """`[batch, codes, width]` to float32 `[batch, size, size, channels]`."""
    grid = self.config.grid_size
    x = self.to_pixels(self.trunk(x))
    x = tf.reshape(x, [-1, grid, grid, x.shape[-1]])
    x = tf.nn.depth_to_space(x, self.config.patch_size)
    return tf.cast(x, tf.float32)

  def start_from(self, color: tf.Tensor):
    """Makes an untrained decoder answer with one colour everywhere.

    Args:
      color: Outputs of a pixel's channels, `[channels]`.
    """
    self.to_pixels.bias.assign(tf.tile(color, [self.config.patch_size**2]))

  @property
  def last_layer(self) -> tf.Variable:
    """The kernel that adaptive adversarial weights are measured at."""
    return self.to_pixels.kernel


class _Trunk(tf.keras.layers.Layer):
  """Positions, blocks and the output MLP: the same in both directions.

  The paper's wording leaves the MLP's place open; after the stack it explains
  the published 91M parameters of the Base size.
  """

  def __init__(
    self,
    config: ViTVQGANConfig,
    sizes: TransformerConfig,
    recompute: bool,
    float32_stream: bool,
    **kwargs,
  ):
    super().__init__(**{'autocast': not float32_stream, **kwargs})
    dtype = 'float32' if float32_stream else self.dtype_policy
    self.positions = positions.GridPositions(
      config.grid_size, config.positions, dtype=dtype, name='positions'
    )
    self.transformer = transformer.Transformer(
      sizes,
      recompute=recompute,
      float32_stream=float32_stream,
      grid_size=config.grid_size,
      dtype=self.dtype_policy,
      name='transformer',
    )
    self.output_mlp = None
    if config.output_mlp:
      self.output_mlp = transformer.MLP(
        sizes.mlp_width, 'tanh', dtype=dtype, name='output_mlp'
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
