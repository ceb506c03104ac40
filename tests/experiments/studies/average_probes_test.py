"""Averages of probes against figures worked out by hand; what is refused."""

import json
import math
import pathlib

from absl.testing import absltest, parameterized

from tests.experiments import running

_TOP1 = {0: (0.5, 0.8, 0.6), 1: (0.6, 0.7, 0.5), 2: (0.7, 0.9, 0.7)}
_BEST = (1, 2, 1)


def _row(top1: float) -> dict:
  return {
    'top1': top1,
    'top1_standard_error': None,  # A probe of one seed.
    'top1_image_error': 0.02,
    'top5': 0.95,
  }


def _record(probe: int) -> dict:
  """The figures of a probe of one seed, as `train_probe` leaves them."""
  blocks = [
    {'block': block, 'validation_top1': 0.5, **_row(values[probe])}
    for block, values in _TOP1.items()
  ]
  best = _BEST[probe]
  margin = blocks[best]['top1'] - 0.4
  return {
    'job': 'probe',
    'figures': {
      'best_block': best,
      'best_block_by_seed': [best],
      'num_blocks': 3,
      **_row(blocks[best]['top1']),
      'held_out_images': 100,
      'largest_class': 0.2,
      'baselines': {
        'pixels': {**_row(0.4), 'margin': margin, 'margin_image_error': 0.03}
      },
      'blocks': blocks,
      'seeds': 1,
    },
    'protocol': {
      'data': 'digits',
      'passes': 2,
      'first_seed': probe,
      'vim_fingerprint': f'vim {probe}',
    },
  }


class AverageProbesTest(running.Refused, parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.binary = running.Binary('studies.average_probes')

  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.create_tempdir().full_path)
    self.records = {f'{i}': _record(i) for i in range(3)}

  def _run(self, records: dict, *names: str) -> running.Result:
    for name, record in records.items():
      (self.root / name).mkdir(exist_ok=True)
      (self.root / name / 'figures.json').write_text(json.dumps(record))
    probes = ','.join(str(self.root / name) for name in names or records)
    return self.binary.run(f'--probes={probes}', f'--out={self.root / "out"}')

  def test_by_hand(self):
    result = self._run(self.records)
    self.assertEqual(result.status, 0, result.error)
    record = json.loads((self.root / 'out' / 'figures.json').read_text())
    figures = record['figures']
    # The blocks chosen, 1, 2 and 1, have 0.6, 0.9 and 0.5.
    error = math.sqrt(
      ((0.6 - 2 / 3) ** 2 + (0.9 - 2 / 3) ** 2 + (0.5 - 2 / 3) ** 2) / 2 / 3
    )
    self.assertAlmostEqual(figures['top1'], 2 / 3)
    self.assertAlmostEqual(figures['top1_standard_error'], error)
    self.assertAlmostEqual(figures['top1_image_error'], 0.02)
    pixels = figures['baselines']['pixels']
    self.assertAlmostEqual(pixels['margin'], 2 / 3 - 0.4)
    self.assertAlmostEqual(pixels['margin_standard_error'], error)
    self.assertAlmostEqual(pixels['top1_standard_error'], 0.0)
    self.assertEqual(figures['best_block'], 1)
    self.assertEqual(figures['best_block_by_seed'], list(_BEST))
    self.assertEqual(figures['seeds'], 3)
    for row in figures['blocks']:
      values = _TOP1[row['block']]
      self.assertAlmostEqual(row['top1'], sum(values) / 3)
      self.assertGreater(row['top1_standard_error'], 0.0)
    self.assertEqual(
      record['protocol']['vim_fingerprint'], ['vim 0', 'vim 1', 'vim 2']
    )
    self.assertEqual(record['protocol']['passes'], 2)
    self.assertTrue((self.root / 'out' / 'accuracy_by_block.png').exists())

  @parameterized.parameters(
    ('passes', 4, 'passes is 2 in'),
    ('vim_fingerprint', 'vim 2', 'are probes of the same VIM'),
  )
  def test_refuses_probes_that_differ(self, name, value, text):
    self.records['1']['protocol'][name] = value
    self._assert_refused(self._run(self.records), text)
    self.assertFalse((self.root / 'out').exists())

  @parameterized.parameters(
    (('0',), 'name two probes or more'),
    (('0', 'none'), 'is no finished probe'),
    (('0', 'broken'), 'is no finished probe'),
    (('0', 'other'), 'is not of a probe'),
  )
  def test_refuses(self, names, text):
    (self.root / 'broken').mkdir()
    (self.root / 'broken' / 'figures.json').write_text('{')
    other = {**self.records['1'], 'job': 'reconstruction'}
    result = self._run({**self.records, 'other': other}, *names)
    self._assert_refused(result, text)
    self.assertFalse((self.root / 'out').exists())

  def test_overwrites_nothing(self):
    self.assertEqual(self._run(self.records).status, 0)
    before = running.snapshot(self.root)
    self._assert_refused(self._run(self.records), 'has figures already')
    self.assertEqual(running.snapshot(self.root), before)


if __name__ == '__main__':
  absltest.main()
