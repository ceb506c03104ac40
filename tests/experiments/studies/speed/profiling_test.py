"""What the profile of a job tells."""

from absl.testing import absltest
import tensorflow as tf

from experiments.studies.speed import profiling
from experiments.studies.speed.timing import Job

_PRODUCTS = {'MatMul', '_MklMatMul'}  # As oneDNN calls it.


class OwnTimesTest(absltest.TestCase):
  def test_what_runs_within_another_counts_once(self):
    events = [
      (40, 20, 'inner'),
      (0, 100, 'outer'),
      (45, 5, 'innermost'),
      (60, 10, 'inner'),
      (100, 30, 'next'),
      (100, 10, 'first_within'),
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
    """Two products, a sum, and a root to end with."""
    x = tf.random.stateless_normal([64, 64], [0, 0])
    function = tf.function(
      lambda x: tf.sqrt(tf.reduce_sum(tf.matmul(tf.matmul(x, x), x) ** 2)),
      autograph=False,
    )
    job = Job(lambda: function(x).numpy())
    job.call()
    found = profiling.operations(job)
    runs = {one['operation']: one['runs'] for one in found}
    products = runs.keys() & _PRODUCTS
    self.assertEqual([runs[name] for name in products], [2])
    self.assertEqual(runs['Sum'], 1)
    seconds = [one['seconds'] for one in found]
    self.assertEqual(seconds, sorted(seconds, reverse=True))
    self.assertGreater(seconds[0], 0.0)
    whole = seconds[0] / found[0]['share']
    for one in found:
      self.assertAlmostEqual(one['seconds'] / whole, one['share'])

  def test_what_xla_compiled(self):
    x = tf.random.stateless_normal([64, 64], [0, 0])
    compiled = tf.function(
      lambda x: tf.sin(tf.cos(tf.math.erf(x))), jit_compile=True
    )
    function = tf.function(lambda x: compiled(tf.matmul(x, x)))
    job = Job(lambda: function(x).numpy())
    job.call()
    names = {one['operation'] for one in profiling.operations(job)}
    self.assertIn(profiling.COMPILED, names)
    self.assertTrue(names & _PRODUCTS)
    self.assertNoCommonElements(names, {'Sin', 'Cos', 'Erf'})


if __name__ == '__main__':
  absltest.main()
