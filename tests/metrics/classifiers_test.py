"""Tests of the classifiers: heads against scikit-learn, files, refusals."""

import os
from unittest import mock

from absl.testing import parameterized
import numpy as np
from PIL import Image
import scipy.special
from sklearn import linear_model
import tensorflow as tf

from vim_tf import config as config_lib
from vim_tf.metrics import classifiers

_FEATURES = 6
_PROTOCOL = {'network': 'n', 'data_fingerprint': 'f'}


def _blobs(count, classes=3, seed=0):
  """Gaussian blobs, each around a point of its own."""
  rng = np.random.default_rng(seed)
  centers = np.random.default_rng(99).normal(0, 2, [classes, _FEATURES])
  labels = rng.integers(0, classes, [count])
  return centers[labels] + rng.normal(size=[count, _FEATURES]), labels


def _resized(images: np.ndarray, size: int) -> np.ndarray:
  """Bilinear, by Pillow, which has only grey images of floats."""
  channels = [
    Image.fromarray(grey).resize([size, size], Image.BILINEAR)
    for grey in np.float32(images)
    .transpose([0, 3, 1, 2])
    .reshape([-1, *images.shape[1:3]])
  ]
  grey = np.stack(channels).reshape([len(images), 3, size, size])
  return grey.transpose([0, 2, 3, 1])


class HeadTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.parameters(2, 3)
  def test_equals_scikit_learn(self, classes):
    features, labels = _blobs(200, classes)
    head = classifiers.train_head(features, labels, classes, _PROTOCOL)
    mean, scale = features.mean(0), features.std(0)
    regression = linear_model.LogisticRegression(
      class_weight='balanced',
      C=head.protocol['inverse_l2_strength'],
      max_iter=2000,
    ).fit((features - mean) / scale, labels)
    new, new_labels = _blobs(300, classes, seed=1)
    expected = regression.predict_proba((new - mean) / scale)
    found = head.probabilities(new)
    self.assertAllClose(found, expected, atol=1e-3)
    self.assertAllClose(
      scipy.special.softmax(head.logits(new), axis=1), found, atol=1e-6
    )
    names = [str(i) for i in range(classes)]
    measured = classifiers.accuracy(found, new_labels, names)
    self.assertGreater(measured['accuracy'], 0.85)

  def test_classes_count_equally(self):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [900, 30])
    features = labels[:, None] + rng.normal(size=[930, 1])
    head = classifiers.train_head(features, labels, 2, {})
    # Balanced, the border lies half-way; otherwise it would lie beyond 1.
    border = -(head.bias[1] - head.bias[0]) / (
      head.kernel[0, 1] - head.kernel[0, 0]
    )
    self.assertBetween(border, 0.2, 0.8)

  def test_a_class_without_images_is_never_found(self):
    features, labels = _blobs(60, 2)
    head = classifiers.train_head(features, labels * 3, 5, {})
    found = head.probabilities(features)
    self.assertEqual(found.shape, (60, 5))
    self.assertAllEqual(found[:, [1, 2, 4]], np.zeros([60, 3]))
    self.assertAllClose(found.sum(axis=1), np.ones([60]))

  def test_a_class_with_one_image(self):
    features, labels = _blobs(20, 2)
    features, labels = np.r_[features, features[:1] + 9], np.r_[labels, 2]
    head = classifiers.train_head(features, labels, 3, {})
    self.assertTrue(np.all(np.isfinite(head.bias)))

  def test_one_class_is_refused(self):
    with self.assertRaisesRegex(config_lib.UserError, 'at least 2 classes'):
      classifiers.train_head(np.ones([4, 2]), np.ones([4], int), 2, {})

  def test_save_and_load(self):
    features, labels = _blobs(60)
    head = classifiers.train_head(features, labels, 3, _PROTOCOL)
    folder = self.create_tempdir().full_path
    path = os.path.join(folder, 'head.npz')
    head.save(path)
    self.assertEqual(os.listdir(folder), ['head.npz'])
    found = classifiers.Head.load(path, _PROTOCOL)
    self.assertAllEqual(
      found.probabilities(features), head.probabilities(features)
    )
    self.assertEqual(found.protocol, head.protocol)
    other = {**_PROTOCOL, 'data_fingerprint': 'g'}
    self.assertIsNone(classifiers.Head.load(path, other))
    self.assertIsNone(classifiers.Head.load(f'{path}x', _PROTOCOL))
    with open(path, 'r+b') as file:
      file.truncate(100)
    self.assertIsNone(classifiers.Head.load(path, _PROTOCOL))


class LoadTest(parameterized.TestCase, tf.test.TestCase):
  def _save(self, activation):
    inputs = tf.keras.Input([4, 4, 3])
    x = tf.keras.layers.GlobalAveragePooling2D()(inputs)
    path = os.path.join(self.create_tempdir().full_path, 'a.keras')
    x = tf.keras.layers.Activation(activation)(3.0 * x)
    tf.keras.Model(inputs, x).save(path)
    return path

  @parameterized.parameters('softmax', 'linear')
  def test_probabilities_or_logits_from_a_file(self, activation):
    classifier = classifiers.load(f'file:{self._save(activation)}')
    images = np.random.default_rng(0).normal(size=[5, 4, 4, 3])
    expected = scipy.special.softmax(3.0 * images.mean((1, 2)), axis=1)
    self.assertAllClose(classifier(images), expected, atol=1e-6)

  def test_another_number_of_classes_is_refused(self):
    classifier = classifiers.load(f'file:{self._save("linear")}')
    classifier.check_classes(3, image_size=4)
    with self.assertRaisesRegex(
      config_lib.UserError, '3 classes apart, but the model has 9'
    ):
      classifier.check_classes(9, image_size=4)

  def test_resnet101_without_a_network_is_one_line(self):
    # Whether this machine has a network must not decide.
    with mock.patch.object(
      tf.keras.applications.resnet, 'ResNet101', side_effect=OSError('a\nb')
    ):
      with self.assertRaisesRegex(
        config_lib.UserError, 'ResNet-101 .*network.*file:PATH'
      ) as caught:
        classifiers.load('resnet101')
    self.assertNotIn('\n', str(caught.exception))

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    tf.keras.utils.set_random_seed(0)
    cls.resnet = tf.keras.applications.resnet.ResNet101(weights=None)

  def _load_resnet(self, path):
    """Into the network that is there: to build it takes seconds."""

    def build(weights):
      self.resnet.load_weights(weights)
      return self.resnet

    with mock.patch.object(
      tf.keras.applications.resnet, 'ResNet101', side_effect=build
    ):
      return classifiers.load(f'resnet101:{path}')

  def test_resnet101_of_a_file_equals_the_bare_model(self):
    model = self.resnet
    top = model.get_layer('predictions')
    top.kernel.assign(0.1 * top.kernel)  # Or one class gets all.
    path = os.path.join(self.create_tempdir().full_path, 'weights.h5')
    model.save_weights(path)
    weights = model.get_weights()
    model.set_weights([0 * weight for weight in weights])
    classifier = self._load_resnet(path)
    for one, other in zip(model.get_weights(), weights, strict=True):
      self.assertAllEqual(one, other)
    self.assertRegex(classifier.source, '^sha256:[0-9a-f]{64}$')
    os.remove(path)  # Of 180 MB.

    images = np.random.default_rng(0).uniform(size=[2, 9, 9, 3])
    large = _resized(images, 224)
    # Of Caffe, which the weights come from: BGR, minus the means of ImageNet.
    means = np.array([103.939, 116.779, 123.68])
    prepared = 255.0 * large[..., ::-1] - means
    mistaken = 255.0 * large - means
    expected, other = np.split(
      model(np.concatenate([prepared, mistaken]), training=False), 2
    )
    found = classifier(tf.constant(images, tf.float32))
    self.assertEqual(found.shape, (2, 1000))
    self.assertAllClose(found, expected, rtol=1e-3, atol=1e-6)
    self.assertNotAllClose(found, other, rtol=1e-3, atol=1e-6)

  @parameterized.parameters('', 'not weights')
  def test_resnet101_of_no_weights_is_one_line(self, text):
    path = os.path.join(self.create_tempdir().full_path, 'weights.h5')
    if text:
      with open(path, 'w', encoding='utf-8') as file:
        file.write(text)
    with self.assertRaisesRegex(
      config_lib.UserError, f'ResNet-101 .*{path}.*1,000 classes'
    ) as caught:
      self._load_resnet(path)
    self.assertNotIn('\n', str(caught.exception))

  @parameterized.parameters(
    'resnet', 'resnet101:', 'file:', 'head:efficientnet_lite0', ''
  )
  def test_unknown_classifiers_are_refused(self, name):
    with self.assertRaises(config_lib.UserError) as caught:
      classifiers.load(name)
    self.assertNotIn('\n', str(caught.exception))

  def test_the_scoring_network_may_not_select(self):
    classifiers.check_independent('a', 'sha256:1', 'b', 'sha256:2')
    for names in (
      ('a', 'sha256:1', 'b', 'sha256:1'),
      ('a', 'sha256:1', 'a', 'sha256:2'),
    ):
      with self.assertRaisesRegex(config_lib.UserError, 'choose another'):
        classifiers.check_independent(*names)


class AccuracyTest(tf.test.TestCase):
  def test_by_class(self):
    labels = np.array([0, 0, 0, 2])
    probabilities = np.eye(3)[[0, 1, 0, 1]]
    found = classifiers.accuracy(probabilities, labels, ['a', 'b', 'c'])
    self.assertEqual(found['accuracy'], 0.5)
    self.assertAllClose(found['by_class'], {'a': 2 / 3, 'c': 0.0})
    self.assertAllClose(found['mean_class_accuracy'], 1 / 3)
    self.assertEqual(found['images_by_class'], {'a': 3, 'c': 1})


if __name__ == '__main__':
  tf.test.main()
