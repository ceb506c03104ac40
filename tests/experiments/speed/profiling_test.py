"""What the profile of a job tells."""

from absl.testing import absltest
import tensorflow as tf

from experiments.speed import profiling
from experiments.speed.profiling import Event
from experiments.speed.timing import Job


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
    self.assertAlmostEqual(sum(one['share'] for one in found), 1.0)


if __name__ == '__main__':
  absltest.main()
