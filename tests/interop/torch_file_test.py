"""Tests of the reader of PyTorch's files, on files written by hand."""

import collections
import os
import pathlib
import zipfile

from absl.testing import absltest
import numpy as np

from tests.interop import torch_writer as writer
from vim_tf.config import UserError
from vim_tf.interop import torch_file


def _views(numbers) -> collections.OrderedDict:
  """Tensors of one storage of six numbers."""
  return collections.OrderedDict(
    whole=writer.View(numbers, 0, (2, 3), (3, 1)),
    transposed=writer.View(numbers, 0, (3, 2), (1, 3)),
    tail=writer.View(numbers, 4, (2,), (1,)),
    scalar=writer.View(numbers, 5, (), ()),
  )


class StateDictTest(absltest.TestCase):
  """The format before PyTorch 1.6."""

  def test_reads_views_of_storages(self):
    numbers = np.arange(6, dtype=np.float32)
    state = {**_views(numbers), 'other': np.ones(2, 'i8')}
    read = torch_file.read_state_dict(writer.before_1_6(state))
    self.assertEqual(list(read), list(state))
    whole = numbers.reshape(2, 3)
    np.testing.assert_array_equal(read['whole'], whole)
    np.testing.assert_array_equal(read['transposed'], whole.T)
    np.testing.assert_array_equal(read['tail'], [4, 5])
    self.assertEqual(read['scalar'], 5)
    self.assertEqual(read['whole'].dtype, np.float32)
    np.testing.assert_array_equal(read['other'], [1, 1])

  def test_tensors_out_of_their_storage_are_refused(self):
    for offset, shape, strides in (
      (5, (2,), (1,)),
      (0, (3, 3), (3, 1)),
      (-1, (2,), (1,)),
      (3, (2,), (-1,)),
    ):
      view = writer.View(np.arange(6.0), offset, shape, strides)
      with self.assertRaisesRegex(ValueError, 'storage|no place'):
        torch_file.read_state_dict(writer.before_1_6({'x': view}))

  def test_damaged_files_are_refused(self):
    content = writer.before_1_6({'x': np.arange(6.0)})
    for length in (0, 10, 100, len(content) - 1):
      with self.assertRaisesRegex(ValueError, 'not a dict of tensors'):
        torch_file.read_state_dict(content[:length])
    other = writer.before_1_6({}, facts={'little_endian': False})
    with self.assertRaisesRegex(ValueError, 'header'):
      torch_file.read_state_dict(other)

  def test_other_objects_are_refused(self):
    harm = writer.Object(writer.Global('builtins', 'eval'), ('1 + 1',))
    with self.assertRaisesRegex(ValueError, 'eval is not part of a tensor'):
      torch_file.read_state_dict(writer.before_1_6({'x': harm}))


class TorchZipTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self._path = pathlib.Path(self.create_tempdir()) / 'file.ckpt'

  def _round_trip(self, tensor, **kwargs) -> np.ndarray:
    writer.write(self._path, {'x': tensor}, **kwargs)
    with torch_file.TorchZip(self._path) as file:
      return file.read(file.contents['x'])

  def test_reads_tensors_of_each_type(self):
    for dtype in ('f4', 'f8', 'f2', 'i8', 'u1'):
      expected = np.arange(6).reshape(2, 3).astype(dtype)
      found = self._round_trip(expected)
      np.testing.assert_array_equal(found, expected)
      self.assertEqual(found.dtype, expected.dtype)

  def test_reads_views_of_one_storage(self):
    numbers = np.arange(6, dtype=np.float32)
    writer.write(self._path, _views(numbers))
    with torch_file.TorchZip(self._path) as file:
      found = {name: file.read(x) for name, x in file.contents.items()}
    with zipfile.ZipFile(self._path) as archive:
      self.assertLen([n for n in archive.namelist() if '/data/' in n], 1)
    whole = numbers.reshape(2, 3)
    np.testing.assert_array_equal(found['whole'], whole)
    np.testing.assert_array_equal(found['transposed'], whole.T)
    np.testing.assert_array_equal(found['tail'], [4, 5])
    self.assertEqual(found['scalar'], 5)

  def test_plain_objects_come_out_as_they_are(self):
    expected = {'steps': 7, 'rates': [0.1, (2, None)], 'name': 'x', 3: True}
    writer.write(self._path, expected)
    with torch_file.TorchZip(self._path) as file:
      self.assertEqual(file.contents, expected)

  def test_foreign_objects_are_placeholders_and_run_nothing(self):
    victim = self._path.with_name('victim')
    victim.touch()
    remove = writer.Global('os', 'remove')
    config = writer.Global('omegaconf', 'DictConfig')
    writer.write(
      self._path,
      {
        'harm': writer.Object(remove, (str(victim),)),
        'config': writer.Object(config, ({'a': 1},), {'b': [2]}),
        config: 5,
        'x': np.ones(3, np.float32),
      },
    )
    with torch_file.TorchZip(self._path) as file:
      self.assertIsInstance(file.contents['harm'], torch_file.Foreign)
      self.assertIsInstance(file.contents['config'], torch_file.Foreign)
      self.assertEqual(type(file.contents['harm']).__name__, 'os.remove')
      self.assertIn(5, file.contents.values())
      np.testing.assert_array_equal(file.read(file.contents['x']), np.ones(3))
    self.assertTrue(victim.exists())

  def test_numbers_of_an_unknown_type_are_refused_when_asked_for(self):
    with self.assertRaisesRegex(UserError, 'BFloat16Storage is not known'):
      self._round_trip(np.zeros(2, 'f2'), storage_names={'float16': 'BFloat16'})

  def test_big_endian_numbers_are_refused(self):
    with self.assertRaisesRegex(UserError, 'big-endian'):
      self._round_trip(np.zeros(2), byteorder='big')

  def test_tensors_out_of_their_storage_are_refused(self):
    numbers = np.zeros(6, np.float32)
    for offset, shape, strides in (
      (5, (2,), (1,)),
      (0, (3, 3), (3, 1)),
      (0, (2,), (1, 1)),
      (0, (1000, 1000), (0, 0)),
    ):
      with self.assertRaisesRegex(UserError, 'storage|larger'):
        self._round_trip(writer.View(numbers, offset, shape, strides))
    for offset, shape, strides in ((-1, (2,), (1,)), (0, ('2',), (1,))):
      with self.assertRaisesRegex(UserError, 'cannot be unpickled'):
        self._round_trip(writer.View(numbers, offset, shape, strides))

  def test_compressed_numbers_are_refused(self):
    with self.assertRaisesRegex(UserError, 'it is compressed'):
      self._round_trip(np.zeros(9), compression=zipfile.ZIP_DEFLATED)

  def test_files_cut_short_are_refused(self):
    writer.write(self._path, {'x': np.arange(500.0)})
    content = self._path.read_bytes()
    for length in (0, 3, 100, len(content) // 2, len(content) - 1):
      self._path.write_bytes(content[:length])
      with self.assertRaisesRegex(UserError, 'not a file of torch.save.*short'):
        torch_file.TorchZip(self._path)

  def test_changed_numbers_are_refused(self):
    writer.write(self._path, {'x': np.full(50, 7.0)})
    content = self._path.read_bytes()
    place = content.index(np.float64(7).tobytes())
    self._path.write_bytes(content[:place] + b'!' + content[place + 1 :])
    with torch_file.TorchZip(self._path) as file:
      with self.assertRaisesRegex(UserError, 'data/0: Bad CRC'):
        file.read(file.contents['x'])

  def test_missing_numbers_are_refused(self):
    writer.write(self._path, {'x': np.zeros(5)})
    less = self._path.with_name('less.ckpt')
    with (
      zipfile.ZipFile(self._path) as whole,
      zipfile.ZipFile(less, 'w') as file,
    ):
      file.writestr('archive/data.pkl', whole.read('archive/data.pkl'))
    with torch_file.TorchZip(less) as file:
      with self.assertRaisesRegex(UserError, 'no numbers in archive/data/0'):
        file.read(file.contents['x'])

  def test_other_files_are_refused(self):
    with zipfile.ZipFile(self._path, 'w') as file:
      file.writestr('data.pkl', b'')
    with self.assertRaisesRegex(UserError, 'zip archive, but not one of torch'):
      torch_file.TorchZip(self._path)
    with zipfile.ZipFile(self._path, 'w') as file:
      file.writestr('archive/data.pkl', b'no pickle')
    with self.assertRaisesRegex(UserError, 'cannot be unpickled'):
      torch_file.TorchZip(self._path)
    with self.assertRaisesRegex(UserError, 'Cannot read.*No such file'):
      torch_file.TorchZip(os.path.join(self.create_tempdir(), 'none'))
    with self.assertRaisesRegex(UserError, 'Cannot read.*Is a directory'):
      torch_file.TorchZip(self.create_tempdir())


if __name__ == '__main__':
  absltest.main()
