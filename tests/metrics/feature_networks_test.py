"""Tests of the registry of networks, on models that are saved and loaded."""

import os
import shutil

import numpy as np
import tensorflow as tf

from vim_tf.metrics import efficientnet_lite, feature_networks


def _images(batch=3, size=12):
  rng = np.random.default_rng(0)
  return rng.uniform(size=[batch, size, size, 3]).astype(np.float32)


class _Module(tf.Module):
  """Gives the mean color, and a logit made of it."""

  def __init__(self, keys, size=None, pooled=False):
    super().__init__()
    self._keys = keys
    self._pooled = pooled
    self._function = tf.function(
      self._call,
      input_signature=[tf.TensorSpec([None, size, size, 3], tf.float32)],
    )

  @property
  def function(self):
    return self._function

  def _call(self, images):
    color = tf.reduce_mean(images, axis=[1, 2], keepdims=self._pooled)
    logits = tf.reshape(color, [-1, 3])[:, :2]
    return dict(zip(self._keys, (color, logits)))


class _Saved(tf.Module):
  """What is callable after loading."""

  def __init__(self, inner):
    super().__init__()
    self.inner = inner
    self.__call__ = inner.function


class FeatureNetworksTest(tf.test.TestCase):
  def _path(self, name):
    return os.path.join(self.create_tempdir().full_path, name)

  def test_default_is_efficientnet_lite0(self):
    network = feature_networks.load()
    self.assertEqual(network.name, 'efficientnet_lite0')
    self.assertIn(efficientnet_lite.VARIANTS[0].sha256, network.source)
    images = _images(batch=3)
    features, logits = feature_networks.run(network, [images[:2], images[2:]])
    expected = efficientnet_lite.build()(efficientnet_lite.preprocess(images))
    self.assertAllClose((features, logits), expected, atol=1e-4)
    self.assertEqual(features.shape, (3, efficientnet_lite.NUM_FEATURES))

  def test_efficientnet_lite2_is_another_network(self):
    network = feature_networks.load('efficientnet_lite2')
    self.assertEqual(network.name, 'efficientnet_lite2')
    self.assertNotEqual(network.source, feature_networks.load().source)
    features, logits = network(_images(batch=1))
    self.assertEqual(logits.shape, (1, efficientnet_lite.NUM_CLASSES))
    others, _ = feature_networks.load()(_images(batch=1))
    self.assertNotAllClose(features, others)

  def test_keras_model_from_a_file(self):
    inputs = tf.keras.Input([None, None, 3])
    pooled = tf.keras.layers.GlobalAveragePooling2D()(inputs)
    path = self._path('mean color-1.keras')
    tf.keras.Model(inputs, pooled).save(path)
    network = feature_networks.load(f'file:{path}')
    self.assertEqual(network.name, 'file_mean_color_1')
    features, logits = feature_networks.run(network, [_images()])
    self.assertAllClose(features, _images().mean((1, 2)))
    self.assertIsNone(logits)

  def test_saved_model_and_its_hash(self):
    path = self._path('model')
    module = _Saved(_Module(['features', 'logits']))
    tf.saved_model.save(module, path)
    network = feature_networks.load(f'file:{path}')
    features, logits = network(_images())
    self.assertAllClose(features, _images().mean((1, 2)))
    self.assertAllClose(logits, features[:, :2])
    # The same files elsewhere are the same network; others are another.
    moved = self._path('other')
    shutil.copytree(path, moved)
    self.assertEqual(
      feature_networks.load(f'file:{moved}').source, network.source
    )
    with open(os.path.join(moved, 'assets', 'note'), 'w') as f:
      f.write('more')
    self.assertNotEqual(
      feature_networks.load(f'file:{moved}').source, network.source
    )

  def test_saved_model_without_features_is_refused(self):
    path = self._path('model')
    tf.saved_model.save(_Saved(_Module(['pool', 'logits'])), path)
    network = feature_networks.load(f'file:{path}')
    with self.assertRaisesRegex(ValueError, "logits, pool, but.*'features'"):
      network(_images())

  def test_inception_from_a_folder_gets_its_size_and_range(self):
    path = self._path('inception')
    module = _Saved(_Module(['pool_3', 'logits'], size=299, pooled=True))
    tf.saved_model.save(module, path)
    network = feature_networks.load(f'inception:{path}')
    self.assertEqual(network.name, 'inception')
    features, _ = network(np.full([2, 8, 8, 3], 0.75, np.float32))
    self.assertAllClose(features, np.full([2, 3], 0.5))

  def test_unknown_and_unreadable_networks_are_one_line(self):
    damaged = self.create_tempfile('a.keras', content='abc').full_path
    for name, regex in (
      ('vgg', "no feature network 'vgg'.*efficientnet_lite0"),
      ('file:', 'no feature network'),
      ('file:/no/such', 'from /no/such .*must be a SavedModel'),
      (f'file:{damaged}', 'must be a SavedModel or a Keras'),
      ('inception:/no/such', 'from /no/such .*inception:PATH'),
    ):
      with self.assertRaisesRegex(ValueError, regex) as caught:
        feature_networks.load(name)
      self.assertNotIn('\n', str(caught.exception))

  def test_no_images_are_refused(self):
    network = feature_networks.FeatureNetwork('none', '', lambda x: (x, None))
    with self.assertRaisesRegex(ValueError, 'none got no images'):
      feature_networks.run(network, [])


if __name__ == '__main__':
  tf.test.main()
