"""The discriminator of StyleGAN2 (Karras et al., 2020), as NVlabs has it.

The paper's authors advise to keep to it (3.3). It is made of ordinary
TensorFlow operations: it computes in bfloat16, compiles with XLA, and can be
differentiated twice, as the R1 penalty needs.
"""

import math

import tensorflow as tf

from vim_tf.nn import layers

BLUR = (1, 3, 3, 1)
_LEAKINESS = 0.2


def leaky_relu(x: tf.Tensor) -> tf.Tensor:
  """Leaky ReLU of slope 0.2."""
  # Not tf.nn.leaky_relu: Grappler fuses it with the convolution although its
  # gradient needs what lies between, fails, and drops all other fusions of the
  # graph. This form also has the faster gradient in bfloat16.
  return _LEAKINESS * x + (1.0 - _LEAKINESS) * tf.nn.relu(x)


def blur(x: tf.Tensor, padding: int) -> tf.Tensor:
  """Filters every channel with the outer product of [1, 3, 3, 1] / 8.

  One depthwise convolution of stride 1, as NVlabs has it, with the stride left
  to the convolution that follows: on CPUs that is faster than a strided blur
  (whose gradient is slow in bfloat16), than folding the blur into a 6x6 kernel
  and than average poolings.

  Args:
    x: `[batch, height, width, channels]`.
    padding: Zeros put on each of the four sides.

  Returns:
    `[batch, height + 2 padding - 3, width + 2 padding - 3, channels]`.
  """
  taps = tf.constant(BLUR, x.dtype) / sum(BLUR)
  kernel = (taps[:, None] * taps[None, :])[:, :, None, None]
  # Padded apart: with explicit padding the gradient is slow in bfloat16.
  return tf.nn.depthwise_conv2d(
    tf.pad(x, [[0, 0], [padding, padding], [padding, padding], [0, 0]]),
    tf.tile(kernel, [1, 1, x.shape[-1], 1]),
    strides=[1, 1, 1, 1],
    padding='VALID',
  )


def minibatch_stddev(x: tf.Tensor, group_size: int = 4) -> tf.Tensor:
  """Appends one channel: how much the images of a group differ (Karras, 2018).

  The batch falls into groups of `group_size`, or of the largest smaller number
  that divides it: a batch below the group size is one group. With M groups,
  image i is in group i mod M (as NVlabs has it). The standard deviation over
  the group, averaged over positions and channels, fills the new channel.

  The batch is what one replica sees: under a distribution strategy the groups
  are formed within each replica, so the same images spread over more replicas
  are grouped otherwise, and give other logits.

  Args:
    x: `[batch, height, width, channels]` with a static batch.
    group_size: Most images of a group.

  Returns:
    `[batch, height, width, channels + 1]`; statistics in float32.
  """
  batch, height, width, channels = x.shape
  group = max(n for n in range(1, group_size + 1) if batch % n == 0)
  y = tf.reshape(  # [group, groups, height * width * channels]
    tf.cast(x, tf.float32), [group, batch // group, height * width * channels]
  )
  variance = tf.math.reduce_variance(y, axis=0)
  deviation = tf.reduce_mean(tf.sqrt(variance + 1e-8), axis=-1)  # [groups]
  deviation = tf.tile(deviation, [group])[:, None, None, None]  # [batch, ...]
  deviation = tf.broadcast_to(deviation, [batch, height, width, 1])
  return tf.concat([x, tf.cast(deviation, x.dtype)], axis=-1)


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class EqualizedConv2D(layers.Layer):
  """Convolution with the equalised learning rate of StyleGAN.

  The kernel is drawn from N(0, 1) and scaled by 1 / sqrt(fan in) when it is
  used, so that Adam's steps are of the same relative size in every layer. The
  output is gain * leaky_relu(conv(x) + bias).

  Args:
    filters: Output channels.
    kernel_size: 1 or 3.
    downsample: Whether to blur and to halve height and width (both even).
    activate: Whether leaky ReLU of slope 0.2 follows.
    use_bias: Whether there is a bias, which starts at 0.
    gain: Factor of the output; sqrt(2) keeps the variance through leaky ReLU.
    **kwargs: Arguments of `tf.keras.layers.Layer`.
  """

  def __init__(
    self,
    filters: int,
    kernel_size: int = 3,
    downsample: bool = False,
    activate: bool = True,
    use_bias: bool = True,
    gain: float = math.sqrt(2.0),
    **kwargs,
  ):
    super().__init__(**kwargs)
    self.filters = filters
    self.kernel_size = kernel_size
    self.downsample = downsample
    self.activate = activate
    self.use_bias = use_bias
    self.gain = gain

  def build(self, input_shape):
    size, channels = self.kernel_size, input_shape[-1]
    self.kernel = self.add_weight(
      'kernel',
      [size, size, channels, self.filters],
      initializer=tf.keras.initializers.RandomNormal(stddev=1.0),
    )
    if self.use_bias:
      self.bias = self.add_weight('bias', [self.filters], initializer='zeros')
    # Leaky ReLU commutes with a positive factor, so the gain costs nothing.
    self.scale = self.gain / math.sqrt(size**2 * channels)
    super().build(input_shape)

  def call(self, x):
    kernel = self.kernel * self.scale
    if self.downsample:
      # Blur and convolution together lose 3 + (size - 1) rows and columns of
      # what is padded, and the stride the last odd one.
      x = blur(x, (self.kernel_size + 1) // 2)
      x = tf.nn.conv2d(x, kernel, 2, 'VALID')
    else:
      x = tf.nn.conv2d(x, kernel, 1, 'SAME')
    if self.use_bias:
      x = x + self.bias * self.gain
    return leaky_relu(x) if self.activate else x


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class EqualizedDense(layers.Layer):
  """Dense layer with the equalised learning rate, see `EqualizedConv2D`.

  Args:
    units: Width of the output.
    activate: Whether leaky ReLU of slope 0.2, times sqrt(2), follows.
    **kwargs: Arguments of `tf.keras.layers.Layer`.
  """

  def __init__(self, units: int, activate: bool = False, **kwargs):
    super().__init__(**kwargs)
    self.units = units
    self.activate = activate

  def build(self, input_shape):
    width = input_shape[-1]
    self.kernel = self.add_weight(
      'kernel',
      [width, self.units],
      initializer=tf.keras.initializers.RandomNormal(stddev=1.0),
    )
    self.bias = self.add_weight('bias', [self.units], initializer='zeros')
    self.scale = 1.0 / math.sqrt(width)
    super().build(input_shape)

  def call(self, x):
    kernel = self.kernel * self.scale
    x = tf.matmul(x, kernel) + self.bias
    if self.activate:
      x = math.sqrt(2.0) * leaky_relu(x)
    return x


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class ResidualBlock(layers.Layer):
  """Two convolutions and a skip, both halving: (x + skip) / sqrt(2).

  Args:
    filters: Output channels.
    **kwargs: Arguments of `tf.keras.layers.Layer`.
  """

  def __init__(self, filters: int, **kwargs):
    super().__init__(**kwargs)
    self.filters = filters

  def build(self, input_shape):
    policy = self.dtype_policy
    self.first = EqualizedConv2D(input_shape[-1], dtype=policy, name='first')
    # The division of the sum by sqrt(2) is part of the two gains.
    self.second = EqualizedConv2D(
      self.filters, downsample=True, gain=1.0, dtype=policy, name='second'
    )
    self.skip = EqualizedConv2D(
      self.filters,
      kernel_size=1,
      downsample=True,
      activate=False,
      use_bias=False,
      gain=math.sqrt(0.5),
      dtype=policy,
      name='skip',
    )
    for layer in (self.first, self.second, self.skip):
      layer.build(input_shape)
    super().build(input_shape)

  def call(self, x):
    return self.second(self.first(x)) + self.skip(x)


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class StyleGAN2Discriminator(layers.SizedModel):
  """The residual discriminator of StyleGAN2.

  At a resolution r there are min(max_channels, multiplier * 32768 / r)
  channels; at multiplier 1 these are NVlabs' of config F.

  Args:
    image_size: Height and width of the images, in pixels: 4, 5, 6 or 7 times
      a power of two.
    channel_multiplier: Factor of the channels before the cap; 1 is StyleGAN2,
      1 / 32 leaves 16 at 64 pixels and 256 at 4.
    max_channels: Most channels of a layer.
    stddev_group: Most images of a group of `minibatch_stddev`; 0 leaves the
      extra channel out.
    **kwargs: Arguments of `tf.keras.Model`.
  """

  def __init__(
    self,
    image_size: int,
    channel_multiplier: float = 1.0,
    max_channels: int = 512,
    stddev_group: int = 4,
    **kwargs,
  ):
    super().__init__(autocast=False, **kwargs)
    self.image_size = image_size
    self.channel_multiplier = channel_multiplier
    self.max_channels = max_channels
    self.stddev_group = stddev_group
    policy = self.dtype_policy
    self.from_rgb = EqualizedConv2D(
      self._channels(image_size), 1, dtype=policy, name='from_rgb'
    )
    self.blocks = []
    size = image_size
    while size > 7:
      size //= 2
      self.blocks.append(
        ResidualBlock(self._channels(size), dtype=policy, name=f'block_{size}')
      )
    self.final_conv = EqualizedConv2D(
      self._channels(size), dtype=policy, name='final_conv'
    )
    self.hidden = EqualizedDense(
      self._channels(size), activate=True, dtype=policy, name='hidden'
    )
    self.logit = EqualizedDense(1, dtype='float32', name='logit')

  def _channels(self, resolution: int) -> int:
    channels = round(self.channel_multiplier * 32768 / resolution)
    return max(1, min(self.max_channels, channels))

  def build(self, input_shape=None):
    size = self.image_size
    self.from_rgb.build([None, size, size, 3])
    for block in self.blocks:
      block.build([None, size, size, self._channels(size)])
      size //= 2
    channels = self._channels(size)
    extra = 1 if self.stddev_group else 0
    self.final_conv.build([None, size, size, channels + extra])
    self.hidden.build([None, size**2 * channels])
    self.logit.build([None, channels])
    self.built = True

  def call(self, images: tf.Tensor) -> tf.Tensor:
    """Images `[batch, size, size, 3]` in [0, 1] to float32 logits `[batch]`."""
    x = tf.cast(2.0 * images - 1.0, self.compute_dtype)
    x = self.from_rgb(x)
    for block in self.blocks:
      x = block(x)
    if self.stddev_group:
      x = minibatch_stddev(x, self.stddev_group)
    x = self.final_conv(x)
    x = tf.reshape(x, [-1, math.prod(x.shape[1:])])
    return self.logit(self.hidden(x))[:, 0]
