"""Writes files of both of PyTorch's formats by hand, without PyTorch.

NumPy arrays become tensors, each with a storage of its own. `Object` stands
for an instance of any class, which need not exist here.
"""

from collections.abc import Sequence
import dataclasses
import io
import os
import pickle
import zipfile

import numpy as np

_STORAGES = {
  'float32': 'Float',
  'float64': 'Double',
  'float16': 'Half',
  'int64': 'Long',
  'uint8': 'Byte',
}


@dataclasses.dataclass(frozen=True)
class Global:
  """A name that a pickle imports."""

  module: str
  name: str

  def __call__(self):
    raise NotImplementedError  # `pickle` writes calls of callables alone.


@dataclasses.dataclass(frozen=True)
class Object:
  """What calling `cls` with `args` makes, with `state` set."""

  cls: Global
  args: tuple = ()
  state: object = None


@dataclasses.dataclass(frozen=True, eq=False)
class View:
  """A tensor that is a part of a storage, or another order of it."""

  storage: np.ndarray
  offset: int
  shape: Sequence[int]
  strides: Sequence[int]


class _Pickler(pickle._Pickler):  # In Python, so that names can be written.
  def __init__(self, stream, storage_names, views=()):
    super().__init__(stream, 2)
    self._views = views
    self.storages = {}
    self._keys = {}
    self._names = storage_names

  def persistent_id(self, obj):
    if not isinstance(obj, _Storage):
      return None
    key = self._keys.setdefault(id(obj.numbers), str(len(self._keys)))
    self.storages[key] = obj.numbers
    kind = self._names[obj.numbers.dtype.name]
    kind = Global('torch', f'{kind}Storage')
    return 'storage', kind, key, 'cuda:0', obj.numbers.size, *self._views

  def reducer_override(self, obj):
    if isinstance(obj, np.ndarray):
      flat = np.ravel(obj)
      strides = [s // obj.itemsize for s in np.empty_like(obj).strides]
      obj = View(flat, 0, obj.shape, strides)
    if isinstance(obj, View):
      return Global('torch._utils', '_rebuild_tensor_v2'), (
        _Storage(obj.storage),
        obj.offset,
        tuple(obj.shape),
        tuple(obj.strides),
        False,
        {},
      )
    if isinstance(obj, Object):
      return obj.cls, obj.args, obj.state
    return NotImplemented

  def save_name(self, obj):
    self.write(pickle.GLOBAL + f'{obj.module}\n{obj.name}\n'.encode())
    self.memoize(obj)

  dispatch = {**pickle._Pickler.dispatch, Global: save_name}


@dataclasses.dataclass(frozen=True, eq=False)
class _Storage:
  numbers: np.ndarray


def write(
  path: str | os.PathLike,
  obj,
  folder: str = 'archive',
  byteorder: str = 'little',
  storage_names: dict[str, str] | None = None,
  compression: int = zipfile.ZIP_STORED,
):
  """Writes `obj` as torch.save does.

  Args:
    path: The file.
    obj: Plain objects, NumPy arrays, `View`s, `Global`s and `Object`s.
    folder: The folder in the archive.
    byteorder: What the file says of its numbers.
    storage_names: From NumPy's name of a type to PyTorch's.
    compression: How entries are compressed; PyTorch's are not.
  """
  stream = io.BytesIO()
  pickler = _Pickler(stream, {**_STORAGES, **(storage_names or {})})
  pickler.dump(obj)
  with zipfile.ZipFile(path, 'w', compression) as file:
    file.writestr(f'{folder}/data.pkl', stream.getvalue())
    file.writestr(f'{folder}/byteorder', byteorder)
    for key, numbers in pickler.storages.items():
      file.writestr(f'{folder}/data/{key}', numbers.tobytes())
    file.writestr(f'{folder}/version', '3\n')


def before_1_6(obj, facts=None) -> bytes:
  """What torch.save wrote before version 1.6; see `write`.

  Args:
    obj: As of `write`.
    facts: What the file says of the machine.
  """
  stream = io.BytesIO()
  for header in (
    0x1950A86A20F9469CFC6C,
    1001,
    facts or {'little_endian': True},
  ):
    pickle.dump(header, stream, 2)
  pickler = _Pickler(stream, _STORAGES, views=(None,))
  pickler.dump(obj)
  pickle.dump(list(pickler.storages), stream, 2)
  for numbers in pickler.storages.values():
    stream.write(numbers.size.to_bytes(8, 'little') + numbers.tobytes())
  return stream.getvalue()
