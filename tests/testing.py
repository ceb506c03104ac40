"""What the tests share: tiny configs, and one conformance list for all layers.

`check_layer` holds a layer to the contracts that every layer of the project
has, whatever it computes: it can be rebuilt from its config, saved and loaded,
and gives the same result eagerly, as a graph, under XLA and, nearly, in
bfloat16.
"""

from collections.abc import Callable
import contextlib
import json
import os
import pathlib
import shutil
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import random_seed

from vim_tf import config as config_lib
from vim_tf.data import images


def transformer_config(**kwargs) -> config_lib.TransformerConfig:
  """Two blocks of width 16, with two heads."""
  sizes = {'num_blocks': 2, 'num_heads': 2, 'width': 16, 'mlp_width': 32}
  return config_lib.TransformerConfig(**{**sizes, **kwargs})


def vit_vqgan_config(**kwargs) -> config_lib.ViTVQGANConfig:
  """Images of 8 pixels, 2 x 2 codes out of 16."""
  sizes = {
    'encoder': transformer_config(),
    'decoder': transformer_config(),
    'image_size': 8,
    'patch_size': 4,
    'codebook_size': 16,
    'code_dim': 4,
  }
  return config_lib.ViTVQGANConfig(**{**sizes, **kwargs})


def vim_config(**kwargs) -> config_lib.VIMConfig:
  """3 x 3 codes out of 11, and 5 classes."""
  sizes = {
    'transformer': transformer_config(),
    'grid_size': 3,
    'codebook_size': 11,
    'num_classes': 5,
  }
  return config_lib.VIMConfig(**{**sizes, **kwargs})


def randomize(layer: tf.keras.layers.Layer, seed: int = 0, scale: float = 0.3):
  """Sets every weight at random, also those that start at zero or one.

  A bias of zero or a position of 0.02 would hide that it is left out.

  Args:
    layer: A built layer or model.
    seed: The same seed gives layers of the same sizes the same weights.
    scale: Standard deviation of the weights; those of norms are around 1.
  """
  rng = np.random.default_rng(seed)
  for weight in layer.weights:
    mean = 1.0 if 'gamma' in weight.name else 0.0
    weight.assign(rng.normal(mean, scale, weight.shape))


@contextlib.contextmanager
def one_thread_an_operation(count: int):
  """What is made within it takes operations to have one thread each.

  Args:
    count: How many of them run at once.
  """
  threads = tf.config.threading
  with (
    mock.patch.object(threads, 'get_intra_op_parallelism_threads', lambda: 1),
    mock.patch.object(
      threads, 'get_inter_op_parallelism_threads', lambda: count
    ),
  ):
    yield


class Descent:
  """An optimizer that compiles fast: what it changes is the gradient itself.

  Args:
    variables: What it updates.
  """

  RATE = 0.01

  def __init__(self, variables):
    self._variables = list(variables)

  def apply(self, gradients):
    for variable, gradient in zip(self._variables, gradients, strict=True):
      variable.assign_sub(self.RATE * gradient)
    return {'gradient_norm': tf.linalg.global_norm(gradients)}


def new_folder(name: str) -> pathlib.Path:
  """An empty folder, for what a whole class of tests or a process shares."""
  folder = pathlib.Path(tf.compat.v1.test.get_temp_dir()) / name
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)
  return folder


def main(devices: int = 2):
  """As `tf.test.main`, with several devices of the CPU for replicas."""
  tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices('CPU')[0],
    [tf.config.LogicalDeviceConfiguration()] * devices,
  )
  tf.test.main()


class TestCase(tf.test.TestCase):
  """A test case whose functions stay ready from one test to the next.

  TensorFlow's own sets the seed of everything before each test, which throws
  away what was made ready of every function; nothing here may need that seed.
  """

  def setUp(self):
    with mock.patch.object(random_seed, 'set_random_seed'):
      super().setUp()


@contextlib.contextmanager
def eagerly():
  """Runs every `tf.function` op by op, and reads plain pictures alone.

  For tests of what surrounds a training, not of its steps: to trace and to
  optimise a graph takes far longer than the few steps that it then runs. And
  the graph that decodes odd pictures, too, is made ready for each data set.
  """
  tf.config.run_functions_eagerly(True)
  try:
    with mock.patch.object(images, '_decode_square', _decode_square):
      yield
  finally:
    tf.config.run_functions_eagerly(False)


def _decode_square(encoded: tf.Tensor, size: int) -> tf.Tensor:
  pixels = tf.io.decode_image(encoded, 3, expand_animations=False)
  pixels.set_shape([None, None, 3])
  pixels = images.center_crop(pixels)
  return images.to_uint8(images.resize(images.from_uint8(pixels), size))


def check_layer(
  test_case: tf.test.TestCase,
  make_layer: Callable[..., tf.keras.layers.Layer],
  inputs: tuple,
  *,
  atol: float = 1e-5,
  bfloat16_atol: float = 0.1,
  compared: Callable[[Any], Any] = lambda outputs: outputs,
):
  """Holds a layer or model to what all of them must do.

  Args:
    test_case: The test that fails.
    make_layer: Makes the layer; takes `dtype` as a keyword.
    inputs: Positional arguments of the layer's call.
    atol: Largest difference of graph and XLA from the eager result.
    bfloat16_atol: Largest difference of mixed_bfloat16 from float32.
    compared: Picks the outputs that bfloat16 leaves continuous.
  """
  layer = make_layer()
  layer(*inputs)  # Builds it.
  randomize(layer)
  expected = layer(*inputs)
  path = os.path.join(test_case.create_tempdir().full_path, 'weights')
  tf.train.Checkpoint(layer=layer).write(path)
  with test_case.subTest('config'):
    _check_config(test_case, layer)
  with test_case.subTest('keras_file'):
    check_saved(test_case, layer, inputs)
  with test_case.subTest('save_and_load'):
    copy = _load(type(layer).from_config(layer.get_config()), inputs, path)
    _check_close(test_case, copy(*inputs), expected, atol=0.0)
  with test_case.subTest('function'):
    found = tf.function(lambda *args: layer(*args), autograph=False)(*inputs)
    _check_close(test_case, found, expected, atol)
  with test_case.subTest('xla'):
    found = tf.function(
      lambda *args: layer(*args), jit_compile=True, autograph=False
    )(*inputs)
    _check_close(test_case, found, expected, atol)
  with test_case.subTest('bfloat16'):
    half = _load(make_layer(dtype='mixed_bfloat16'), inputs, path)
    for weight in half.weights:
      test_case.assertEqual(weight.dtype, tf.float32, weight.name)
    _check_config(test_case, half)
    _check_close(
      test_case, compared(half(*inputs)), compared(expected), bfloat16_atol
    )


@tf.keras.saving.register_keras_serializable(package='vim_tf_tests')
class _Around(tf.keras.Model):
  """A model around a layer, as Keras saves models alone."""

  def __init__(self, layer, **kwargs):
    super().__init__(**kwargs)
    self.layer = layer
    self.built = True

  def call(self, *inputs):
    return self.layer(*inputs)

  def get_config(self):
    return {'layer': tf.keras.saving.serialize_keras_object(self.layer)}

  @classmethod
  def from_config(cls, config, custom_objects=None):
    return cls(tf.keras.saving.deserialize_keras_object(config['layer']))


def check_saved(
  test_case: tf.test.TestCase, layer: tf.keras.layers.Layer, inputs: tuple
):
  """Checks that a `.keras` file gives back a built layer or model."""
  path = os.path.join(test_case.create_tempdir().full_path, 'm.keras')
  is_model = isinstance(layer, tf.keras.Model)
  (layer if is_model else _Around(layer)).save(path)
  loaded = tf.keras.models.load_model(path)
  copy = loaded if is_model else loaded.layer
  test_case.assertIs(type(copy), type(layer))
  test_case.assertEqual(copy.get_config(), layer.get_config())
  for one, other in zip(copy.weights, layer.weights, strict=True):
    test_case.assertAllEqual(one, other, other.name)
  _check_close(test_case, copy(*inputs), layer(*inputs), atol=0.0)
  if is_model:  # Weights alone, into a model that has others.
    path = path.replace('.keras', '.weights.h5')
    layer.save_weights(path)
    randomize(copy, seed=1)
    copy.load_weights(path)
    for one, other in zip(copy.weights, layer.weights, strict=True):
      test_case.assertAllEqual(one, other, other.name)


def _check_config(test_case, layer):
  config = layer.get_config()
  json.dumps(config)  # What is not JSON cannot be saved.
  copy = type(layer).from_config(config)
  test_case.assertEqual(copy.get_config(), config)
  test_case.assertEqual(copy.dtype_policy.name, layer.dtype_policy.name)


def _load(layer, inputs, path):
  """Reads weights into a layer, which must have exactly those."""
  layer(*inputs)
  checkpoint = tf.train.Checkpoint(layer=layer)
  status = checkpoint.read(path)
  status.assert_consumed()
  return layer


def _check_close(test_case, found, expected, atol):
  tf.nest.assert_same_structure(found, expected)
  for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(expected)):
    test_case.assertEqual(one.shape, other.shape)
    one = tf.cast(one, tf.float32)
    test_case.assertAllEqual(tf.math.is_finite(one), tf.ones_like(one, bool))
    test_case.assertAllClose(
      one, tf.cast(other, tf.float32), atol=atol, rtol=atol
    )
