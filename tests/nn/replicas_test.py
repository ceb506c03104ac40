"""Tests of functions that all replicas compute: parts, order, what is added."""

import threading

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import testing
from vim_tf.nn import replicas


def _strategy(count: int) -> tf.distribute.Strategy:
  if not count:
    return tf.distribute.get_strategy()
  if count == 1:
    return tf.distribute.OneDeviceStrategy('/cpu:0')
  return tf.distribute.MirroredStrategy([f'cpu:{i}' for i in range(count)])


class OnReplicasTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.parameters(0, 1, 2)
  def test_every_example_comes_back_in_its_place(self, count):
    strategy = _strategy(count)
    with strategy.scope():
      weight = tf.Variable([[2.0, 3.0]])
    rows = []  # Of the parts that were traced.

    def function(batch):
      rows.append(batch['x'].shape[0])
      return {'y': batch['x'] @ weight, 'id': batch['id'], 'none': None}

    compute = replicas.OnReplicas(function, strategy)
    for size in (5, 3, 1, 8):
      x = np.arange(size, dtype=np.float32)[:, None]
      found = compute({'x': x, 'id': np.arange(size, dtype=np.uint32)})
      self.assertAllEqual(found['y'], x @ [[2.0, 3.0]])
      self.assertAllEqual(found['id'], np.arange(size))
      self.assertIsNone(found['none'])
    if count == 2:  # Smaller batches are filled up, and traced no more.
      self.assertEqual(sorted(set(rows)), [3, 4])

  def test_threads_of_a_cpu_compute_their_parts_at_once(self):
    self.assertEqual(replicas.streams(_strategy(1)), 1)
    with testing.one_thread_an_operation(3):
      self.assertEqual(replicas.streams(_strategy(2)), 1)
      self.assertEqual(replicas.streams(_strategy(1)), 3)
      together = threading.Barrier(3, timeout=60)
      sizes = []

      def function(x):
        together.wait()  # Breaks unless all three are there.
        sizes.append(len(x))
        return {'double': 2 * x, 'none': None}

      compute = replicas.OnReplicas(function, _strategy(1), traced=False)
    for size in (8, 7):  # Filled up to three times three.
      found = compute(np.arange(size))
      self.assertAllEqual(found['double'], 2 * np.arange(size))
      self.assertIsNone(found['none'])
    self.assertEqual(sizes, [3] * 6)
    together = threading.Barrier(1)
    self.assertAllEqual(compute(np.arange(2))['double'], [0, 2])

  def test_an_example_that_is_added_is_one_of_the_batch(self):
    compute = replicas.OnReplicas(
      lambda x: tf.debugging.check_numerics(1.0 / x, 'added'), _strategy(2)
    )
    self.assertAllEqual(compute(np.float32([1, 2, 4])), [1.0, 0.5, 0.25])

  def test_where_a_model_was_made(self):
    strategy = _strategy(2)
    with strategy.scope():
      model = tf.keras.Model()
    self.assertIs(replicas.of(model), strategy)
    self.assertFalse(replicas.is_one(strategy))
    self.assertTrue(replicas.is_one(replicas.of(tf.keras.Model())))

  def test_many_replicas_get_larger_batches(self):
    self.assertEqual(replicas.batch_size(_strategy(1)), 64)
    self.assertEqual(replicas.batch_size(_strategy(2)), 64)


if __name__ == '__main__':
  cpu = tf.config.list_physical_devices('CPU')[0]
  tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
  )
  tf.test.main()
