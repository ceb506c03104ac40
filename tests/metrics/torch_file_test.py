"""Tests of the reader of PyTorch files, on files written by hand."""

import collections
import io
import pickle

from absl.testing import absltest
import numpy as np

from vim_tf.metrics import torch_file


class FloatStorage:
  """Stands for torch.FloatStorage in a pickle."""


def _rebuild_tensor_v2(*unused):
  """Stands for torch._utils._rebuild_tensor_v2 in a pickle."""


class _Tensor:
  def __init__(self, key, size, offset, shape, strides):
    self.arguments = (_Storage(key, size), offset, shape, strides, False, {})

  def __reduce__(self):
    return _rebuild_tensor_v2, self.arguments


class _Storage:
  def __init__(self, key, size):
    self.key, self.size = key, size


class _Pickler(pickle._Pickler):  # In Python, so that names can be replaced.
  def persistent_id(self, obj):
    if isinstance(obj, _Storage):
      return 'storage', FloatStorage, obj.key, 'cpu', obj.size, None
    return None

  def save_global(self, obj, name=None):
    names = {
      FloatStorage: 'torch\nFloatStorage',
      _rebuild_tensor_v2: 'torch._utils\n_rebuild_tensor_v2',
    }
    if obj in names:
      self.write(pickle.GLOBAL + names[obj].encode() + b'\n')
      self.memoize(obj)
    else:
      super().save_global(obj, name)

  dispatch = {
    **pickle._Pickler.dispatch,
    type: save_global,
    type(_rebuild_tensor_v2): save_global,
  }


def _file(state, storages) -> bytes:
  stream = io.BytesIO()
  facts = {'little_endian': True}
  for header in (0x1950A86A20F9469CFC6C, 1001, facts):
    pickle.dump(header, stream, 2)
  _Pickler(stream, 2).dump(state)
  pickle.dump(list(storages), stream, 2)
  for numbers in storages.values():
    stream.write(len(numbers).to_bytes(8, 'little'))
    stream.write(np.asarray(numbers, '<f4').tobytes())
  return stream.getvalue()


class TorchFileTest(absltest.TestCase):
  def test_reads_views_of_storages(self):
    state = collections.OrderedDict(
      whole=_Tensor('7', 6, 0, (2, 3), (3, 1)),
      transposed=_Tensor('7', 6, 0, (3, 2), (1, 3)),
      tail=_Tensor('7', 6, 4, (2,), (1,)),
      scalar=_Tensor('8', 1, 0, (), ()),
    )
    content = _file(state, {'8': [9.0], '7': np.arange(6)})
    read = torch_file.read_state_dict(content)
    self.assertEqual(list(read), list(state))
    whole = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(read['whole'], whole)
    np.testing.assert_array_equal(read['transposed'], whole.T)
    np.testing.assert_array_equal(read['tail'], [4, 5])
    self.assertEqual(read['scalar'], 9)
    self.assertEqual(read['whole'].dtype, np.float32)

  def test_tensors_out_of_their_storage_are_refused(self):
    for offset, shape, strides in (
      (5, (2,), (1,)),
      (0, (3, 3), (3, 1)),
      (-1, (2,), (1,)),
      (3, (2,), (-1,)),
    ):
      state = {'x': _Tensor('0', 6, offset, shape, strides)}
      with self.assertRaisesRegex(ValueError, 'out of its storage'):
        torch_file.read_state_dict(_file(state, {'0': np.arange(6)}))

  def test_incomplete_files_are_refused(self):
    content = _file({'x': _Tensor('0', 6, 0, (6,), (1,))}, {'0': np.arange(6)})
    for length in (0, 10, 100, len(content) - 1):
      with self.assertRaisesRegex(ValueError, 'not a dict of tensors'):
        torch_file.read_state_dict(content[:length])

  def test_other_objects_are_refused(self):
    class Harmful:
      def __reduce__(self):
        return eval, ('1 + 1',)

    with self.assertRaisesRegex(ValueError, 'eval is not part of a tensor'):
      torch_file.read_state_dict(_file({'x': Harmful()}, {}))


if __name__ == '__main__':
  absltest.main()
