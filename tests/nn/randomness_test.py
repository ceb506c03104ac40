"""Tests of the per-example random numbers: repeatable, uniform, unrelated."""

import math
import re

from absl.testing import parameterized
import numpy as np
import scipy.stats
import tensorflow as tf

from vim_tf.nn import randomness

# With fixed seeds a test passes always or never; this is how odd the numbers
# may look.
_LEAST_P = 1e-3
_MURMUR = (0x85EBCA6B, 0xC2B2AE35)


def _seeds(*values) -> tf.Tensor:
  return tf.constant(values, tf.uint32)


def _p_of_uniform(bins: np.ndarray, num_bins: int) -> float:
  counts = np.bincount(bins.reshape(-1), minlength=num_bins)
  return scipy.stats.chisquare(counts).pvalue


def _p_of_pairs(one: np.ndarray, other: np.ndarray, shift: int) -> float:
  """Chi-square of all 16 x 16 pairs of four bits, from bit `shift` on."""
  one, other = (((x >> shift) & 15).astype(np.int64) for x in (one, other))
  return _p_of_uniform(one * 16 + other, 256)


class HashTest(tf.test.TestCase, parameterized.TestCase):
  def test_mix_is_the_finaliser_of_murmur_hash(self):
    values = [0, 1, 2, 0x12345678, 0xFFFFFFFF]
    expected = []
    for x in values:  # In Python's unbounded integers.
      x = ((x ^ (x >> 16)) * _MURMUR[0]) % 2**32
      x = ((x ^ (x >> 13)) * _MURMUR[1]) % 2**32
      expected.append(x ^ (x >> 16))
    self.assertAllEqual(randomness.mix(_seeds(*values)), expected)
    self.assertEqual(expected[1], 0x514E28B7)  # Published for fmix32(1).

  def test_fold_tells_seeds_and_values_apart(self):
    seeds = tf.cast(tf.range(500), tf.uint32)[:, None]
    folded = randomness.fold(seeds, tf.range(500)[None])
    self.assertEqual(folded.shape, [500, 500])
    # 250,000 random words of 32 bits have about 7 collisions.
    self.assertLess(folded.numpy().size - np.unique(folded).size, 30)

  def test_fold_does_not_commute(self):
    one = randomness.fold(randomness.fold(_seeds(5), 1), 2)
    other = randomness.fold(randomness.fold(_seeds(5), 2), 1)
    self.assertNotAllEqual(one, other)


class BitsTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters('bits', 'uniform', 'dropout')
  def test_same_eager_compiled_and_under_xla(self, name):
    def draw(seeds, stream):
      if name == 'dropout':
        return randomness.dropout(tf.ones([3, 4, 5]), 0.3, seeds, stream)
      return getattr(randomness, name)(seeds, (4, 5), stream)

    seeds, stream = _seeds(0, 7, 2**32 - 1), tf.constant(3)
    expected = draw(seeds, stream)
    self.assertAllEqual(expected, draw(seeds, 3))
    self.assertAllEqual(expected, tf.function(draw)(seeds, stream))
    compiled = tf.function(draw, jit_compile=True)
    self.assertAllEqual(expected, compiled(seeds, stream))

  def test_an_example_does_not_depend_on_its_batch(self):
    together = randomness.bits(_seeds(11, 12, 13), (2, 3), 4)
    self.assertEqual(together.shape, [3, 2, 3])
    alone = randomness.bits(_seeds(12), (2, 3), 4)
    self.assertAllEqual(together[1], alone[0])

  def test_a_longer_draw_starts_like_a_shorter_one(self):
    long = randomness.bits(_seeds(1), (100,), 0)
    self.assertAllEqual(long[:, :10], randomness.bits(_seeds(1), (10,), 0))

  def test_shape_only_arranges(self):
    flat = randomness.bits(_seeds(1, 2), (60,), 3)
    for shape in ((1, 60), (60, 1), (4, 15), (3, 4, 5)):
      found = randomness.bits(_seeds(1, 2), shape, 3)
      self.assertAllEqual(found, tf.reshape(flat, [2, *shape]))

  def test_positions_are_no_constant_of_a_program(self):
    """Those of all dropouts of VIM-Base would be gigabytes of it."""

    @tf.function(jit_compile=True)
    def draw(seeds):
      return randomness.bits(seeds, (30, 500), 0)

    program = draw.experimental_get_compiler_ir(tf.TensorSpec([2], tf.uint32))
    constants = re.findall(
      r'= \w+\[([\d,]*)\]\S* constant\(', program(stage='hlo')
    )
    sizes = [
      math.prod(int(n) for n in dims.split(',') if n) for dims in constants
    ]
    self.assertLessEqual(max(sizes), 500)

  def test_scalar_draws(self):
    self.assertEqual(randomness.uniform(_seeds(1, 2), (), 0).shape, [2])

  @parameterized.product(
    along=['positions', 'seeds', 'streams'], shift=[0, 8, 16, 24]
  )
  def test_each_byte_is_uniform(self, along, shift):
    words = _words(along, 1 << 16)
    bins = ((words >> shift) & 255).astype(np.int64)
    self.assertGreater(_p_of_uniform(bins, 256), _LEAST_P)

  @parameterized.product(
    along=['positions', 'seeds', 'streams'],
    distance=[1, 2, 256],
    shift=[0, 28],
  )
  def test_neighbours_are_unrelated(self, along, distance, shift):
    words = _words(along, 1 << 16)
    p = _p_of_pairs(words[:-distance], words[distance:], shift)
    self.assertGreater(p, _LEAST_P)

  def test_same_position_of_other_seed_or_stream_is_unrelated(self):
    base = _words('positions', 1 << 16)
    for seed, stream in ((99, 6), (98, 7), (99 ^ 1 << 31, 7), (7, 99)):
      other = randomness.bits(_seeds(seed), (1 << 16,), stream)[0].numpy()
      for shift in (0, 28):
        self.assertGreater(_p_of_pairs(base, other, shift), _LEAST_P)

  def test_uniform_is_in_its_range_with_mean_and_variance(self):
    x = randomness.uniform(_seeds(1, 2, 3, 4), (1 << 16,), 0).numpy()
    self.assertBetween(x.min(), 0.0, 1e-4)
    self.assertBetween(x.max(), 1 - 1e-4, 1 - 2.0**-24)
    self.assertAllClose(x.mean(), 0.5, atol=4 * 12**-0.5 / 512)
    self.assertAllClose(x.var(), 1 / 12, atol=1e-3)
    statistic = scipy.stats.kstest(x.reshape(-1), 'uniform')
    self.assertGreater(statistic.pvalue, _LEAST_P)

  @parameterized.parameters(False, True)
  def test_gumbel_of_every_uniform_there_is(self, jit_compile):
    numbers = np.arange(1 << 24)
    gumbel = tf.function(
      randomness.gumbel, jit_compile=jit_compile, autograph=False
    )
    noise = gumbel(tf.cast(numbers, tf.float32) * 2.0**-24).numpy()
    expected = -np.log(-np.log((numbers + 0.5) * 2.0**-24))
    self.assertAllGreaterEqual(np.diff(noise), 0.0)
    self.assertLess(np.abs(noise - expected)[:-100].max(), 0.01)
    # Here float32 holds every other half step only.
    self.assertLess(np.abs(noise - expected)[-100:].max(), 0.3)


def _words(along: str, count: int) -> np.ndarray:
  """Words drawn by running positions, seeds or streams, the others fixed."""
  numbers = tf.range(count)
  if along == 'positions':
    return randomness.bits(_seeds(99), (count,), 7)[0].numpy()
  if along == 'seeds':
    return randomness.bits(tf.cast(numbers, tf.uint32), (), 7).numpy()
  # `bits` takes one stream a call, but broadcasts one an example just as well.
  return randomness.bits(tf.fill([count], _seeds(99)[0]), (), numbers).numpy()


class DropoutTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(0.1, 0.5, 0.9)
  def test_rate_and_mean(self, rate):
    x = tf.ones([4, 100, 100])
    y = randomness.dropout(x, rate, _seeds(1, 2, 3, 4), 0).numpy()
    self.assertAllClose(np.unique(y), [0.0, 1.0 / (1.0 - rate)])
    deviation = (rate * (1 - rate) / y.size) ** 0.5
    self.assertAllClose(np.mean(y == 0), rate, atol=4 * deviation)
    self.assertAllClose(y.mean(), 1.0, atol=4 * deviation / (1 - rate))

  def test_rate_0_is_the_identity(self):
    x = tf.random.stateless_normal([2, 3], [1, 2])
    self.assertIs(randomness.dropout(x, 0.0, _seeds(1, 2), 0), x)

  def test_gradient_is_that_of_the_kept_elements(self):
    x = tf.ones([1, 50])
    with tf.GradientTape() as tape:
      tape.watch(x)
      y = randomness.dropout(x, 0.5, _seeds(8), 1)
    self.assertAllEqual(tape.gradient(y, x), y)

  def test_keeps_the_dtype(self):
    x = tf.ones([1, 1000], tf.bfloat16)
    y = randomness.dropout(x, 0.1, _seeds(1), 0)
    self.assertEqual(y.dtype, tf.bfloat16)
    self.assertAllClose(tf.reduce_max(y), 1 / 0.9, rtol=0.01)


if __name__ == '__main__':
  tf.test.main()
