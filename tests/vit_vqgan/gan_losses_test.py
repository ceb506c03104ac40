"""Tests of the adversarial losses against closed forms."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from vim_tf.vit_vqgan import gan_losses

_RNG = np.random.default_rng(0)


def _images(*shape) -> np.ndarray:
  return _RNG.uniform(size=shape).astype(np.float32)


def _normal(*shape) -> np.ndarray:
  return _RNG.normal(size=shape).astype(np.float32)


def _softplus(x):
  return np.logaddexp(0, x)


def _relu(x):
  return np.maximum(0, x)


class AdversarialTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(((6,),), ((6, 3, 2),))
  def test_closed_forms(self, shape):
    real, fake = 3 * _normal(*shape), 3 * _normal(*shape)
    axes = tuple(range(1, len(shape)))
    expected = {
      'non_saturating': (
        _softplus(-fake),
        _softplus(-real) + _softplus(fake),
      ),
      'hinge': (-fake, _relu(1 - real) + _relu(1 + fake)),
    }
    self.assertCountEqual(gan_losses.GAN_LOSSES, expected)
    for name, (generator, discriminator) in gan_losses.GAN_LOSSES.items():
      for jit_compile in (False, True):
        compiled = [
          tf.function(f, jit_compile=jit_compile)
          for f in (generator, discriminator)
        ]
        self.assertAllClose(
          compiled[0](fake), expected[name][0].mean(axis=axes), atol=1e-5
        )
        self.assertAllClose(
          compiled[1](real, fake),
          expected[name][1].mean(axis=axes),
          atol=1e-5,
        )

  def test_bfloat16_logits_give_float32(self):
    logits = tf.constant([-300.0, 0.0, 300.0], tf.bfloat16)
    for generator, discriminator in gan_losses.GAN_LOSSES.values():
      for loss in (generator(logits), discriminator(logits, logits)):
        self.assertEqual(loss.dtype, tf.float32)
        self.assertAllInRange(loss, -400.0, 700.0)

  def test_r1_can_be_differentiated(self):
    # D = w . x^2 with y = 2 x - 1 has dD/dy = w x, so R1 = sum w^2 x^2, with
    # gradient 2 w x^2 at w.
    w = tf.Variable(_normal(2, 2, 3))
    images = tf.constant(_images(1, 2, 2, 3))
    with tf.GradientTape() as tape:
      penalty = gan_losses.r1_penalty(
        lambda x: tf.reduce_sum(w * x**2, axis=[1, 2, 3]), images
      )
    self.assertAllClose(
      tape.gradient(penalty, w), 2 * w * images[0] ** 2, rtol=1e-5
    )

  def test_adaptive_weight_is_a_capped_ratio_of_norms(self):
    gradient = [tf.constant([3.0, 0.0]), tf.constant([4.0])]
    other = tf.constant([0.0, 2.0])
    self.assertAllClose(gan_losses.adaptive_weight(gradient, other), 5 / 2.0001)
    self.assertAllClose(
      gan_losses.adaptive_weight(gradient, 0 * other, max_weight=7.0), 7.0
    )


if __name__ == '__main__':
  tf.test.main()
