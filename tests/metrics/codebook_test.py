"""Tests of usage and perplexity on codes whose figures are known."""

from absl.testing import absltest, parameterized
import numpy as np
import scipy.stats

from vim_tf.metrics import codebook


def _figures(codes, codebook_size, window=codebook.PAPER_WINDOW):
  meter = codebook.CodebookMeter(codebook_size, window)
  meter.update(codes)
  return meter.result()


class CodebookTest(parameterized.TestCase):
  def test_perplexity_of_equal_use_is_the_number_of_codes_used(self):
    codes = np.tile(np.arange(7), 3)[None]
    counts = codebook.histogram(codes, 20)
    self.assertAlmostEqual(codebook.perplexity(counts), 7.0)
    self.assertAlmostEqual(codebook.usage(counts), 7 / 20)

  def test_perplexity_equals_scipy(self):
    counts = np.random.default_rng(0).integers(0, 9, size=50)
    expected = np.exp(scipy.stats.entropy(counts))
    self.assertAlmostEqual(codebook.perplexity(counts), expected)

  def test_paper_usage_is_a_mean_over_windows(self):
    # Two windows of 2 images: {0, 1, 2} and {0}; the split uses 3 of 8.
    codes = np.array([[0, 1], [1, 2], [0, 0], [0, 0]])
    result = _figures(codes, 8, window=2)
    self.assertAlmostEqual(result['usage_per_2_images'], (3 / 8 + 1 / 8) / 2)
    self.assertAlmostEqual(result['usage'], 3 / 8)
    self.assertEqual(result['images_per_window'], 2)

  def test_incomplete_window_is_left_out_of_the_mean_only(self):
    codes = np.array([[0, 1], [1, 2], [5, 6]])
    result = _figures(codes, 8, window=2)
    self.assertAlmostEqual(result['usage_per_2_images'], 3 / 8)
    self.assertAlmostEqual(result['usage'], 5 / 8)

  @parameterized.parameters(1, 2, 3, 5, 7, 20)
  def test_the_size_of_batches_does_not_show(self, batch):
    codes = np.random.default_rng(1).integers(0, 40, size=[20, 6])
    meter = codebook.CodebookMeter(40, window=5)
    for i in range(0, 20, batch):
      meter.update(codes[i : i + batch].astype(np.int32))
    expected = np.mean(
      [len(np.unique(codes[i : i + 5])) / 40 for i in range(0, 20, 5)]
    )
    result = meter.result()
    self.assertAlmostEqual(result['usage_per_5_images'], expected)
    self.assertEqual(result, _figures(codes, 40, window=5))

  def test_codes_of_another_codebook_are_refused(self):
    with self.assertRaisesRegex(ValueError, r'\[0, 8\], but.* has 8:'):
      _figures(np.array([[0, 8]]), 8)
    with self.assertRaisesRegex(ValueError, r'\[-1, 3\]'):
      _figures(np.array([[-1, 3]]), 8)

  def test_no_codes_are_refused(self):
    with self.assertRaisesRegex(ValueError, 'at least one image'):
      codebook.CodebookMeter(8).result()


if __name__ == '__main__':
  absltest.main()
