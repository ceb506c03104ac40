"""Tests of the draw of one code: frequencies, filters and guidance."""

from absl.testing import parameterized
import numpy as np
import scipy.special
import scipy.stats
import tensorflow as tf

from vim_tf.nn import randomness
from vim_tf.vim import sampling

_SIZE = 12
_DRAWS = 20_000
_LEAST_P = 1e-4  # Of some thirty checks one in a thousand may well come up.


def _logits(seed: int = 0) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return rng.normal(0, 1.5, [_SIZE]).astype(np.float32)


def _draw(logits, uniforms, temperature=1.0, top_k=0, top_p=1.0) -> np.ndarray:
  """Draws once for each uniform number, all with the same settings."""
  count = len(uniforms)
  return sampling.draw(
    tf.tile(tf.constant(logits)[None], [count, 1]),
    tf.constant(uniforms, tf.float32),
    tf.fill([count], temperature),
    tf.fill([count], top_k),
    tf.fill([count], top_p),
  ).numpy()


def _uniforms(count: int = _DRAWS) -> np.ndarray:
  """What the sampler would use: a number a code, for each seed."""
  seeds = tf.cast(tf.range(count), tf.uint32)
  return randomness.uniform(seeds, (_SIZE,), 0).numpy()


def _reference(logits, temperature=1.0, top_k=0, top_p=1.0) -> np.ndarray:
  """The filtered distribution, code by code."""
  probabilities = scipy.special.softmax(np.float64(logits) / temperature)
  order = sorted(range(_SIZE), key=lambda code: -probabilities[code])
  kept = order[: top_k or _SIZE]
  total = sum(probabilities[code] for code in kept)
  result, held = np.zeros([_SIZE]), 0.0
  for code in kept:
    if held >= top_p * total:
      break
    result[code] = probabilities[code]
    held += probabilities[code]
  return result / result.sum()


class DrawTest(tf.test.TestCase, parameterized.TestCase):
  def _check_frequencies(self, codes, expected):
    counts = np.bincount(codes, minlength=_SIZE)
    self.assertEqual(counts[expected == 0].sum(), 0)
    found, expected = counts[expected > 0], expected[expected > 0]
    if len(found) > 1:
      result = scipy.stats.chisquare(found, expected * len(codes))
      self.assertGreater(result.pvalue, _LEAST_P)

  @parameterized.parameters(
    (1.0, 0, 1.0),
    (0.5, 0, 1.0),
    (2.0, 0, 1.0),
    (1.0, 1, 1.0),
    (1.0, 3, 1.0),
    (1.0, 0, 0.1),
    (1.0, 0, 0.6),
    (1.0, 0, 0.95),
    (0.7, 6, 0.8),
    (1.3, 50, 0.9),
  )
  def test_frequencies_match_the_reference(self, temperature, top_k, top_p):
    for seed in range(3):
      logits = _logits(seed)
      codes = _draw(logits, _uniforms(), temperature, top_k, top_p)
      self.assertEqual(codes.dtype, np.int32)
      self._check_frequencies(
        codes, _reference(logits, temperature, top_k, top_p)
      )

  def test_support_is_exactly_that_of_the_reference(self):
    for seed in range(5):
      for top_k in (0, 2, 7, 50):
        for top_p in (0.05, 0.3, 0.5, 0.9, 0.99, 1.0):
          kept = sampling.restrict(
            tf.constant(_logits(seed))[None],
            tf.constant([top_k]),
            tf.constant([top_p]),
          )[0].numpy()
          expected = _reference(_logits(seed), top_k=top_k, top_p=top_p) > 0
          self.assertAllEqual(np.isfinite(kept), expected)
          self.assertAllEqual(kept[expected], _logits(seed)[expected])

  def test_rounding_errors_hardly_move_draws(self):
    rng = np.random.default_rng(0)
    logits = np.float32(rng.normal(0, 2, [256, 8192]))
    noise = np.float32(rng.normal(0, 1e-6, logits.shape))
    seeds = tf.cast(tf.range(256), tf.uint32)
    uniforms = randomness.uniform(seeds, (8192,), 0)
    settings = (tf.ones([256]), tf.zeros([256], tf.int32), tf.ones([256]))
    codes = sampling.draw(tf.constant(logits), uniforms, *settings)
    moved = sampling.draw(tf.constant(logits + noise), uniforms, *settings)
    self.assertAllEqual(codes, moved)

  def test_temperature_0_is_argmax(self):
    for seed in range(5):
      logits = _logits(seed)
      codes = _draw(logits, _uniforms(100), temperature=0.0)
      self.assertAllEqual(codes, [np.argmax(logits)] * 100)

  def test_temperature_0_takes_the_first_of_equals(self):
    logits = np.float32([0.0, 2.0, 1.0, 2.0])
    codes = _draw(logits, _uniforms(2)[:, :4], temperature=0.0)
    self.assertAllEqual(codes, [1, 1])

  @parameterized.parameters(False, True)
  def test_no_uniform_makes_a_hopeless_code_win(self, jit_compile):
    """Every number that the hash can give, against the least of them."""
    draw = tf.function(sampling.draw, jit_compile=jit_compile, autograph=False)
    part = 1 << 21
    logits = tf.tile([[-60.0, 0.0]], [part, 1])  # One in e^60.
    settings = tf.ones([part]), tf.zeros([part], tf.int32), tf.ones([part])
    for first in range(0, 1 << 24, part):
      uniforms = tf.cast(tf.range(first, first + part), tf.float32) * 2.0**-24
      uniforms = tf.stack([uniforms, tf.zeros([part])], axis=1)
      codes = draw(logits, uniforms, *settings)
      self.assertEqual(int(tf.reduce_min(codes)), 1)

  def test_the_smallest_top_p_keeps_the_likeliest(self):
    for top_p in (1e-6, 1e-40, 1e-50):
      codes = _draw(_logits(), _uniforms(100), top_p=top_p)
      self.assertAllEqual(codes, [np.argmax(_logits())] * 100)

  def test_where_nothing_is_asked_nothing_is_left_out(self):
    """Even where the running sum of the probabilities rounds to 1."""
    rng = np.random.default_rng(0)
    logits = tf.constant(rng.normal(0, 2, [8, 8192]), tf.float32)
    nothing = tf.zeros([8], tf.int32), tf.ones([8])
    self.assertAllEqual(sampling.restrict(logits, *nothing), logits)
    top_k = tf.fill([8], 1000)
    kept = sampling.restrict(logits, top_k, tf.ones([8]))
    self.assertAllEqual(tf.reduce_sum(tf.cast(kept > -1e9, tf.int32), 1), top_k)

  def test_settings_are_of_each_example(self):
    logits = np.stack([_logits(seed) for seed in range(4)])
    settings = [(1.0, 0, 1.0), (0.5, 3, 1.0), (0.0, 0, 1.0), (1.5, 0, 0.4)]
    uniforms = _uniforms(4)
    temperature, top_k, top_p = zip(*settings)
    together = sampling.draw(
      tf.constant(logits),
      tf.constant(uniforms),
      tf.constant(temperature),
      tf.constant(top_k),
      tf.constant(top_p),
    )
    for i, values in enumerate(settings):
      alone = _draw(logits[i], uniforms[i : i + 1], *values)
      self.assertEqual(together[i], alone[0])

  def test_under_xla(self):
    logits = tf.tile(tf.constant(_logits())[None], [500, 1])
    args = (
      logits,
      tf.constant(_uniforms(500)),
      tf.fill([500], 0.9),
      tf.fill([500], 8),
      tf.fill([500], 0.9),
    )
    compiled = tf.function(sampling.draw, jit_compile=True)
    self.assertAllEqual(compiled(*args), sampling.draw(*args))


class GuideTest(tf.test.TestCase):
  def _guide(self, scale):
    conditional, unconditional = _logits(1)[None], _logits(2)[None]
    return sampling.guide(
      tf.constant(conditional), tf.constant(unconditional), tf.constant([scale])
    )[0].numpy()

  def test_1_is_none_exactly(self):
    self.assertAllEqual(self._guide(1.0), _logits(1))

  def test_0_is_unconditional_exactly(self):
    self.assertAllEqual(self._guide(0.0), _logits(2))

  def test_above_1_goes_on_beyond(self):
    expected = 3.0 * _logits(1) - 2.0 * _logits(2)
    self.assertAllClose(self._guide(3.0), expected, atol=1e-5)

  def test_scale_is_of_each_example(self):
    found = sampling.guide(
      tf.ones([2, 3]), tf.zeros([2, 3]), tf.constant([2.0, 0.5])
    )
    self.assertAllClose(found, [[2.0] * 3, [0.5] * 3])


class SamplingConfigTest(tf.test.TestCase, parameterized.TestCase):
  def _scales(self, scale, *schedule, num_codes=5):
    config = sampling.SamplingConfig(1.0, 0, 1.0, scale, *schedule)
    return config.guidance_scales(num_codes)

  def test_schedules_go_from_1_to_the_scale(self):
    self.assertAllEqual(self._scales(0.3), np.float32([0.3] * 5))
    self.assertAllClose(self._scales(3.0, 'linear'), [1, 1.5, 2, 2.5, 3])
    self.assertAllClose(self._scales(0.0, 'linear'), [1, 0.75, 0.5, 0.25, 0])
    self.assertAllClose(self._scales(5.0, 'linear', 2.0), [1, 1.25, 2, 3.25, 5])
    half = 0.5**0.5
    self.assertAllClose(
      self._scales(3.0, 'cosine'), [1, 2 - half, 2, 2 + half, 3]
    )
    self.assertAllClose(self._scales(3.0, 'linear', num_codes=1), [1])

  @parameterized.parameters('constant', 'linear', 'cosine')
  def test_scale_1_is_exactly_1_everywhere(self, schedule):
    self.assertAllEqual(self._scales(1.0, schedule, 0.3), np.ones([5]))


if __name__ == '__main__':
  tf.test.main()
