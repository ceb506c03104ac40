"""The discriminator of pix2pix (Isola et al., 2017) and VQGAN (Table 4)."""

import math

import tensorflow as tf

from vim_tf.nn import layers
from vim_tf.vit_vqgan import stylegan2

_STRIDED = 3  # Convolutions of stride 2, as in VQGAN.


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class PatchGANDiscriminator(layers.SizedModel):
  """Judges patches.

  4x4 convolutions with leaky ReLU; each logit judges a patch of the image, of
  70x70 pixels at the default depth. Where VQGAN normalises over the batch,
  this uses group normalisation: its statistics are of one image, so neither
  the number of replicas nor the mixture of a batch changes a logit.

  Args:
    image_size: Height and width of the images, in pixels.
    channel_multiplier: Factor of all channel numbers; 1 is 64 to 512.
    **kwargs: Arguments of `tf.keras.Model`.
  """

  def __init__(
    self, image_size: int, channel_multiplier: float = 1.0, **kwargs
  ):
    super().__init__(autocast=False, **kwargs)
    self.image_size = image_size
    self.channel_multiplier = channel_multiplier
    policy = self.dtype_policy
    self.convs, self.norms = [], []
    for i in range(_STRIDED + 1):
      channels = max(1, round(64 * channel_multiplier * min(2**i, 8)))
      self.convs.append(
        tf.keras.layers.Conv2D(
          channels,
          4,
          strides=2 if i < _STRIDED else 1,
          use_bias=i == 0,  # Elsewhere the norm has one.
          kernel_initializer=tf.keras.initializers.RandomNormal(stddev=0.02),
          dtype=policy,
          name=f'conv_{i}',
        )
      )
      if i:
        self.norms.append(
          tf.keras.layers.GroupNormalization(
            math.gcd(32, channels), dtype='float32', name=f'norm_{i}'
          )
        )
    self.logits = tf.keras.layers.Conv2D(
      1,
      4,
      kernel_initializer=tf.keras.initializers.RandomNormal(stddev=0.02),
      dtype=policy,
      name='logits',
    )

  def build(self, input_shape=None):
    channels = 3
    for i, conv in enumerate(self.convs):
      conv.build([None, None, None, channels])
      channels = conv.filters
      if i:
        self.norms[i - 1].build([None, None, None, channels])
    self.logits.build([None, None, None, channels])
    self.built = True

  def call(self, images: tf.Tensor) -> tf.Tensor:
    """Images `[batch, size, size, 3]` in [0, 1] to a float32 map of logits.

    Args:
      images: `[batch, size, size, 3]` in [0, 1].

    Returns:
      float32 `[batch, n, n]`, n = size / 8 - 2 for the usual sizes;
      the losses average over the map.
    """
    pad = [[0, 0], [1, 1], [1, 1], [0, 0]]
    x = tf.cast(2.0 * images - 1.0, self.compute_dtype)
    for i, conv in enumerate(self.convs):
      x = conv(tf.pad(x, pad))
      if i:
        x = self.norms[i - 1](x)
      x = stylegan2.leaky_relu(tf.cast(x, self.compute_dtype))
    return tf.cast(self.logits(tf.pad(x, pad))[..., 0], tf.float32)
