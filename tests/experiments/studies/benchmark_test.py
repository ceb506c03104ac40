"""The benchmark by running it, at tiny sizes: its records, what it refuses."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
from unittest import mock

from absl.testing import absltest
import numpy as np
import tensorflow as tf

from experiments.studies.speed import counts, rows, timing
from tests import testing
from tests.experiments import running

_TINY = ('--sizes=tiny', '--seconds=0')
_ROWS = (
  'encode_bfloat16',
  'lookup',
  'stage1_step_16px_r1',
  'stage2_step_float32',
  'sampling_2_bfloat16_guided',
)


class BenchmarkTest(running.Refused, absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.binary = running.Binary('studies.speed')

  def _run(self, *arguments: str):
    """The result, and what was printed to stdout."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
      result = self.binary.run(*_TINY, *arguments)
    return result, out.getvalue()

  def _records(self, *arguments: str) -> tuple[list[dict], list[str]]:
    """The records of a run, and the lines that it printed."""
    path = pathlib.Path(self.create_tempdir()) / 'records.jsonl'
    result, out = self._run(f'--out={path}', *arguments)
    self.assertEqual(result.status, 0, result.error)
    lines = path.read_text().splitlines()
    return list(map(json.loads, lines)), out.splitlines()

  def test_records(self):
    names, calls = _ROWS, 2
    self.enter_context(testing.eagerly())
    pattern = f'--rows=^({"|".join(names)})$'
    records, lines = self._records(pattern, f'--calls={calls}')
    self.assertEqual(
      [record['kind'] for record in records],
      ['machine', *['row'] * len(names), 'ceilings'],
    )
    machine, *found, ceilings = records
    self.assertEqual(machine['cores'], len(os.sched_getaffinity(0)))
    self.assertEqual([record['row'] for record in found], list(names))
    self.assertLen(lines, len(records) + 1)  # And the header.
    for record, line in zip(found, lines[2:]):
      with self.subTest(record['row']):
        self._check_row(record, line, ceilings, calls)

  def _check_row(self, record: dict, line: str, ceilings: dict, calls: int):
    seconds = record['all_seconds']
    self.assertLen(seconds, record['calls'])
    self.assertEqual(record['calls'], calls)
    self.assertEqual(
      (record['fastest'], record['seconds'], record['slowest']),
      (min(seconds), np.median(seconds), max(seconds)),
    )
    self.assertGreater(record['peak_bytes'], 10 * 2**20)  # A Python at least.
    self.assertTrue(line.startswith(record['row'] + ' '))
    name, rate = record['limit'], record['limit_rate']
    amount = record['bytes' if name == 'memory' else 'flops']
    self.assertAlmostEqual(record['share'], amount / rate / record['seconds'])
    self.assertLessEqual(rate, ceilings[name])
    self.assertIn(f'{record["share"]:.1%} {name}', line)
    self.assertGreater(record['first_seconds'], 0.0)

  def test_sizes_and_settings(self):
    records, _ = self._records(
      '--rows=lookup|decode',
      '--calls=1',
      '--set=stage1.model.codebook_size=48',
      '--setting=xla=true',
      '--setting=batch=3',
    )
    for record in records[1:-1]:
      self.assertEqual(record['settings']['batch'], 3)
      self.assertTrue(record['settings']['xla'])
    decode, *_, lookup, _ = records[1:]
    config = rows.tiny().stage1.model
    config = dataclasses.replace(config, codebook_size=48)
    self.assertEqual(decode['row'], 'decode_float32')
    self.assertEqual(decode['flops'], 3 * counts.decode(config))
    self.assertEqual(lookup['row'], 'lookup')
    self.assertEqual(lookup['flops'], 2 * (3 * 16) * 48 * 8)

  def test_two_settings_in_turn(self):
    records, lines = self._records(
      '--rows=^lookup$', '--calls=3', '--vs=xla=true'
    )
    self.assertEqual(
      [record['kind'] for record in records],
      ['machine', 'row', 'row', 'pair', 'ceilings'],
    )
    _, one, other, pair, _ = records
    self.assertEqual(pair['settings'], one['settings'])
    self.assertEqual(pair['vs'], {**one['settings'], 'xla': True})
    self.assertEqual(pair['vs'], other['settings'])
    self.assertEqual(
      pair['ratios'],
      [b / a for a, b in zip(one['all_seconds'], other['all_seconds'])],
    )
    self.assertLen(pair['ratios'], 3)
    self.assertIn('xla=True instead of False', lines[4])
    self.assertIn(f'{np.median(pair["ratios"]):.3f}', lines[4])

  def test_profile(self):
    records, lines = self._records(
      '--rows=^lookup$', '--calls=1', '--vs=batch=3', '--profile=2'
    )
    self.assertEqual(
      [record['kind'] for record in records],
      ['machine', *['row', 'profile'] * 2, 'pair', 'ceilings'],
    )
    for row, profile in zip(records[1:5:2], records[2:5:2]):
      self.assertEqual(profile['settings'], row['settings'])
      self.assertLen(profile['operations'], 2)
      for one in profile['operations']:
        text = ' '.join(lines)
        self.assertIn(f'{one["runs"]} x {one["operation"]}', text)

  def test_list_tells_rows_and_settings(self):
    result, out = self._run('--list', '--rows=sampling_1_float32$')
    self.assertEqual(result.status, 0, result.error)
    first, second = out.splitlines()
    self.assertEqual(first.split()[0], 'sampling_1_float32')
    self.assertIn('guidance_scale=1.0', second)

  def test_refused(self):
    file = self.create_tempfile(content='a file').full_path
    for arguments, texts in (
      (['--rows=['], ('--rows=[', 'regular expression')),
      (['--rows=nothing'], ('matches none of encode_float32',)),
      (['--set=stage1.depth=3'], ("no setting 'depth'",)),
      (['--set=matmul=0'], ('matmul is 0',)),
      (['--set=matmul'], ('--set=matmul has no value',)),
      (['--setting=speed=2'], ('None of the rows', 'speed')),
      (['--vs=precision=float8', '--rows=encode'], ('float8', 'bfloat16')),
      (['--vs=batch=0', '--rows=lookup'], ('batch is 0',)),
      (
        ['--rows=stage1', '--setting=kind=perceptual+r1'],
        ('kind is perceptual+r1', 'R1 needs'),
      ),
      (['--rows=lookup', f'--out={file}'], (file, 'File exists')),
      (['stray'], ("'stray' is not a flag",)),
    ):
      result, out = self._run(*arguments)
      self._assert_refused(result, *texts)
      self.assertEqual(out, '')
    self.assertEqual(pathlib.Path(file).read_text(), 'a file')

  def test_threads(self):
    """They are set before anything is computed."""
    order, ceilings = [], timing.Ceilings

    def measured(*arguments):
      order.append('computes')
      return ceilings(*arguments)

    with (
      mock.patch.object(timing, 'Ceilings', measured),
      mock.patch.object(tf.config, 'threading') as threading,
    ):
      threading.set_intra_op_parallelism_threads = order.append
      threading.set_inter_op_parallelism_threads = order.append
      threading.get_inter_op_parallelism_threads.return_value = 3
      _, lines = self._records('--rows=lookup', '--calls=1', '--threads=3')
    self.assertEqual(order, [3, 3, 'computes'])
    self.assertIn(' 3 threads', lines[0])

  def test_streams_count_what_all_of_them_do(self):
    with testing.one_thread_an_operation(2):
      records, _ = self._records(
        '--rows=encode_float32', '--calls=1', '--setting=batch=4'
      )
    shared, _ = self._records(
      '--rows=encode_float32', '--calls=1', '--setting=batch=4'
    )
    (one,) = (r for r in records if r['kind'] == 'row')
    (other,) = (r for r in shared if r['kind'] == 'row')
    self.assertEqual(one['flops'], other['flops'])
    self.assertAlmostEqual(one['per_second'] * one['seconds'], 4)


if __name__ == '__main__':
  absltest.main()
