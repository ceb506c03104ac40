"""Tests of the discriminators against SciPy, NumPy and numerical gradients."""

from absl.testing import parameterized
import numpy as np
import scipy.signal
import tensorflow as tf

from tests import testing
from vim_tf import config as config_lib
from vim_tf.vit_vqgan import gan_losses, patchgan, stylegan2
from vim_tf.vit_vqgan import step as step_lib

_MODELS = {
  'stylegan2': (
    stylegan2.StyleGAN2Discriminator,
    {'image_size': 16, 'channel_multiplier': 1 / 256, 'max_channels': 12},
  ),
  'patchgan': (
    patchgan.PatchGANDiscriminator,
    {'image_size': 24, 'channel_multiplier': 1 / 8},
  ),
}
_NAMES = tuple(_MODELS)


def _make(name: str, **kwargs):
  tf.keras.utils.set_random_seed(0)
  cls, config = _MODELS[name]
  model = cls(**{**config, **kwargs})
  model.build()
  return model


def _images(model, batch: int = 4, seed: int = 0) -> tf.Tensor:
  size = model.image_size
  rng = np.random.default_rng(seed)
  return tf.constant(rng.uniform(size=[batch, size, size, 3]), tf.float32)


def _blur_reference(x: np.ndarray, padding: int) -> np.ndarray:
  """The blur of `[batch, height, width, channels]` by SciPy."""
  taps = np.array([1, 3, 3, 1]) / 8
  kernel = np.outer(taps, taps)[None, :, :, None]
  pad = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
  return scipy.signal.convolve(np.pad(x, pad), kernel, mode='valid')


def _leaky_relu(x):
  return np.where(x > 0, x, 0.2 * x)


class BlurTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(1, 2)
  def test_equals_scipy(self, padding):
    x = np.random.default_rng(0).normal(size=[2, 8, 6, 3])
    self.assertAllClose(
      stylegan2.blur(tf.constant(x), padding), _blur_reference(x, padding)
    )


class EqualizedLayersTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters((3, 2), (1, 1))
  def test_downsampling_convolution_equals_scipy(self, size, padding):
    layer = stylegan2.EqualizedConv2D(5, size, downsample=True, gain=1.5)
    x = np.random.default_rng(0).normal(size=[2, 8, 8, 3]).astype(np.float32)
    y = layer(x)
    layer.bias.assign(np.arange(5) - 2.0)
    y = layer(x)
    blurred = _blur_reference(x, padding)
    kernel = layer.kernel.numpy() / np.sqrt(size * size * 3)
    expected = np.stack(
      [
        scipy.signal.correlate(blurred, kernel[None, ..., i], mode='valid')[
          ..., 0
        ]
        for i in range(5)
      ],
      axis=-1,
    )[:, ::2, ::2]
    self.assertEqual(y.shape, [2, 4, 4, 5])
    self.assertAllClose(y, 1.5 * _leaky_relu(expected + layer.bias), atol=1e-5)

  def test_weights_have_variance_one_and_outputs_too(self):
    tf.keras.utils.set_random_seed(0)
    conv = stylegan2.EqualizedConv2D(64, 3, activate=False, gain=1.0)
    dense = stylegan2.EqualizedDense(512)
    rng = np.random.default_rng(0)
    outputs = (
      conv(rng.normal(size=[4, 16, 16, 48]).astype(np.float32))[:, 1:-1, 1:-1],
      dense(rng.normal(size=[64, 256]).astype(np.float32)),
    )
    for layer, output in zip((conv, dense), outputs):
      self.assertAllClose(np.std(layer.kernel), 1.0, atol=0.02)
      self.assertAllEqual(layer.bias, np.zeros_like(layer.bias))
      self.assertAllClose(np.std(output), 1.0, atol=0.05)

  def test_residual_block_is_a_scaled_sum(self):
    block = stylegan2.ResidualBlock(6)
    x = tf.constant(
      np.random.default_rng(0).normal(size=[1, 8, 8, 4]), tf.float32
    )
    y = block(x)
    root = np.sqrt(2)
    first = root * _leaky_relu(
      tf.nn.conv2d(x, block.first.kernel / 6, 1, 'SAME')
    )
    blurred = tf.constant(_blur_reference(first, 2), tf.float32)
    second = root * _leaky_relu(
      tf.nn.conv2d(blurred, block.second.kernel / 6, 2, 'VALID')
    )
    halved = tf.constant(_blur_reference(x, 1)[:, ::2, ::2], tf.float32)
    skip = tf.matmul(halved, block.skip.kernel[0] / 2)
    self.assertAllClose(y, (second + skip) / root, atol=1e-5)


class MinibatchStddevTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(
    (8, 4, 4), (4, 4, 4), (2, 4, 2), (1, 4, 1), (6, 4, 3), (5, 4, 1)
  )
  def test_equals_numpy(self, batch, group_size, group):
    x = np.random.default_rng(0).normal(size=[batch, 3, 2, 5])
    x = x.astype(np.float32)
    y = stylegan2.minibatch_stddev(tf.constant(x), group_size)
    self.assertAllEqual(y[..., :5], x)
    groups = batch // group
    for i in range(batch):
      members = x[i % groups :: groups]
      self.assertLen(members, group)
      self.assertAllClose(
        y[i, ..., 5],
        np.full([3, 2], np.sqrt(members.var(axis=0) + 1e-8).mean()),
      )

  def test_gradient_of_equal_images_is_finite(self):
    x = tf.ones([4, 2, 2, 3])
    with tf.GradientTape() as tape:
      tape.watch(x)
      y = stylegan2.minibatch_stddev(x)
    self.assertAllInRange(tape.gradient(y, x), -10.0, 10.0)


class DiscriminatorTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(4, 48, 64, 80)
  def test_stylegan2_sizes(self, size):
    model = _make('stylegan2', image_size=size)
    logits = model(_images(model))
    self.assertEqual(logits.shape, [4])
    self.assertEqual(logits.dtype, tf.float32)

  def test_stylegan2_has_the_channels_of_nvlabs(self):
    # Not built: at 256 pixels that would be 29 million weights.
    model = stylegan2.StyleGAN2Discriminator(256)
    self.assertEqual(model.from_rgb.filters, 128)
    self.assertEqual(
      [block.filters for block in model.blocks], [256, 512, 512, 512, 512, 512]
    )

  @parameterized.parameters((24, 1), (32, 2), (64, 6), (256, 30))
  def test_patchgan_map(self, size, expected):
    model = _make('patchgan', image_size=size)
    logits = model(_images(model, 2))
    self.assertEqual(logits.shape, [2, expected, expected])

  def test_patchgan_judges_patches_of_70_pixels(self):
    # Without norms, a logit depends on its patch alone.
    model = _make('patchgan', image_size=128)
    model.norms = [tf.keras.layers.Activation('linear') for _ in model.norms]
    images = _images(model, 1)
    with tf.GradientTape() as tape:
      tape.watch(images)
      logit = model(images)[0, 7, 7]
    rows = np.abs(tape.gradient(logit, images))[0].max(axis=(1, 2)).nonzero()[0]
    self.assertEqual(rows[-1] - rows[0] + 1, 70)

  def test_patchgan_logits_do_not_depend_on_the_batch(self):
    model = _make('patchgan')
    images = _images(model)
    self.assertAllClose(model(images)[:1], model(images[:1]), atol=1e-5)

  @parameterized.parameters(*_NAMES)
  def test_make_follows_the_config(self, name):
    config = config_lib.AdversarialConfig(
      discriminator=name, channel_multiplier=1 / 128
    )
    model = step_lib.make_discriminator(config, 32, 'mixed_bfloat16')
    self.assertIsInstance(model, _MODELS[name][0])
    self.assertEqual(model.channel_multiplier, 1 / 128)
    self.assertEqual(model.compute_dtype, 'bfloat16')
    self.assertNotEmpty(model.trainable_variables)
    model(_images(model), training=True)

  @parameterized.parameters(*_NAMES)
  def test_keras_file(self, name):
    model = _make(name, dtype='mixed_bfloat16')
    testing.check_saved(self, model, (_images(model),))

  @parameterized.parameters(*_NAMES)
  def test_compiles_with_gradient_of_gradient(self, name):
    """In bfloat16; step_test has a whole step of float32."""
    sizes = {'stylegan2': {'image_size': 8}, 'patchgan': {}}
    model = _make(name, dtype='mixed_bfloat16', **sizes[name])
    images = _images(model)

    def penalty(images):
      with tf.GradientTape() as tape:
        loss = tf.reduce_sum(gan_losses.r1_penalty(model, images))
      logits = model(images)
      gradients = tape.gradient(loss, model.trainable_variables)
      return logits, loss, [g for g in gradients if g is not None]

    logits, loss, gradients = penalty(images)
    self.assertEqual(logits.dtype, tf.float32)
    self.assertGreater(loss, 0.0)
    self.assertNotEmpty(gradients)
    for x in (logits, loss, *gradients):
      self.assertAllInRange(x, -1e5, 1e5)
    compiled = tf.function(penalty, jit_compile=True, autograph=False)(images)
    self.assertAllClose(compiled[0], logits, atol=0.2, rtol=0.2)
    self.assertAllClose(compiled[1], loss, rtol=0.2)

  @parameterized.parameters(*_NAMES)
  def test_bfloat16_is_near_float32(self, name):
    model, half = _make(name), _make(name, dtype='mixed_bfloat16')
    half.set_weights(model.get_weights())
    for variable in half.variables:
      self.assertEqual(variable.dtype, tf.float32)
    images = _images(model, 8)
    logits, rounded = model(images).numpy(), half(images).numpy()
    self.assertAllClose(rounded, logits, atol=0.05 * np.abs(logits).max())
    self.assertNotAllEqual(rounded, logits)

  @parameterized.parameters(*_NAMES)
  def test_r1_equals_numerical_gradient(self, name):
    # Without the minibatch statistics every image has a logit of its own, and
    # all the differences are taken in one batch.
    extra = {'stddev_group': 0} if name == 'stylegan2' else {}
    model = _make(name, **extra)
    image = _images(model, 1)
    size = int(tf.size(image))
    steps = 3e-3 * tf.reshape(tf.eye(size), [size, *image.shape[1:]])
    differences = np.reshape(
      model(image + steps) - model(image - steps), [size, -1]
    )
    gradient = differences.mean(axis=1) / 12e-3  # By images in [-1, 1].
    self.assertAllClose(
      gan_losses.r1_penalty(model, image), [np.sum(gradient**2)], rtol=0.01
    )

  def test_r1_gradient_obeys_euler(self):
    # Without biases the logit is homogeneous of degree 1 in the kernels of each
    # stage, so R1 is of degree 2: sum(dR1/dK * K) = 2 R1. (A numerical gradient
    # would not do: leaky ReLU makes R1 jump.)
    model = _make('stylegan2', stddev_group=0)
    images = _images(model)
    stages = [
      [model.from_rgb.kernel],
      *([block.first.kernel, block.skip.kernel] for block in model.blocks),
      *([block.second.kernel, block.skip.kernel] for block in model.blocks),
      [model.final_conv.kernel],
      [model.hidden.kernel],
      [model.logit.kernel],
    ]
    with tf.GradientTape() as tape:
      loss = tf.reduce_sum(gan_losses.r1_penalty(model, images))
    for kernels, gradients in zip(stages, tape.gradient(loss, stages)):
      total = sum(tf.reduce_sum(k * g) for k, g in zip(kernels, gradients))
      self.assertAllClose(total, 2 * loss, rtol=1e-4)


if __name__ == '__main__':
  tf.test.main()
