"""Reads files of PyTorch with NumPy alone, and runs nothing that is in them.

Both formats are pickles, in which each tensor names its storage, and the
storages' numbers apart from them:

- Before version 1.6, a row of pickles (a magic number, the version of the
  protocol, facts about the machine, the object itself, the keys of its
  storages), and then the storages' numbers, each after its length.
- From then on, a zip archive without compression: `<folder>/data.pkl` is the
  pickle, and `<folder>/data/<key>` holds the numbers of a storage.

The unpickler knows dicts and tensors. What else a pickle asks for is refused,
or, in checkpoints of PyTorch Lightning, which hold more than tensors, replaced
by a placeholder that does nothing.
"""

import collections
import dataclasses
import io
import math
import operator
import os
import pickle
import zipfile

import numpy as np

from vim_tf.config import UserError, first_line

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPES = {
  'FloatStorage': np.dtype('<f4'),
  'DoubleStorage': np.dtype('<f8'),
  'HalfStorage': np.dtype('<f2'),
  'LongStorage': np.dtype('<i8'),
  'IntStorage': np.dtype('<i4'),
  'ShortStorage': np.dtype('<i2'),
  'CharStorage': np.dtype('i1'),
  'ByteStorage': np.dtype('u1'),
  'BoolStorage': np.dtype('?'),
}


@dataclasses.dataclass(frozen=True)
class Storage:
  """A row of numbers that tensors are views of."""

  key: str
  kind: str
  size: int

  @property
  def dtype(self) -> np.dtype:
    """Type of the numbers; a `ValueError` if it is not known here."""
    if self.kind not in _DTYPES:
      raise ValueError(f'{self.kind} is not known')
    return _DTYPES[self.kind]


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A tensor whose numbers have not been read yet."""

  storage: Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]

  def view(self, numbers: np.ndarray) -> np.ndarray:
    """The tensor, copied out of the numbers of its whole storage."""
    last = sum((n - 1) * s for n, s in zip(self.shape, self.strides))
    if len(self.shape) != len(self.strides) or (
      math.prod(self.shape) and self.offset + last >= len(numbers)
    ):
      raise pickle.UnpicklingError('a tensor reaches out of its storage')
    return np.lib.stride_tricks.as_strided(
      numbers[self.offset :],
      self.shape,
      [s * numbers.itemsize for s in self.strides],
    ).copy()


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
  """Makes plain objects and tensors, and no others."""

  def find_class(self, module, name):
    if (module, name) == ('collections', 'OrderedDict'):
      return collections.OrderedDict
    if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
      return _rebuild_tensor
    if (module, name) == ('torch._utils', '_rebuild_parameter'):
      return _rebuild_parameter
    if module == 'torch' and name.endswith('Storage'):
      return name  # Unlike a dtype, no pickle can change it.
    return self.find_other(module, name)

  def find_other(self, module, name):
    raise pickle.UnpicklingError(f'{module}.{name} is not part of a tensor')

  def persistent_load(self, pid):
    name, kind, key, _, size, *views = pid
    if name != 'storage' or any(view is not None for view in views):
      raise pickle.UnpicklingError(f'{name!r} is not a plain storage')
    return Storage(str(key), str(kind), int(size))


class _TolerantUnpickler(_Unpickler):
  """Makes placeholders of all other objects."""

  def find_other(self, module, name):
    return type(f'{module}.{name}', (Foreign,), {})


def _rebuild_tensor(storage, offset, shape, strides, *unused) -> Tensor:
  del unused  # Whether it needs gradients, and hooks.
  numbers = [operator.index(n) for n in (offset, *shape, *strides)]
  if not isinstance(storage, Storage) or min(numbers) < 0:
    raise pickle.UnpicklingError('a tensor has no place')
  return Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor, *unused):
  del unused  # Whether it needs gradients, and hooks.
  return tensor


def read_state_dict(content: bytes) -> dict[str, np.ndarray]:
  """Reads a file from before PyTorch 1.6 that holds a dict of tensors.

  Returns:
    Arrays by name, in the order and the layout of PyTorch.

  Raises:
    ValueError: It is not such a file, or holds other objects.
  """
  stream = io.BytesIO(content)
  try:
    header = [_Unpickler(stream).load() for _ in range(3)]
    if header[:2] != [_MAGIC, _PROTOCOL] or not header[2]['little_endian']:
      raise pickle.UnpicklingError('its header is another one')
    state = _Unpickler(stream).load()
    keys = _Unpickler(stream).load()
    storages = {t.storage.key: t.storage for t in state.values()}
    numbers = {}
    for key in keys:
      storage = storages[key]
      size = int.from_bytes(stream.read(8), 'little')
      data = stream.read(size * storage.dtype.itemsize)
      numbers[key] = np.frombuffer(data, storage.dtype)
      if not size == storage.size == len(numbers[key]):
        raise pickle.UnpicklingError(f'storage {key} is incomplete')
    return {
      name: tensor.view(numbers[tensor.storage.key])
      for name, tensor in state.items()
    }
  except Exception as error:  # A damaged pickle raises nearly anything.
    raise ValueError(
      'This is not a dict of tensors in the format of PyTorch before 1.6: '
      f'{error!r}.'
    ) from None


class TorchZip:
  """An open file of PyTorch 1.6 or later, to be used in a `with` statement.

  Numbers are read tensor by tensor: what nobody asks for costs neither time
  nor memory.

  Attributes:
    path: The file.
    contents: The saved object. Tensors in it are `Tensor`: shape and place,
      without numbers; objects of foreign classes are `Foreign`.

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

  def read(self, tensor: Tensor) -> np.ndarray:
    """The numbers of a tensor in `contents`.

    Raises:
      UserError: If they are missing, damaged or of a type not known here.
    """
    storage = tensor.storage
    name = f'{self._folder}/data/{storage.key}'
    try:
      dtype = storage.dtype
      entry = self._zip.getinfo(name)
      # Both bound the memory that a small file can ask for.
      if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError('it is compressed')
      if entry.file_size != storage.size * dtype.itemsize:
        raise ValueError('it has another length')
      if np.prod(tensor.shape, dtype=object) > storage.size:
        raise ValueError('a tensor is larger')
      return tensor.view(np.frombuffer(self._zip.read(entry), dtype))
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
        return folder, _TolerantUnpickler(stream).load()
    except Exception as error:
      raise self._error(f'cannot be unpickled: {_text(error)}') from error

  def _error(self, text: str) -> UserError:
    return UserError(f'{self.path} {text}.')


def _text(error: Exception) -> str:
  """An error in one line without a full stop."""
  return first_line(error).rstrip('.')
