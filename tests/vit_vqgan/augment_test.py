"""Tests of the discriminator's augmentation against NumPy and SciPy."""

from absl.testing import parameterized
import numpy as np
import scipy.ndimage
import tensorflow as tf

from vim_tf.vit_vqgan import augment


def _images(batch: int, height: int = 16, width: int = 24) -> np.ndarray:
  rng = np.random.default_rng(0)
  return rng.uniform(size=[batch, height, width, 3]).astype(np.float32)


def _uniforms(batch: int, count: int) -> np.ndarray:
  u = np.random.default_rng(1).uniform(size=[batch, count])
  u[0], u[1] = 0.0, 1 - 2.0**-24
  return u.astype(np.float32)


class ColorTest(tf.test.TestCase):
  def test_equals_numpy(self):
    images, u = _images(6), _uniforms(6, 3)
    for x, (b, s, c), y in zip(images, u, augment.color(images, u)):
      x = x + (b - 0.5) / 2
      grey = x.mean(axis=-1, keepdims=True)
      x = grey + 2 * s * (x - grey)
      self.assertAllClose(y, x.mean() + (c + 0.5) * (x - x.mean()))


class TranslateTest(tf.test.TestCase):
  def test_equals_scipy_and_stays_in_range(self):
    images, u = _images(40), _uniforms(40, 2)
    moved = augment.translate(images, u)
    shifts = np.floor(u * [5, 7]).astype(int) - [2, 3]
    for x, shift, y in zip(images, shifts, moved):
      expected = scipy.ndimage.shift(x, [*shift, 0], order=0, cval=0.5)
      self.assertAllEqual(y, expected)
    self.assertAllEqual(np.unique(shifts[:, 0]), [-2, -1, 0, 1, 2])
    self.assertAllEqual(np.unique(shifts[:, 1]), [-3, -2, -1, 0, 1, 2, 3])

  def test_share_of_zero_changes_nothing(self):
    images, u = _images(4), _uniforms(4, 2)
    self.assertAllEqual(augment.translate(images, u, max_share=0.0), images)


class CutoutTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(0.5, 0.3)
  def test_covers_one_rectangle(self, share):
    images, u = _images(60) + 1, _uniforms(60, 2)
    sides = np.round(share * np.array([16, 24])).astype(int)
    largest = np.zeros(2)
    for x, y in zip(images, augment.cutout(images, u, share).numpy()):
      covered = (y == 0.5).all(axis=-1)
      self.assertAllEqual(y[~covered], x[~covered])
      rows, columns = covered.any(axis=1), covered.any(axis=0)
      self.assertAllEqual(covered, rows[:, None] & columns[None])
      extents = []
      for line, side in zip((rows, columns), sides):
        (positions,) = line.nonzero()
        self.assertAllEqual(np.diff(positions), np.ones(len(positions) - 1))
        # An even side may lie half outside; an odd one by less than that.
        self.assertBetween(len(positions), side // 2, side)
        extents.append(len(positions))
      largest = np.maximum(largest, extents)
    self.assertAllEqual(largest, sides)


class AugmentTest(tf.test.TestCase):
  def test_depends_on_the_seed_alone(self):
    images = tf.repeat(tf.constant(_images(1)), 4, axis=0)
    seeds = tf.constant([7, 8, 7, 2**31 - 1])
    y = augment.augment(images, seeds)
    self.assertAllEqual(y[0], y[2])
    self.assertAllEqual(y[1:2], augment.augment(images[:1], seeds[1:2]))
    self.assertNotAllClose(y[0], y[1])
    self.assertNotAllClose(y[0], y[3])
    self.assertNotAllClose(y, augment.augment(images, seeds, stream=1))

  def test_is_the_three_steps(self):
    # Where a reconstruction equals its image, both are augmented alike; where
    # it does not, the difference is scaled, moved and covered as the image is.
    a, b = (tf.constant(x) for x in np.split(_images(8), 2))
    seeds = tf.range(4)
    mean = augment.augment((a + b) / 2, seeds)
    both = augment.augment(a, seeds) + augment.augment(b, seeds)
    self.assertAllClose(mean, both / 2, atol=1e-5)  # The map is affine.

  def test_compiles_with_gradient(self):
    images, seeds = tf.constant(_images(4)), tf.range(4)

    def run(images):
      with tf.GradientTape() as tape:
        tape.watch(images)
        y = augment.augment(images, seeds)
        loss = tf.reduce_sum(y**2)
      return y, tape.gradient(loss, images)

    for x, y in zip(
      run(images), tf.function(run, jit_compile=True, autograph=False)(images)
    ):
      self.assertAllClose(x, y, atol=1e-5)

  def test_bfloat16_images_give_float32(self):
    images = tf.cast(_images(2), tf.bfloat16)
    y = augment.augment(images, tf.constant([1, 2], tf.uint32))
    self.assertEqual(y.dtype, tf.float32)
    self.assertAllInRange(y, -4.0, 5.0)


if __name__ == '__main__':
  tf.test.main()
