"""Test of the quickstart: from nothing to a report, and on from there."""

import dataclasses
import json
import os
import pathlib
import types
from unittest import mock

from absl.testing import absltest
from PIL import Image

from experiments.quickstart import budgets
from tests import testing
from tests.experiments import lighter, running
from vim_tf import machine
from vim_tf.training import workdir as workdir_lib

_FOLDER = 'runs/quickstart-tiny'
_STEPS = 8


class QuickstartTest(absltest.TestCase):
  def _run(self, quickstart, *arguments, folder):
    with self.assertLogs('absl', 'INFO') as logs:
      result = quickstart.run('--budget=tiny', *arguments, folder=folder)
    return result, '\n'.join(logs.output)

  def test_twice(self):
    quickstart = running.Binary('quickstart')
    root = self.create_tempdir().full_path
    macos = types.SimpleNamespace(cpu_count=os.cpu_count)
    self.enter_context(mock.patch.object(machine, 'os', macos))
    # Of its trainings others test that they can be traced.
    self.enter_context(testing.eagerly())
    self.enter_context(lighter.drawings())
    tiny = dataclasses.replace(
      budgets.BUDGETS['tiny'],
      tokenizer_steps=_STEPS,
      full_loss_steps=2,
      vim_steps=_STEPS,
    )
    self.enter_context(mock.patch.dict(budgets.BUDGETS, {'tiny': tiny}))
    folder = pathlib.Path(root) / _FOLDER

    result, _ = self._run(quickstart, folder=root)
    self.assertEqual((result.status, result.error_lines), (0, []))
    report = json.loads((folder / 'report.json').read_text())
    page = (folder / 'report.html').read_text()
    tokenizer, vim = report['tokenizer'], report['vim']
    for name in ('psnr', 'kmeans_psnr'):
      self.assertBetween(tokenizer[name], 5.0, 40.0, name)
    self.assertBetween(tokenizer['usage'], 0.0, 1.0)
    self.assertGreater(tokenizer['usage'], 0.0)
    for name in ('', 'order0_', 'order1_'):
      bits = vim[f'{name}bits_per_code']
      self.assertBetween(bits, 0.5, 12.0, name)
    self.assertEqual(tokenizer['steps'], _STEPS)
    for name in ('top1', 'pixels', 'code_vectors', 'untrained_vim'):
      self.assertBetween(report['probe'][name], 0.0, 1.0, name)
    self.assertEqual(report['machine']['cores'], os.cpu_count())
    self.assertIn('Linear probe', page)
    self.assertIn('CC BY-SA', page)
    self.assertIn('data:image/png;base64,', page)
    self.assertNotIn('src="http', page)  # It opens without a network.
    for name in ('recognised_selected', 'recognised_samples'):
      self.assertBetween(vim[name], 0.0, 1.0, name)
    for name in ('samples.png', 'selected.png'):
      with Image.open(folder / name) as image:
        self.assertGreater(image.height, 9 * 32)  # A row for each class.
    for stage in ('tokenizer', 'vim'):
      rows = workdir_lib.read_metrics(folder / stage)
      self.assertEqual(max(row['step'] for row in rows), _STEPS)

    trained = [running.snapshot(folder / name) for name in ('tokenizer', 'vim')]
    result, logs = self._run(quickstart, folder=root)
    self.assertEqual((result.status, result.error_lines), (0, []))
    self.assertEqual(logs.count(f'all {_STEPS} steps are done'), 2)
    self.assertEqual(
      [running.snapshot(folder / name) for name in ('tokenizer', 'vim')],
      trained,
    )
    again = json.loads((folder / 'report.json').read_text())
    for part in ('tokenizer', 'vim'):
      self.assertEqual(again[part], report[part])
    for name, seconds in report['seconds'].items():
      self.assertGreaterEqual(again['seconds'][name], seconds)

    # In a folder that cannot be, it says so at once.
    file = self.create_tempfile(content='a file').full_path
    result = quickstart.run('--budget=tiny', f'--workdir={file}/run')
    self.assertEqual(result.status, 1)
    self.assertLen(result.error_lines, 1)
    self.assertIn(
      f'error: Cannot write to the working directory {file}',
      result.error_lines[0],
    )
    result = quickstart.run('--budget=tiny', 'long')
    self.assertEqual(result.status, 1)
    self.assertEqual(result.error_lines[0][:28], "error: 'long' is not a flag;")


if __name__ == '__main__':
  absltest.main()
