"""Reads PyTorch's zip format (version 1.6 and later) without PyTorch.

Such a file is a zip archive without compression. `<folder>/data.pkl` is a
pickle of the saved object, in which each tensor names its storage, and
`<folder>/data/<key>` holds the numbers of a storage. Checkpoints of PyTorch
Lightning hold more than tensors: a placeholder that does nothing stands for
each object of a foreign class, so that a file cannot run code. Numbers are
read tensor by tensor: what nobody asks for costs neither time nor memory.
"""

import collections
import operator
import os
import pickle
import zipfile

import numpy as np

from vim_tf.config import UserError
from vim_tf.metrics import torch_file

_DTYPES = {
  **torch_file.DTYPES,
  'ShortStorage': np.dtype('<i2'),
  'CharStorage': np.dtype('i1'),
  'ByteStorage': np.dtype('u1'),
  'BoolStorage': np.dtype('?'),
}


class Foreign:
  """Stands for an object that is neither plain Python's nor a tensor."""

  def __new__(cls, *args, **kwargs):
    del args, kwargs
    return super().__new__(cls)

  def __init__(self, *args, **kwargs):
    del args, kwargs

  # What a pickle does to fill an object.
  def _ignore(self, *args):
    pass

  __setstate__ = __setitem__ = append = extend = add = _ignore


class _Unpickler(pickle.Unpickler):
  """Makes plain objects and tensors, and placeholders of all others."""

  def find_class(self, module, name):
    if (module, name) == ('collections', 'OrderedDict'):
      return collections.OrderedDict
    if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
      return _rebuild_tensor
    if (module, name) == ('torch._utils', '_rebuild_parameter'):
      return _rebuild_parameter
    if module == 'torch' and name.endswith('Storage'):
      return name  # Unlike a dtype, no pickle can change it.
    return type(f'{module}.{name}', (Foreign,), {})

  def persistent_load(self, pid):
    kind, numbers, key, _, size = pid
    if kind != 'storage':
      raise pickle.UnpicklingError(f'{kind!r} is not a storage')
    dtype = _DTYPES.get(numbers, numbers)
    return torch_file.Storage(str(key), dtype, int(size))


def _rebuild_tensor(storage, offset, shape, strides, *unused):
  numbers = [operator.index(n) for n in (offset, *shape, *strides)]
  if not isinstance(storage, torch_file.Storage) or min(numbers) < 0:
    raise pickle.UnpicklingError('a tensor has no place')
  return torch_file.rebuild_tensor(storage, offset, shape, strides, *unused)


def _rebuild_parameter(tensor, *unused):
  del unused  # Whether it needs gradients, and hooks.
  return tensor


class TorchZip:
  """An open file, to be used in a `with` statement.

  Attributes:
    path: The file.
    contents: The saved object. Tensors in it are `torch_file.Tensor`: shape
      and place, without numbers.

  Args:
    path: The file.

  Raises:
    UserError: If it cannot be read or is no such file.
  """

  def __init__(self, path: str | os.PathLike):
    self.path = path
    try:
      self._zip = zipfile.ZipFile(path)
    except OSError as error:
      raise UserError(f'Cannot read {path}: {error.strerror}.') from error
    except Exception as error:  # Damage raises nearly anything.
      raise self._error(
        'is not a file of torch.save (PyTorch 1.6 or later), or is cut short'
      ) from error
    try:
      self._folder, self.contents = self._open()
    except BaseException:
      self._zip.close()
      raise

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    self._zip.close()

  def read(self, tensor: torch_file.Tensor) -> np.ndarray:
    """The numbers of a tensor in `contents`.

    Raises:
      UserError: If they are missing, damaged or of a type not known here.
    """
    storage = tensor.storage
    name = f'{self._folder}/data/{storage.key}'
    try:
      if not isinstance(storage.dtype, np.dtype):
        raise ValueError(f'{storage.dtype} is not known')
      entry = self._zip.getinfo(name)
      # Both bound the memory that a small file can ask for.
      if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError('it is compressed')
      if entry.file_size != storage.size * storage.dtype.itemsize:
        raise ValueError('it has another length')
      if np.prod(tensor.shape, dtype=object) > storage.size:
        raise ValueError('a tensor is larger')
      return tensor.view(np.frombuffer(self._zip.read(entry), storage.dtype))
    except Exception as error:
      raise self._error(f'has no numbers in {name}: {_text(error)}') from error

  def _open(self):
    """The folder within the archive, and the object that was saved."""
    names = self._zip.namelist()
    folders = [
      name.removesuffix('/data.pkl')
      for name in names
      if name.count('/') == 1 and name.endswith('/data.pkl')
    ]
    if len(folders) != 1:
      raise self._error('is a zip archive, but not one of torch.save')
    (folder,) = folders
    try:
      order = f'{folder}/byteorder'
      if order in names and self._zip.read(order) != b'little':
        raise ValueError('its numbers are big-endian')
      with self._zip.open(f'{folder}/data.pkl') as stream:
        return folder, _Unpickler(stream).load()
    except Exception as error:
      raise self._error(f'cannot be unpickled: {_text(error)}') from error

  def _error(self, text: str) -> UserError:
    return UserError(f'{self.path} {text}.')


def _text(error: Exception) -> str:
  """An error in one line without a full stop."""
  lines = str(error).splitlines() or [type(error).__name__]
  return lines[0].rstrip('.')
