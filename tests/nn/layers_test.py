"""Tests of how dense layers start."""

import numpy as np
import tensorflow as tf

from vim_tf.nn import layers

_WIDTH = 200


def _dense(name='dense'):
  return layers.dense(_WIDTH, _WIDTH, 'float32', name, stddev=0.3, bias=0.5)


class DenseTest(tf.test.TestCase):
  def test_new_weights_are_drawn(self):
    layer = _dense()
    # Keras keeps draws below two standard deviations, of 0.88 times the rest.
    self.assertAllClose(np.std(layer.kernel), 0.88 * 0.3, rtol=0.02)
    self.assertAllClose(np.mean(layer.kernel), 0.0, atol=0.01)
    self.assertAllEqual(layer.bias, np.full([_WIDTH], 0.5))

  def test_undrawn_weights(self):
    with layers.undrawn_weights():
      layer = _dense()
    self.assertAllEqual(layer.kernel, np.zeros([_WIDTH, _WIDTH]))
    # They compute like others once they are set, and others are drawn again.
    layer.kernel.assign(tf.eye(_WIDTH))
    self.assertAllClose(layer(tf.ones([1, _WIDTH])), np.full([1, _WIDTH], 1.5))
    self.assertNotAllEqual(_dense().kernel, np.zeros([_WIDTH, _WIDTH]))


if __name__ == '__main__':
  tf.test.main()
