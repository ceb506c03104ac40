"""What the profile of a job tells."""

from absl.testing import absltest
import tensorflow as tf

from experiments.studies.speed import profiling
from experiments.studies.speed.profiling import Event
from experiments.studies.speed.timing import Job


class OwnTimesTest(absltest.TestCase):
  def test_what_runs_within_another_counts_once(self):
    events = [
      Event(40, 20, 'inner'),
      Event(0, 100, 'outer'),
      Event(45, 5, 'innermost'),
      Event(60, 10, 'inner'),
      Event(100, 30, 'next'),
      Event(100, 10, 'first_within'),
    ]
    self.assertEqual(
      profiling.own_times(events),
      [
        ('outer', 70),
        ('inner', 15),
        ('innermost', 5),
        ('inner', 10),
        ('next', 20),
        ('first_within', 10),
      ],
    )

  def test_nothing(self):
    self.assertEqual(profiling.own_times([]), [])


class OperationsTest(absltest.TestCase):
  def test_the_operations_of_a_function(self):
    """Two large products and a small sum."""
    x = tf.random.stateless_normal([384, 384], [0, 0])
    function = tf.function(
      lambda x: tf.reduce_sum(tf.matmul(tf.matmul(x, x), x)), autograph=False
    )
    job = Job(lambda: function(x).numpy())
    job.call()
    found = profiling.operations(job)
    product = found[0]  # oneDNN calls it otherwise.
    self.assertIn(product['operation'], ('MatMul', '_MklMatMul'))
    self.assertEqual(product['runs'], 2)
    (total,) = [one for one in found if one['operation'] == 'Sum']
    self.assertEqual(total['runs'], 1)
    self.assertGreater(product['seconds'], total['seconds'])
    self.assertGreater(product['share'], total['share'])
    self.assertLess(product['share'], 1.0)  # One after the other.

  def test_what_xla_compiled(self):
    """Far more work than the one product beside it."""
    x = tf.random.stateless_normal([512, 512], [0, 0])
    compiled = tf.function(
      lambda x: tf.sin(tf.cos(tf.math.erf(x))), jit_compile=True
    )
    function = tf.function(
      lambda x: compiled(tf.tile(tf.matmul(x[:2], x), [2000, 1]))
    )
    job = Job(lambda: function(x).numpy())
    job.call()
    found = profiling.operations(job)
    self.assertEqual(found[0]['operation'], profiling.COMPILED)
    names = {one['operation'] for one in found}
    self.assertTrue(names & {'MatMul', '_MklMatMul'})
    self.assertNoCommonElements(names, {'Sin', 'Cos', 'Erf'})


if __name__ == '__main__':
  absltest.main()
