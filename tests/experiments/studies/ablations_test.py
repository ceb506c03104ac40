"""Test of the ablations by running them, of their record and of their page."""

import json
import pathlib

import numpy as np
from PIL import Image
import tensorflow as tf

from experiments.studies.ablations import budgets, page
from experiments.studies.ablations import record as record_lib
from experiments.studies.ablations import rows as rows_lib
from tests import testing
from tests.experiments import lighter, running
from vim_tf.training import workdir as workdir_lib

# The tokenizer and the VIM that others stand upon are not among them.
_NAMES = ('no_perceptual', 'accept_half', 'probe_shallow')
_ROWS = f'^({"|".join(_NAMES)})$'


class AblationsTest(tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root = testing.new_folder('ablations')
    cls.binary = running.Binary('studies.ablations')
    # Of the runs themselves others test that they can be traced.
    cls.enter_context(testing.eagerly())
    cls.enter_context(lighter.drawings())

  def _run(self, *arguments):
    return self.binary.run(
      f'--workdir={self.root}', '--budget=tiny', '--seeds=0', *arguments
    )

  def test_rows_are_run_once_and_shown(self):
    result = self._run(f'--rows={_ROWS}')
    self.assertEqual(result.status, 0, result.error)
    out = self.root / 'results'
    lines = workdir_lib.read_rows(out / record_lib.LINES)
    self.assertEqual(
      [(line['row'], line['seed']) for line in lines],
      [(name, 0) for name in _NAMES],
    )
    figures = {line['row']: line['figures'] for line in lines}
    tokenizer = figures['no_perceptual']
    self.assertBetween(tokenizer['usage'], 1 / 16, 1)
    # Means over images: of the same images the larger PSNR is that of means.
    self.assertGreaterEqual(
      tokenizer['psnr'] + 1e-6, -10 * np.log10(tokenizer['l2'])
    )
    self.assertGreater(tokenizer['lpips'], 0)
    self.assertGreater(figures['accept_half']['gfd'], 0)
    probe = figures['probe_shallow']  # It has one block.
    self.assertEqual(probe['top1_first'], probe['top1_last'])
    self.assertEqual(probe['top1'], probe['top1_last'])
    for name in ('originals', 'no_perceptual', 'accept_half'):
      with Image.open(out / page.PICTURES / f'{name}.png') as image:
        self.assertEqual(image.size[1], 32 + 4)  # One row and its margins.
    text = (out / page.PAGE).read_text()
    for name in (page.CHART, *page.SHEETS):
      self.assertIn(f'({name})', text)
      self.assertTrue((out / name).exists(), name)
    self.assertIn('of the 24 rows', text)

    # The second time there is nothing to do: not a checkpoint is touched.
    before = running.snapshot(self.root)
    result = self._run(f'--rows={_ROWS}')
    self.assertEqual(result.status, 0, result.error)
    self.assertIn('0 of 3 runs are left to do', result.error)
    self.assertEqual(running.snapshot(self.root), before)

    # A line that was lost comes back as it was, from the run's checkpoint.
    file = out / record_lib.LINES
    text = file.read_text().splitlines()
    file.write_text('\n'.join([*text[1:], text[0][:20]]))
    result = self._run('--rows=no_perceptual')
    self.assertEqual(result.status, 0, result.error)
    self.assertIn('all 4 steps are done', result.error)
    again = workdir_lib.read_rows(file)
    self.assertEqual([line['row'] for line in again], [*_NAMES[1:], _NAMES[0]])
    self.assertEqual(again[-1]['figures'], tokenizer)

  def test_settings_of_ones_own(self):
    changes = {
      'optimizer.name': 'muon',
      'model.transformer.block': 'modern',
    }
    own = {'new': {'tokenizer': 'base', 'changes': changes}}
    file = self.root / 'own.json'
    self.root.mkdir(exist_ok=True)
    file.write_text(json.dumps(own))
    out = self.root / 'own'
    result = self._run(
      f'--settings={file}',
      '--third_split',
      '--rows=new',
      f'--out={out}',
      f'--workdir={self.root}/own',
    )
    self.assertEqual(result.status, 0, result.error)
    (line,) = workdir_lib.read_rows(out / record_lib.LINES)
    self.assertGreater(line['figures']['bits_per_code'], 0)
    self.assertIn('recognised', line['figures'])
    record = workdir_lib.read(self.root / 'own' / 'new-0')
    config = record['config']
    self.assertEqual(config['optimizer']['name'], 'muon')
    self.assertEqual(config['model']['transformer']['block'], 'modern')
    self.assertEqual(config['data']['train_split'], 'train[:90%]')
    self.assertEqual(record['data_images'], {'train': 296, 'held_out': 33})
    text = (out / page.PAGE).read_text()
    self.assertIn('optimizer.name=muon, ', text)
    self.assertNotIn('probe', text)
    self.assertNotIn('## Claims', text)

  def test_bad_flags_are_told_in_one_line(self):
    bad = self.create_tempfile(content='{"new": {"tokenizer": "none"}}')
    for flag, words in (
      ('--settings=nowhere.json', 'nowhere.json cannot be used'),
      (f'--settings={bad.full_path}', 'cannot be used .*it must hold'),
      ('--rows=(', 'no regular expression'),
      ('--rows=nothing', 'matches no row; there are base'),
      ('--seeds=-1', 'whole numbers from 0'),
      ('--seeds=', 'whole numbers from 0'),
    ):
      result = self._run(flag)
      self.assertEqual(result.status, 1)
      self.assertLen(result.error_lines, 1)
      self.assertRegex(result.error_lines[0], words)


class RecordTest(tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.file = pathlib.Path(self.get_temp_dir()) / 'runs.jsonl'
    self.file.unlink(missing_ok=True)
    self.rows = rows_lib.make(budgets.BUDGETS['tiny'])

  def _record(self, budget='tiny'):
    return record_lib.Record(
      self.file, budget, budgets.BUDGETS[budget], self.rows
    )

  def test_a_line_counts_for_its_settings_only(self):
    self._record().add({'row': 'base', 'seed': 1, 'figures': {'l2': 0.5}})
    record = self._record()
    self.assertTrue(record.has('base', 1))
    self.assertFalse(record.has('base', 0))
    self.assertFalse(record.has('cnn', 1))
    self.assertFalse(self._record('small').has('base', 1))
    line = json.loads(self.file.read_text())
    self.assertEqual(line['budget'], 'tiny')
    self.file.write_text(json.dumps({**line, 'fingerprint': 'other'}) + '\n')
    self.assertFalse(self._record().has('base', 1))

  def test_new_settings_leave_old_lines_valid(self):
    """Fingerprints of docs/results/ablations/runs.jsonl."""
    budget = budgets.BUDGETS['small']
    rows = rows_lib.make(budget)
    for name, expected in {
      'base': '4d694c1d855c1180',
      'logit_laplace': 'a0d135559f6f6d10',
      'vim_deep': '2d4ee48b01d59b0b',
      'accept_half': 'ad1265397aa60b53',
      'probe_deep': 'b2fe02d1b4c36efe',
    }.items():
      found = rows_lib.fingerprint(rows[name], budget, rows)
      self.assertEqual(found, expected, name)


if __name__ == '__main__':
  tf.test.main()
