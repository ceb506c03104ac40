"""Reads PyTorch's first file format (before version 1.6) with NumPy alone.

Such a file is a row of pickles: a magic number, the version of the protocol,
facts about the machine, the object itself, and the keys of its storages; then
the storages' numbers follow, each after its length. Only dicts of tensors come
out: the unpickler refuses any other object, so that a file cannot run code.
"""

import collections
import dataclasses
import io
import math
import pickle

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
DTYPES = {
  'FloatStorage': np.dtype('<f4'),
  'DoubleStorage': np.dtype('<f8'),
  'HalfStorage': np.dtype('<f2'),
  'LongStorage': np.dtype('<i8'),
  'IntStorage': np.dtype('<i4'),
}


@dataclasses.dataclass(frozen=True)
class Storage:
  """A row of numbers that tensors are views of."""

  key: str
  dtype: np.dtype
  size: int


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
    if (
      min((self.offset, *self.shape, *self.strides)) < 0
      or len(self.shape) != len(self.strides)
      or (math.prod(self.shape) and self.offset + last >= len(numbers))
    ):
      raise pickle.UnpicklingError('a tensor reaches out of its storage')
    return np.lib.stride_tricks.as_strided(
      numbers[self.offset :],
      self.shape,
      [s * numbers.itemsize for s in self.strides],
    ).copy()


def rebuild_tensor(storage, offset, shape, strides, *unused) -> Tensor:
  """What a pickle calls to make a tensor."""
  del unused  # Whether it needs gradients, and hooks.
  return Tensor(storage, offset, tuple(shape), tuple(strides))


class _Unpickler(pickle.Unpickler):
  """Reads dicts of tensors and refuses every other object."""

  def find_class(self, module, name):
    if (module, name) == ('collections', 'OrderedDict'):
      return collections.OrderedDict
    if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
      return rebuild_tensor
    if module == 'torch' and name in DTYPES:
      return DTYPES[name]
    raise pickle.UnpicklingError(f'{module}.{name} is not part of a tensor')

  def persistent_load(self, pid):
    kind, dtype, key, _, size, view = pid
    if kind != 'storage' or view is not None:
      raise pickle.UnpicklingError(f'{kind} is not a plain storage')
    return Storage(key, dtype, size)


def read_state_dict(content: bytes) -> dict[str, np.ndarray]:
  """Reads a file that holds a dict of tensors, such as a network's weights.

  Args:
    content: The whole file.

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
