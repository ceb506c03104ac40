"""Tests of the ablations' rows and of what is made of their figures."""

from absl.testing import absltest, parameterized
import numpy as np
from scipy import stats

from experiments.studies.ablations import budgets
from experiments.studies.ablations import claims as claims_lib
from experiments.studies.ablations import rows as rows_lib
from experiments.studies.ablations.claims import HIGHER, LOWER, Claim
from vim_tf import config as config_lib
from vim_tf.training import workdir as workdir_lib

_SMALL = budgets.BUDGETS['small']
_ROWS = rows_lib.make(_SMALL)


def _lines(row, values, metric='l2', seeds=None):
  seeds = range(len(values)) if seeds is None else seeds
  return [
    {'row': row, 'seed': seed, 'figures': {metric: value}}
    for seed, value in zip(seeds, values)
  ]


class RowsTest(parameterized.TestCase):
  @parameterized.parameters(*budgets.BUDGETS)
  def test_a_row_changes_what_it_says_and_no_more(self, name):
    budget = budgets.BUDGETS[name]
    rows = rows_lib.make(budget)
    found = set()
    for row in rows.values():
      if row.kind == rows_lib.TOKENIZER:
        config = rows_lib.stage1(row, budget, 3, 'data')
        base = rows_lib.stage1(rows['base'], budget, 3, 'data')
      elif row.kind in (rows_lib.VIM, rows_lib.PROBE):
        config = rows_lib.stage2(row, budget, 3, 'data', 'tokenizer')
        base = rows_lib.stage2(rows['vim_deep'], budget, 3, 'data', 'tokenizer')
        tokenizer = rows[row.tokenizer]
        config_lib.check_stages_match(
          rows_lib.stage1(tokenizer, budget, 3, 'data').model, config
        )
      else:
        self.assertEqual(dict(row.changes), {})
        self.assertEqual(rows[row.vim].kind, rows_lib.VIM)
        continue
      ours, theirs = (
        workdir_lib.flat(config_lib.to_dict(x)) for x in (config, base)
      )
      changed = {key for key in ours if ours[key] != theirs[key]}
      if row.kind == rows_lib.PROBE:  # Of an unconditional VIM.
        changed.remove('model.num_classes')
      self.assertLessEqual(changed, set(row.changes), row.name)
      found.add((row.kind, row.tokenizer, tuple(sorted(ours.items()))))
    runs = [r for r in rows.values() if r.kind != rows_lib.SAMPLES]
    self.assertLen(found, len(runs))

  def test_what_a_row_stands_upon_comes_before_it(self):
    names = list(_ROWS)
    for row in _ROWS.values():
      for upon in filter(None, (row.tokenizer, row.vim)):
        self.assertLess(names.index(upon), names.index(row.name))

  def test_fingerprints_tell_settings_apart(self):
    def fingerprints(rows, budget=_SMALL):
      return {
        name: rows_lib.fingerprint(row, budget, rows)
        for name, row in rows.items()
      }

    before = fingerprints(_ROWS)
    self.assertLen(set(before.values()), len(_ROWS))
    # A tokenizer that changes takes along what stands upon it.
    changed = rows_lib.make(_SMALL)
    base = changed['base']
    changed['base'] = rows_lib.Row(
      base.name, base.kind, base.words, {'losses.l2': '2'}
    )
    after = fingerprints(changed)
    self.assertEqual(
      {name for name in _ROWS if before[name] != after[name]},
      {'base', 'vim_deep', 'vim_shallow', 'accept_half', 'accept_quarter'},
    )

  def test_the_network_that_selects_does_not_score(self):
    self.assertNotIn(rows_lib.NETWORK, rows_lib.CLASSIFIER)


class ClaimsTest(parameterized.TestCase):
  def test_every_claim_is_about_rows_and_known_metrics(self):
    for claim in claims_lib.CLAIMS:
      with self.subTest(claim.words):
        self.assertIn(claim.row, _ROWS)
        self.assertIn(claim.against, _ROWS)
        self.assertContainsSubset(claim.metrics, claims_lib.METRICS)
        self.assertIn(claim.direction(_ROWS), (HIGHER, LOWER))
        papers = claim.papers(_ROWS)
        if papers:  # Equal figures would claim nothing.
          self.assertNotEqual(*papers)

  def test_every_row_has_a_claim(self):
    claimed = {
      name for claim in claims_lib.CLAIMS for name in (claim.row, claim.against)
    }
    upon = {row.tokenizer for row in _ROWS.values()}
    self.assertEqual(claimed | (upon - {''}), set(_ROWS))

  def test_directions_of_the_paper(self):
    directions = {
      (c.row, c.against, c.metric): c.direction(_ROWS)
      for c in claims_lib.CLAIMS
    }
    self.assertEqual(directions['no_l2_norm', 'base', 'usage'], LOWER)
    self.assertEqual(directions['patchgan', 'base', 'l2'], LOWER)
    self.assertEqual(directions['patchgan', 'base', 'rfd'], HIGHER)
    self.assertEqual(directions['accept_half', 'vim_deep', 'gfd'], LOWER)
    self.assertEqual(directions['logit_laplace', 'base', 'usage'], HIGHER)

  def test_verdicts_are_those_of_a_paired_t_test(self):
    claim = Claim('', '', 'cnn', 'base', 'l2', expected=HIGHER)
    rng = np.random.default_rng(0)
    seen = set()
    for count in (2, 3, 5):
      for shift in (-3.0, 0.0, 0.7, 3.0):
        ours = rng.normal(shift, 0.5, count)
        theirs = rng.normal(0.0, 0.5, count)
        finding = claims_lib.judge(
          claim, _ROWS, _lines('cnn', ours) + _lines('base', theirs)
        )
        test = stats.ttest_rel(ours, theirs)
        if test.pvalue > 0.1:
          expected = claims_lib.NOISE
        elif test.statistic > 0:
          expected = claims_lib.SAME
        else:
          expected = claims_lib.OPPOSITE
        self.assertEqual(finding.verdict, expected)
        low, high = test.confidence_interval(0.9)
        self.assertAlmostEqual(finding.difference, (low + high) / 2)
        self.assertAlmostEqual(finding.half_width, (high - low) / 2)
        seen.add(expected)
    self.assertLen(seen, 3)

  def test_seeds_are_paired(self):
    claim = Claim('', '', 'cnn', 'base', 'l2', expected=LOWER)
    # The seeds differ far more than the rows do.
    lines = _lines('cnn', [1.0, 20.0, 300.0], seeds=[4, 5, 6])
    lines += _lines('base', [301.1, 2.0, 20.9], seeds=[6, 4, 5])
    finding = claims_lib.judge(claim, _ROWS, lines)
    self.assertEqual(finding.seeds, (4, 5, 6))
    self.assertEqual(finding.verdict, claims_lib.SAME)
    self.assertAlmostEqual(finding.difference, -1.0)

  def test_without_enough_seeds_nothing_is_said(self):
    claim = Claim('', '', 'cnn', 'base', 'l2', expected=LOWER)
    for lines, verdict in (
      ([], claims_lib.NOT_RUN),
      (_lines('cnn', [1.0]), claims_lib.NOT_RUN),
      (
        _lines('cnn', [1.0, 2.0]) + _lines('base', [3.0]),
        claims_lib.TOO_FEW,
      ),
      (
        _lines('cnn', [1.0], seeds=[1]) + _lines('base', [3.0]),
        claims_lib.NOT_RUN,
      ),
    ):
      found = claims_lib.judge(claim, _ROWS, lines)
      self.assertEqual(found.verdict, verdict)

  def test_figures_are_written_without_a_minus_zero(self):
    write = claims_lib.METRICS['usage'].write
    self.assertEqual([write(x) for x in (-1e-5, 0.9612)], ['0.0', '96.1'])

  def test_equal_rows_are_within_noise(self):
    claim = Claim('', '', 'cnn', 'base', 'l2', expected=LOWER)
    lines = _lines('cnn', [1.0, 2.0]) + _lines('base', [1.0, 2.0])
    found = claims_lib.judge(claim, _ROWS, lines)
    self.assertEqual(found.verdict, claims_lib.NOISE)


if __name__ == '__main__':
  absltest.main()
