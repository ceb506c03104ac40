"""Tests of the quantizer against NumPy, and of where its gradients go."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import testing
from vim_tf.vit_vqgan import quantizer

_BATCH, _CODES, _DIM, _SIZE = 3, 5, 4, 16


def _inputs() -> tf.Tensor:
  rng = np.random.default_rng(1)
  return tf.constant(rng.normal(0, 3, [_BATCH, _CODES, _DIM]), tf.float32)


def _quantizer(**kwargs) -> quantizer.Quantizer:
  layer = quantizer.Quantizer(_SIZE, _DIM, **kwargs)
  layer.build()
  # Lengths that differ: without normalisation the nearest code is not that of
  # the largest product.
  testing.randomize(layer, scale=3.0)
  return layer


def _unit(x: np.ndarray) -> np.ndarray:
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


class ReferenceTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(False, True)
  def test_equals_numpy_reference(self, l2_normalize):
    layer = _quantizer(l2_normalize=l2_normalize)
    z = _inputs().numpy().astype(np.float64)
    e = layer.codebook.numpy().astype(np.float64)
    if l2_normalize:
      z, e = _unit(z), _unit(e)
    distances = np.sum((z[:, :, None] - e[None, None]) ** 2, axis=-1)
    codes = np.argmin(distances, axis=-1)
    error = np.mean(np.min(distances, axis=-1), axis=-1) / _DIM
    out = layer(_inputs())
    self.assertAllEqual(out['codes'], codes)
    self.assertEqual(out['codes'].dtype, tf.int32)
    self.assertAllEqual(layer.nearest(_inputs()), codes)
    self.assertAllClose(out['quantized'], e[codes], atol=1e-5)
    self.assertAllClose(layer.lookup(out['codes']), e[codes], atol=1e-6)
    self.assertAllClose(out['distance'], np.min(distances, axis=-1), atol=1e-4)
    self.assertAllClose(out['commitment'], error, atol=1e-5)
    self.assertAllClose(out['codebook'], error, atol=1e-5)

  @parameterized.parameters(False, True)
  def test_conformance(self, l2_normalize):
    testing.check_layer(
      self,
      lambda **kwargs: quantizer.Quantizer(
        _SIZE, _DIM, l2_normalize, **{**kwargs, 'dtype': None}
      ),
      (_inputs(),),
    )


class GradientTest(tf.test.TestCase, parameterized.TestCase):
  def _gradients(self, layer, name):
    z = _inputs()
    with tf.GradientTape() as tape:
      tape.watch(z)
      loss = tf.reduce_sum(layer(z)[name])
    return tape.gradient(loss, [z, layer.codebook])

  def test_straight_through_is_the_identity(self):
    layer, z = _quantizer(l2_normalize=False), _inputs()
    upstream = tf.random.stateless_normal(z.shape, [1, 2])
    with tf.GradientTape() as tape:
      tape.watch(z)
      loss = tf.reduce_sum(upstream * layer(z)['quantized'])
    by_z, by_codebook = tape.gradient(loss, [z, layer.codebook])
    self.assertAllClose(by_z, upstream)
    self.assertIsNone(by_codebook)

  def test_straight_through_is_that_of_the_normalised_input(self):
    layer, z = _quantizer(), _inputs()
    upstream = tf.random.stateless_normal(z.shape, [1, 2])
    with tf.GradientTape() as tape:
      tape.watch(z)
      loss = tf.reduce_sum(upstream * layer(z)['quantized'])
    by_z, by_codebook = tape.gradient(loss, [z, layer.codebook])
    # d(z / |z|) / dz = (I - u u') / |z| with u = z / |z|.
    norm = tf.norm(z, axis=-1, keepdims=True)
    u = z / norm
    along = tf.reduce_sum(u * upstream, axis=-1, keepdims=True)
    self.assertAllClose(by_z, (upstream - u * along) / norm, atol=1e-5)
    self.assertIsNone(by_codebook)

  @parameterized.parameters(False, True)
  def test_commitment_moves_the_encoder_alone(self, l2_normalize):
    layer = _quantizer(l2_normalize=l2_normalize)
    by_z, by_codebook = self._gradients(layer, 'commitment')
    self.assertIsNone(by_codebook)
    # A step against the gradient brings the outputs closer to their codes.
    before = layer(_inputs())['distance']
    after = layer(_inputs() - 0.1 * by_z)['distance']
    self.assertLess(float(tf.reduce_sum(after - before)), 0.0)
    if not l2_normalize:
      out = layer(_inputs())
      expected = 2 * (_inputs() - out['quantized']) / (_CODES * _DIM)
      self.assertAllClose(by_z, expected, atol=1e-5)

  @parameterized.parameters(False, True)
  def test_codebook_term_moves_the_codebook_alone(self, l2_normalize):
    layer = _quantizer(l2_normalize=l2_normalize)
    by_z, by_codebook = self._gradients(layer, 'codebook')
    self.assertIsNone(by_z)
    by_codebook = tf.convert_to_tensor(by_codebook)
    before = layer(_inputs())['distance']
    used = np.unique(layer.nearest(_inputs()))
    unused = sorted(set(range(_SIZE)) - set(used))
    self.assertAllEqual(
      tf.gather(by_codebook, unused), [[0.0] * 4] * len(unused)
    )
    if not l2_normalize:
      pulls = np.zeros([_SIZE, _DIM])
      out = layer(_inputs())
      np.add.at(pulls, out['codes'], out['quantized'] - _inputs())
      self.assertAllClose(by_codebook, 2 * pulls / (_CODES * _DIM), atol=1e-5)
    layer.codebook.assign_sub(0.1 * by_codebook)
    after = layer(_inputs())['distance']
    self.assertLess(float(tf.reduce_sum(after - before)), 0.0)

  def test_gradient_is_finite_at_zero(self):
    layer, z = _quantizer(), tf.zeros([1, 1, _DIM])
    with tf.GradientTape() as tape:
      tape.watch(z)
      loss = tf.reduce_sum(layer(z)['commitment'])
    self.assertAllEqual(
      tf.math.is_finite(tape.gradient(loss, z)), [[[True] * 4]]
    )


class PrecisionTest(tf.test.TestCase):
  def tearDown(self):
    tf.keras.mixed_precision.set_global_policy('float32')
    super().tearDown()

  def test_is_float32_whatever_the_policy(self):
    tf.keras.mixed_precision.set_global_policy('mixed_bfloat16')
    for layer in (
      quantizer.Quantizer(_SIZE, _DIM),
      quantizer.Quantizer(_SIZE, _DIM, dtype='mixed_bfloat16'),
    ):
      out = layer(tf.cast(_inputs(), tf.bfloat16))
      self.assertEqual(layer.codebook.dtype, tf.float32)
      for name, value in out.items():
        if name != 'codes':
          self.assertEqual(value.dtype, tf.float32, name)

  def test_tells_codes_apart_that_bfloat16_cannot(self):
    tf.keras.mixed_precision.set_global_policy('mixed_bfloat16')
    layer = quantizer.Quantizer(2, 2, l2_normalize=False)
    layer.build()
    layer.codebook.assign([[1.0, 1.0], [1.001, 1.0]])
    z = tf.constant([[[1.0008, 1.0], [1.0002, 1.0]]])
    self.assertAllEqual(layer(z)['codes'], [[1, 0]])


if __name__ == '__main__':
  tf.test.main()
