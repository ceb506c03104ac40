"""Tests of the counting models against the entropies of known sources."""

import itertools

from absl.testing import absltest
import numpy as np

from vim_tf.metrics import ngram


def _markov(rng, transitions, images, length):
  """Codes of a Markov chain, the first one drawn uniformly."""
  cumulative = transitions.cumsum(axis=1)
  codes = np.zeros([images, length], np.int32)
  codes[:, 0] = rng.integers(0, len(transitions), size=images)
  for i in range(1, length):
    draws = rng.uniform(size=[images, 1])
    codes[:, i] = (draws > cumulative[codes[:, i - 1]]).sum(axis=1)
  return codes


class NgramTest(absltest.TestCase):
  def test_uniform_codes_cost_log2_of_their_number(self):
    rng = np.random.default_rng(0)
    train, test = rng.integers(0, 64, size=[2, 400, 64], dtype=np.int32)
    scores = ngram.reference_bits_per_code(train, test, 64)
    # Order 1 could only overfit: its smoothing must find that out.
    self.assertAlmostEqual(scores['order0_bits_per_code'], 6.0, delta=0.01)
    self.assertAlmostEqual(scores['order1_bits_per_code'], 6.0, delta=0.02)

  def test_skewed_codes_cost_their_entropy(self):
    rng = np.random.default_rng(1)
    p = np.array([0.5, 0.25, 0.125, 0.125])
    train, test = rng.choice(4, p=p, size=[2, 1000, 64])
    score = ngram.Order0.fit(train, 8).bits_per_code(test)
    self.assertAlmostEqual(score, 1.75, delta=0.02)

  def test_cycle_costs_nothing_but_its_start(self):
    starts = np.random.default_rng(2).integers(0, 16, size=[200, 1])
    codes = (starts + np.arange(64)) % 16
    scores = ngram.reference_bits_per_code(codes[:100], codes[100:], 16)
    self.assertAlmostEqual(scores['order0_bits_per_code'], 4.0, delta=0.01)
    # Four bits for one code of 64 are all that is left.
    self.assertAlmostEqual(scores['order1_bits_per_code'], 4 / 64, delta=0.02)

  def test_markov_chain_costs_its_entropy_rate(self):
    rng = np.random.default_rng(3)
    transitions = rng.dirichlet(np.full(12, 0.3), size=12)
    values, vectors = np.linalg.eig(transitions.T)
    stationary = np.real(vectors[:, np.argmax(np.real(values))])
    stationary /= stationary.sum()
    log2 = np.log2(transitions, where=transitions > 0, out=0 * transitions)
    rate = -np.sum(stationary[:, None] * transitions * log2)
    codes = _markov(rng, transitions, images=600, length=200)
    scores = ngram.reference_bits_per_code(codes[:300], codes[300:], 12)
    self.assertAlmostEqual(scores['order1_bits_per_code'], rate, delta=0.03)
    self.assertGreater(scores['order0_bits_per_code'], rate + 0.3)

  def test_probabilities_sum_to_one(self):
    train = np.array([[0, 1, 1], [2, 0, 1], [0, 0, 3], [1, 1, 1]])
    everything = np.array(list(itertools.product(range(5), repeat=3)))
    for model in (ngram.Order0.fit(train, 5), ngram.Order1.fit(train, 5)):
      bits = [3 * model.bits_per_code(codes[None]) for codes in everything]
      self.assertAlmostEqual(np.sum(2.0 ** -np.array(bits)), 1.0)

  def test_smoothing_is_the_written_formula(self):
    train = np.array([[0, 1, 0, 1], [1, 0, 1, 2]])
    order0 = ngram.Order0(train, 4, alpha=0.5)
    np.testing.assert_allclose(
      order0.probabilities, np.array([3.5, 4.5, 1.5, 0.5]) / 10
    )
    order1 = ngram.Order1(train, order0, strength=2.0)
    # Start before 0 (once of two), 0 before 1 (three of three), 1 before 3
    # (never of three; the last code of an image is no context).
    p = [(1 + 2 * 0.35) / 4, (3 + 2 * 0.45) / 5, (0 + 2 * 0.05) / 5]
    self.assertAlmostEqual(
      order1.bits_per_code(np.array([[0, 1, 3]])), -np.mean(np.log2(p))
    )

  def test_unseen_codes_cost_finitely_many_bits(self):
    train = np.zeros([20, 4], np.int32)
    scores = ngram.reference_bits_per_code(train, train + 7, 8192)
    for bits in scores.values():
      self.assertGreater(bits, 10.0)
      self.assertTrue(np.isfinite(bits))

  def test_one_image_is_enough(self):
    codes = np.array([[3, 1, 2, 0]])
    for bits in ngram.reference_bits_per_code(codes, codes, 4).values():
      self.assertLess(bits, 2.01)

  def test_bad_codes_are_refused(self):
    codes = np.zeros([3, 4], np.int32)
    with self.assertRaisesRegex(ValueError, r'\[4\], but must be \[images'):
      ngram.Order0.fit(codes[0], 4)
    with self.assertRaisesRegex(ValueError, r'\[0, 4\]'):
      ngram.Order1.fit(codes[:0], 4)
    with self.assertRaisesRegex(ValueError, 'codebook has 4'):
      ngram.Order1.fit(codes, 4).bits_per_code(codes + 4)
    with self.assertRaisesRegex(ValueError, 'codebook has 4'):
      ngram.Order1.fit(codes + 4, 4)


if __name__ == '__main__':
  absltest.main()
