"""Tests of counting XLA's programs, against formulas for known sizes."""

import tensorflow as tf

from experiments import abstract, hlo


def _cost(function, *shapes, dtype=tf.float32) -> hlo.Cost:
  specs = tuple(tf.TensorSpec(shape, dtype) for shape in shapes)
  return hlo.cost(abstract.lower(function, specs))


class HloTest(tf.test.TestCase):
  def test_matrix_product(self):
    found = _cost(lambda x, y: x @ y, [5, 7], [7, 11])
    self.assertEqual(found.flops, 2 * 5 * 7 * 11)
    self.assertEqual(found.argument_bytes, 4 * (5 * 7 + 7 * 11))
    half = _cost(lambda x, y: x @ y, [5, 7], [7, 11], dtype=tf.bfloat16)
    self.assertEqual(half.argument_bytes, 2 * (5 * 7 + 7 * 11))

  def test_batched_product_of_more_dimensions(self):
    found = _cost(
      lambda x, y: tf.einsum('bhqd,bhkd->bhqk', x, y),
      [2, 3, 5, 7],
      [2, 3, 6, 7],
    )
    self.assertEqual(found.flops, 2 * 2 * 3 * 5 * 6 * 7)

  def test_convolution_and_its_gradients(self):
    def gradients(x, kernel):
      with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        y = tf.nn.conv2d(x, kernel, strides=2, padding='SAME')
        loss = tf.reduce_sum(y**2)
      return tape.gradient(loss, [x, kernel])

    forward = 2 * (4 * 4 * 6) * (3 * 3 * 5) * 2
    found = _cost(
      lambda x, k: tf.nn.conv2d(x, k, 2, 'SAME'), [2, 8, 8, 5], [3, 3, 5, 6]
    )
    self.assertEqual(found.flops, forward)
    found = _cost(gradients, [2, 8, 8, 5], [3, 3, 5, 6])
    self.assertAllClose(found.flops, 3 * forward, rtol=0.01)

  def test_a_loop_counts_as_often_as_it_turns(self):
    def loop(x, y):
      return tf.while_loop(
        lambda i, x: i < 13,
        lambda i, x: (i + 1, tf.matmul(x, y)),
        (tf.constant(0), x),
        maximum_iterations=13,
      )[1]

    self.assertEqual(_cost(loop, [5, 7], [7, 7]).flops, 13 * 2 * 5 * 7 * 7)

  def test_what_nobody_needs_is_not_counted(self):
    """As where a loss has a gradient by more than the weights asked for."""

    def gradient(x, kernel):
      with tf.GradientTape() as tape:
        tape.watch(kernel)
        loss = tf.reduce_sum(tf.matmul(tf.matmul(x, x), kernel) ** 2)
        del loss
        loss = tf.reduce_sum(tf.matmul(x, kernel) ** 2)
      return tape.gradient(loss, kernel)

    found = _cost(gradient, [16, 16], [16, 16])
    self.assertEqual(found.flops, 2 * 2 * 16**3)

  def test_what_is_kept(self):
    """A chain of products keeps its factors for the backward pass."""
    size = 4 * 64 * 64

    def chain(x, kernel):
      for _ in range(5):
        x = tf.tanh(tf.matmul(x, kernel))
      return tf.reduce_sum(x)

    def gradient(x, kernel):
      with tf.GradientTape() as tape:
        tape.watch(kernel)
        loss = chain(x, kernel)
      return tape.gradient(loss, kernel)

    forward = _cost(chain, [64, 64], [64, 64]).working_bytes
    backward = _cost(gradient, [64, 64], [64, 64]).working_bytes
    self.assertBetween(forward, size, 3 * size)
    self.assertBetween(backward, 5 * size, 12 * size)

  def test_variables_take_no_memory_but_are_counted(self):
    with abstract.no_weights():
      layer = tf.keras.layers.Dense(2**18)
      layer.build([None, 2**18])  # 256 GiB of weights.
      found = _cost(layer, [1, 2**18])
    self.assertEqual(found.flops, 2.0 * 2**36)
    self.assertEqual(found.argument_bytes, 4 * (2**36 + 2**18 + 2**18))

  def test_no_program(self):
    with self.assertRaisesRegex(ValueError, 'not a program of XLA'):
      hlo.cost('nothing')


if __name__ == '__main__':
  tf.test.main()
