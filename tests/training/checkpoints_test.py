"""Tests of checkpoints: complete or not there, and the one before is used."""

import os
import pathlib
import resource

from absl.testing import parameterized
import tensorflow as tf

from vim_tf.training import checkpoints


def _truncate(path):
  os.truncate(path, path.stat().st_size // 2)


def _flip(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 0xFF
  path.write_bytes(bytes(content))


class _Part(tf.Module):
  def __init__(self, value, size=100):
    super().__init__()
    self.kernel = tf.Variable(tf.fill([size], float(value)))


class CheckpointsTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self._folder = pathlib.Path(self.create_tempdir()) / 'checkpoints'
    self._folder.mkdir()

  def _saver(self, value=0.0, keep=3, **parts):
    contents = {'model': _Part(value), **parts}
    saver = checkpoints.Checkpoints(self._folder, contents, keep)
    return saver, contents['model'].kernel

  def _save(self, *steps, keep=3):
    """Saves states whose weights are their step."""
    saver, kernel = self._saver(keep=keep)
    for step in steps:
      kernel.assign(tf.fill(kernel.shape, float(step)))
      saver.save(step)

  def _names(self):
    return sorted(path.name for path in self._folder.iterdir())

  def _files(self, step):
    folder = self._folder / f'step-{step:09d}'
    return folder / 'checkpoint.index', next(folder.glob('*.data-*'))

  def _assert_one_line(self, error, *texts):
    self.assertIsInstance(error, checkpoints.CheckpointError)
    self.assertNotIn('\n', str(error))
    for text in texts:
      self.assertIn(text, str(error))

  def test_nothing_there(self):
    self.assertEqual(self._saver()[0].restore(), 0)
    self.assertEqual(checkpoints.steps(self._folder / 'none'), [])
    with self.assertRaises(checkpoints.CheckpointError) as caught:
      checkpoints.load(self._folder, model=_Part(0.0))
    self._assert_one_line(caught.exception, 'no checkpoint', str(self._folder))

  def test_the_newest_by_number_not_by_name(self):
    self._save(999_999_999, 1_000_000_000)
    self.assertEqual(self._saver()[0].restore(), 1_000_000_000)

  def test_keeps_the_newest(self):
    self._save(1, 2, 3, 4, keep=2)
    self.assertEqual(self._names(), ['step-000000003', 'step-000000004'])

  def test_same_step_again(self):
    self._save(1, 2)
    saver, kernel = self._saver(value=7.0)
    saver.save(2)
    self.assertEqual(saver.restore(), 2)
    self.assertAllEqual(kernel, tf.fill([100], 7.0))
    self.assertEqual(self._names(), ['step-000000001', 'step-000000002'])

  @parameterized.product(
    damage=(_truncate, _flip, os.remove), file=('index', 'data')
  )
  def test_unreadable_newest(self, damage, file):
    self._save(1, 2)
    damage(self._files(2)[file == 'data'])
    saver, kernel = self._saver()
    with self.assertLogs('absl', 'ERROR') as logs:
      self.assertEqual(saver.restore(), 1)
    self.assertIn('step-000000002', logs.output[0])
    self.assertNotIn('\n', logs.output[0])
    self.assertAllEqual(kernel, tf.fill([100], 1.0))
    part = _Part(0.0)
    with self.assertLogs('absl', 'ERROR') as logs:
      self.assertEqual(checkpoints.load(self._folder, model=part), 1)
    self.assertIn('step-000000002', logs.output[0])
    self.assertAllEqual(part.kernel, tf.fill([100], 1.0))

  def test_unreadable_is_no_mismatch_whatever_the_folder_is_called(self):
    self._folder /= 'shapes'
    self._save(1, 2)
    _truncate(self._files(2)[0])
    self.assertEqual(self._saver()[0].restore(), 1)

  def test_none_readable(self):
    self._save(1, 2)
    for step in (1, 2):
      _truncate(self._files(step)[1])
    with self.assertRaises(checkpoints.CheckpointError) as caught:
      self._saver()[0].restore()
    self._assert_one_line(caught.exception, 'None of the 2', str(self._folder))
    with self.assertRaises(checkpoints.CheckpointError) as caught:
      checkpoints.load(self._folder, model=_Part(0.0))
    self._assert_one_line(caught.exception, 'None of the 2')

  def test_leftover_of_a_killed_run(self):
    self._save(1)
    leftover = self._folder / '.step-000000002.writing-12345'
    leftover.mkdir()
    (leftover / 'checkpoint.index').write_bytes(b'half')
    self.assertEqual(checkpoints.steps(self._folder), [1])
    self.assertEqual(self._saver()[0].restore(), 1)
    self.assertEqual(self._names(), ['step-000000001'])

  def test_other_shape(self):
    self._save(1)
    model = _Part(0.0, size=7)
    saver = checkpoints.Checkpoints(self._folder, {'model': model})
    for restore in (
      saver.restore,
      lambda: checkpoints.load(self._folder, model=model),
    ):
      with self.assertRaises(checkpoints.CheckpointError) as caught:
        restore()
      self._assert_one_line(
        caught.exception, 'does not fit', 'step-000000001', '7', '100'
      )

  def test_a_part_is_missing(self):
    self._save(1)
    saver, _ = self._saver(average=_Part(0.0))
    with self.assertRaises(checkpoints.CheckpointError) as caught:
      saver.restore()
    self._assert_one_line(caught.exception, 'does not fit')
    with self.assertRaises(checkpoints.CheckpointError) as caught:
      checkpoints.load(self._folder, average=_Part(0.0))
    self._assert_one_line(caught.exception, 'does not fit')

  def test_a_part_is_too_many(self):
    saver, _ = self._saver(value=3.0, average=_Part(4.0))
    saver.save(1)
    with self.assertRaises(checkpoints.CheckpointError) as caught:
      self._saver()[0].restore()
    self._assert_one_line(caught.exception, 'does not fit')
    part = _Part(0.0)  # But a part alone may be asked for.
    self.assertEqual(checkpoints.load(self._folder, average=part), 1)
    self.assertAllEqual(part.kernel, tf.fill([100], 4.0))

  def test_failing_save_loses_nothing(self):
    self._save(1)
    saver, kernel = self._saver(value=5.0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, limits)
    # Bytes of a file, as if the disk were full, also for root.
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    for step in (1, 2):
      with self.assertRaises(checkpoints.CheckpointError) as caught:
        saver.save(step)
      self._assert_one_line(caught.exception, 'Cannot save', str(self._folder))
    self.assertEqual(self._names(), ['step-000000001'])
    saver.restore()
    self.assertAllEqual(kernel, tf.fill([100], 1.0))


if __name__ == '__main__':
  tf.test.main()
