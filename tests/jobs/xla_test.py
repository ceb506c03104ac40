"""Tests that all that a replica runs compiles with XLA, in bfloat16.

TPUs run nothing else. The list is `replica_functions`; here it is tiny, and
compiled and run for the CPU.
"""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from vim_tf.jobs import replica_functions


def _example(spec: tf.TensorSpec) -> tf.Tensor:
  rng = np.random.default_rng(0)
  if spec.dtype.is_floating:
    return tf.constant(rng.uniform(0.1, 0.9, spec.shape), spec.dtype)
  return tf.cast(rng.integers(0, 2, spec.shape), spec.dtype)


class XlaTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.parameters(*replica_functions.tiny())
  def test_compiles_at_static_shapes(self, name):
    tf.keras.utils.set_random_seed(1)
    function = replica_functions.tiny()[name]()
    arguments = tf.nest.map_structure(_example, function.specs)
    compiled = tf.function(function.run, jit_compile=True, autograph=False)
    found = compiled(*arguments)
    library = compiled.get_concrete_function(*arguments).graph.as_graph_def()
    self.assertFalse(
      [f for f in library.library.function if '_XlaMustCompile' in f.attr],
      'Within a program of XLA another one is compiled.',
    )
    for value in tf.nest.flatten(found):
      self.assertTrue(value.shape.is_fully_defined())
      self.assertAllEqual(
        tf.math.is_finite(tf.cast(value, tf.float32)),
        tf.ones(value.shape, tf.bool),
      )

  def test_operations_that_a_device_lacks_are_named(self):
    # This TensorFlow knows no TPU, but XLA's CPU.
    self.assertEmpty(replica_functions.without_kernel('XLA_CPU_JIT'))
    missing = replica_functions.without_kernel('XLA_TPU_JIT')
    self.assertEqual(set(missing), set(replica_functions.tiny()))
    self.assertIn('MatMul', missing['likelihood'])


if __name__ == '__main__':
  tf.test.main()
