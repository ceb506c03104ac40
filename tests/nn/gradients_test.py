"""Tests of gradients of parts of a batch, and of recomputation."""

import re

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from vim_tf.nn import gradients


class GradientsTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self._x = rng.normal(size=[8, 3])
    self._y = rng.normal(size=[8])
    self._w = tf.Variable(rng.normal(size=[3]))
    self._b = tf.Variable(rng.normal(size=[]))
    self._unused = tf.Variable([1.0, 2.0])
    self._batch = {'x': tf.constant(self._x), 'y': tf.constant(self._y)}

  def _error(self, part):
    return tf.linalg.matvec(part['x'], self._w) + self._b - part['y']

  def _one(self, part):
    loss = tf.reduce_sum(tf.square(self._error(part))) / 8.0
    return [loss], {'loss': loss, 'count': tf.constant([1.0, 2.0])}

  def _two(self, part):
    """Both losses depend on both variables, which have one loss each."""
    error = self._error(part)
    square = tf.reduce_sum(tf.square(error)) / 8.0
    fourth = tf.reduce_sum(error**4) / 8.0
    return [square, fourth], {'square': square, 'fourth': fourth}

  def _expected(self):
    """By hand: of the square by w and b, of the fourth power by w and b."""
    error = self._x @ self._w.numpy() + self._b.numpy() - self._y
    return (
      (2 * error) @ self._x / 8,
      (2 * error).sum() / 8,
      (4 * error**3) @ self._x / 8,
      (4 * error**3).sum() / 8,
      error,
    )

  @parameterized.parameters(1, 2, 4, 8)
  def test_one_loss(self, micro_batches):
    run = tf.function(
      lambda: gradients.accumulated(
        self._one,
        self._batch,
        [[self._w, self._b, self._unused]],
        micro_batches,
      ),
      autograph=False,
    )
    (found,), metrics = run()
    by_w, by_b, _, _, error = self._expected()
    self.assertAllClose(found[0], by_w)
    self.assertAllClose(found[1], by_b)
    self.assertAllEqual(found[2], [0.0, 0.0])
    self.assertAllClose(metrics['loss'], np.mean(error**2))
    self.assertAllClose(metrics['count'], [micro_batches, 2.0 * micro_batches])

  @parameterized.parameters(1, 4)
  def test_two_losses(self, micro_batches):
    run = tf.function(
      lambda: gradients.accumulated(
        self._two, self._batch, [[self._w], [self._b]], micro_batches
      ),
      autograph=False,
    )
    (first, second), metrics = run()
    by_w, _, _, by_b, error = self._expected()
    self.assertLen(first, 1)
    self.assertAllClose(first[0], by_w)
    self.assertLen(second, 1)
    self.assertAllClose(second[0], by_b)
    self.assertAllClose(metrics['square'], np.mean(error**2))
    self.assertAllClose(metrics['fourth'], np.mean(error**4))

  def test_gradients_of_gathers_are_dense(self):
    table = tf.Variable(tf.ones([5, 2]))
    batch = {'i': tf.constant([0, 3, 3, 1])}

    def loss(part):
      return [tf.reduce_sum(tf.gather(table, part['i']))], {}

    for micro_batches in (1, 2):
      ((found,),), _ = gradients.accumulated(
        loss, batch, [[table]], micro_batches
      )
      self.assertAllEqual(found[:, 0], [1, 1, 0, 2, 0])


class RecomputedTest(tf.test.TestCase):
  def test_computes_the_forward_pass_twice(self):
    x, calls = tf.constant([1.0, 2.0]), []

    def cube(x):
      calls.append(1)
      return x**3

    with tf.GradientTape() as tape:
      tape.watch(x)
      y = gradients.recomputed(cube, x)
    self.assertLen(calls, 1)
    self.assertAllClose(tape.gradient(y, x), [3.0, 12.0])
    self.assertLen(calls, 2)
    self.assertAllClose(y, [1.0, 8.0])

  def test_other_tensors_have_no_gradient(self):
    x, other = tf.constant([1.0, 2.0]), tf.constant([3, 4])
    weight = tf.Variable(2.0)

    def scaled(x, other):
      return weight * x * tf.cast(other, x.dtype)

    with tf.GradientTape() as tape:
      tape.watch(x)
      y = gradients.recomputed(scaled, x, other)
    by_x, by_weight, by_other = tape.gradient(y, [x, weight, other])
    self.assertAllClose(by_x, [6.0, 8.0])
    self.assertAllClose(by_weight, 11.0)
    self.assertIsNone(by_other)

  def _chain(self, recompute):
    """Gradients of a chain of two functions, by the input and a weight."""
    weight = tf.Variable(np.float32([[1.2, -0.4], [0.3, 0.9]]))

    def link(x):
      return tf.tanh(tf.matmul(x, weight))

    def run(x):
      with tf.GradientTape() as tape:
        tape.watch(x)
        y = x
        for _ in range(2):
          y = gradients.recomputed(link, y) if recompute else link(y)
        loss = tf.reduce_sum(y**2)
      return tape.gradient(loss, [x, weight])

    return run

  def test_changes_no_bit_of_what_is_not_compiled(self):
    x = tf.constant(np.float32([[0.3, -0.7], [1.1, 0.2]]))
    graph = tf.function(self._chain(True), autograph=False)
    for found in (self._chain(True)(x), graph(x)):
      for one, other in zip(found, self._chain(False)(x), strict=True):
        self.assertAllEqual(one, other)
    ops = graph.get_concrete_function(x).graph.get_operations()
    self.assertNotIn('XlaOptimizationBarrier', {op.type for op in ops})

  def test_compiled_programs_have_barriers(self):
    """A TPU's compiler undoes what is recomputed without them."""
    x = tf.constant(np.float32([[0.3, -0.7], [1.1, 0.2]]))
    compiled = tf.function(self._chain(True), jit_compile=True, autograph=False)
    text = compiled.experimental_get_compiler_ir(x)(stage='hlo')
    # Before and after what each of two functions computes again.
    self.assertLen(re.findall(r' opt-barrier\(', text), 4)
    for one, other in zip(compiled(x), self._chain(False)(x), strict=True):
      self.assertAllClose(one, other, rtol=1e-6)


if __name__ == '__main__':
  tf.test.main()
