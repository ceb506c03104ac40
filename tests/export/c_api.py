"""Saved models by TensorFlow's C API alone: as near to a C++ server as it gets.

  python -I c_api.py REQUESTS RESULTS

Nothing here imports TensorFlow: its shared library is called by ctypes, whose
session checks what TensorFlow Serving's checks, and no more. REQUESTS is a
pickle of the arguments of a Model by its name, of (model, signature, inputs)
rows to send at once, of such rows to send in turn, and of the numbers of these
after which to look at the memory. RESULTS becomes a pickle of what came back
from the former, and of the memory in bytes.
"""

from __future__ import annotations

from concurrent import futures
import ctypes
import importlib.util
import os
import pathlib
import pickle
import sys

import numpy as np

OK, INVALID_ARGUMENT = 0, 3
"""Status codes."""

_THREADS = 8
_STRING = 7
_TYPES = {1: np.float32, 3: np.int32, 9: np.int64}
_STRING_SIZE = 24  # Of a TF_TString.


class _Output(ctypes.Structure):
  _fields_ = [('operation', ctypes.c_void_p), ('index', ctypes.c_int)]


def _load_library() -> ctypes.CDLL:
  (package,) = importlib.util.find_spec('tensorflow').submodule_search_locations
  (path,) = pathlib.Path(package).glob('libtensorflow_cc.so.*')
  library = ctypes.CDLL(str(path))
  library.TF_Message.restype = ctypes.c_char_p
  library.TF_Dim.restype = ctypes.c_int64
  for name in (
    'TF_AllocateTensor',
    'TF_GraphOperationByName',
    'TF_LoadSessionFromSavedModel',
    'TF_NewGraph',
    'TF_NewSessionOptions',
    'TF_NewStatus',
    'TF_StringGetDataPointer',
    'TF_TensorData',
  ):
    getattr(library, name).restype = ctypes.c_void_p
  library.TF_StringGetSize.restype = ctypes.c_size_t
  return library


class Model:
  """A saved model in a session of its own, which threads may share.

  Args:
    folder: Of a version.
    signatures: Names of the tensors of its inputs and of its outputs, by the
      names of the signatures.

  Raises:
    RuntimeError: If it cannot be loaded.
  """

  def __init__(
    self, folder: str, signatures: dict[str, tuple[dict[str, str], ...]]
  ):
    self._c = _load_library()
    self._signatures = signatures
    pointer = ctypes.c_void_p
    self._graph = pointer(self._c.TF_NewGraph())
    options = pointer(self._c.TF_NewSessionOptions())
    status = pointer(self._c.TF_NewStatus())
    self._session = pointer(
      self._c.TF_LoadSessionFromSavedModel(
        options,
        None,
        folder.encode(),
        (ctypes.c_char_p * 1)(b'serve'),
        1,
        self._graph,
        None,
        status,
      )
    )
    if self._c.TF_GetCode(status):
      raise RuntimeError(self._c.TF_Message(status).decode())
    self._c.TF_DeleteSessionOptions(options)
    self._c.TF_DeleteStatus(status)

  def __call__(
    self, signature: str, inputs: dict[str, np.ndarray]
  ) -> tuple[int, str, dict[str, np.ndarray]]:
    """Runs a signature.

    Args:
      signature: Its name.
      inputs: Of float32, int32 and int64, or objects that are bytes.

    Returns:
      The status, its message and the outputs, of which there are none if the
      status is not OK.
    """
    c, pointer = self._c, ctypes.c_void_p
    names, fetched = self._signatures[signature]
    feeds = (_Output * len(inputs))(*(self._output(names[x]) for x in inputs))
    fetches = (_Output * len(fetched))(*map(self._output, fetched.values()))
    values = (pointer * len(inputs))(*map(self._tensor, inputs.values()))
    results = (pointer * len(fetched))()
    status = pointer(c.TF_NewStatus())
    c.TF_SessionRun(
      self._session, None, feeds, values, len(feeds), fetches, results,
      len(fetches), None, 0, None, status,
    )  # fmt: skip
    code = c.TF_GetCode(status)
    # It may hold what was sent.
    message = c.TF_Message(status).decode(errors='backslashreplace')
    c.TF_DeleteStatus(status)
    for value in map(pointer, values):
      self._delete(value)
    found = {}
    if code == OK:
      for name, result in zip(fetched, map(pointer, results), strict=True):
        found[name] = self._array(result)
        c.TF_DeleteTensor(result)
    return code, message, found

  def _output(self, name: str) -> _Output:
    operation, _, index = name.partition(':')
    found = self._c.TF_GraphOperationByName(self._graph, operation.encode())
    return _Output(found, int(index))

  def _tensor(self, value: np.ndarray) -> int:
    shape = (ctypes.c_int64 * value.ndim)(*value.shape)
    if value.dtype == object:
      kind, size = _STRING, value.size * _STRING_SIZE
    else:
      (kind,) = (k for k, v in _TYPES.items() if v == value.dtype)
      size = value.nbytes
    tensor = self._c.TF_AllocateTensor(
      kind, shape, value.ndim, ctypes.c_size_t(size)
    )
    strings = self._strings(ctypes.c_void_p(tensor))
    if kind == _STRING:
      for place, content in zip(strings, value.flat, strict=True):
        self._c.TF_StringInit(place)
        self._c.TF_StringCopy(place, content, ctypes.c_size_t(len(content)))
    elif size:
      content = np.ascontiguousarray(value)
      ctypes.memmove(
        self._c.TF_TensorData(ctypes.c_void_p(tensor)),
        content.ctypes.data_as(ctypes.c_void_p),
        size,
      )
    return tensor

  def _shape(self, tensor: ctypes.c_void_p) -> list[int]:
    dimensions = self._c.TF_NumDims(tensor)
    return [self._c.TF_Dim(tensor, i) for i in range(dimensions)]

  def _strings(self, tensor: ctypes.c_void_p) -> list[ctypes.c_void_p]:
    """Where a tensor of strings holds them; nowhere, if it is another one."""
    if self._c.TF_TensorType(tensor) != _STRING:
      return []
    start = self._c.TF_TensorData(tensor)
    return [
      ctypes.c_void_p(start + i * _STRING_SIZE)
      for i in range(int(np.prod(self._shape(tensor))))
    ]

  def _delete(self, tensor: ctypes.c_void_p):
    for place in self._strings(tensor):  # Who has made a string, frees it.
      self._c.TF_StringDealloc(place)
    self._c.TF_DeleteTensor(tensor)

  def _array(self, tensor: ctypes.c_void_p) -> np.ndarray:
    shape = self._shape(tensor)
    kind = self._c.TF_TensorType(tensor)
    if kind == _STRING:
      found = [
        ctypes.string_at(
          self._c.TF_StringGetDataPointer(place),
          self._c.TF_StringGetSize(place),
        )
        for place in self._strings(tensor)
      ]
      return np.array(found, object).reshape(shape)
    array = np.zeros(shape, _TYPES[kind])
    ctypes.memmove(
      array.ctypes.data_as(ctypes.c_void_p),
      self._c.TF_TensorData(tensor),
      array.nbytes,
    )
    return array


def memory() -> int:
  """Bytes of this process that lie in memory."""
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * os.sysconf('SC_PAGE_SIZE')


def main():
  """Sends requests: first many at once, then again and again."""
  with open(sys.argv[1], 'rb') as file:
    models, requests, repeated, counts = pickle.load(file)
  models = {name: Model(*arguments) for name, arguments in models.items()}

  def send(request):
    model, signature, inputs = request
    return models[model](signature, inputs)

  # Threads that are the first to ask would each optimise the same graph.
  for request in {row[:2]: row for row in requests}.values():
    send(request)
  with futures.ThreadPoolExecutor(_THREADS) as pool:
    results = list(pool.map(send, requests))
  used = []
  for i in range(max(counts)):
    send(repeated[i % len(repeated)])
    if i + 1 in counts:
      used.append(memory())
  assert 'tensorflow' not in sys.modules
  with open(sys.argv[2], 'wb') as file:
    pickle.dump((results, used), file)


if __name__ == '__main__':
  main()
