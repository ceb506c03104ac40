"""TF Serving's JSON: requests to arrays, and results to JSON.

The rules are those of its `util/json_tensor.cc`: bytes are `{"b64": "..."}`,
and outputs whose names end in `_bytes` come back so; a request is either a list
of `instances` or the columns of `inputs`. What does not fit is `Refused`.
"""

import base64
import json
import re

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest

from export.try_it.servables import invalid

_DEEPEST = 254  # Dimensions that a tensor may have.

# What a number may be, by the kind of the type; a bool is no int here.
_WRITTEN = {'f': {int, float}, 'i': {int}, 'u': {int}, 'b': {bool}}


def parse(body: bytes) -> dict:
  """The object that a request holds; what follows it is not looked at."""
  try:
    text = body.decode('utf-8-sig').lstrip(' \t\r\n')
    found, _ = json.JSONDecoder().raw_decode(text)
  except (ValueError, RecursionError) as error:
    raise invalid(f'JSON Parse error: {error}') from error
  if not isinstance(found, dict):
    raise invalid('JSON Value: Is not object')
  if not isinstance(found.get('signature_name', ''), str):
    raise invalid("'signature_name' key must be a string value.")
  _to_bytes(found.get('signature_name', ''))  # It is refused here, too.
  return found


def parse_predict(
  body: dict, definition: meta_graph_pb2.SignatureDef
) -> dict[str, np.ndarray]:
  """The inputs of a signature by name, from the rows or columns of a body."""
  if ('instances' in body) == ('inputs' in body):
    raise invalid("Expecting one of 'inputs' or 'instances' keys.")
  names = sorted(definition.inputs)
  if 'instances' in body:
    columns = _columns(body['instances'], names)
  elif _is_object(body['inputs']):
    columns = body['inputs']
  else:
    columns = {_only(names): body['inputs']}
  missing = ', '.join(name for name in names if name not in columns)
  if missing:
    raise invalid(f'Missing named inputs: {missing}.')
  # What else is in columns is not looked at.
  dtypes = {name: tf.as_dtype(definition.inputs[name].dtype) for name in names}
  return {name: _array(name, columns[name], dtypes[name]) for name in names}


def predict_result(outputs: dict[str, np.ndarray], rows: bool) -> dict:
  """The result of a predict request, in rows or in columns."""
  columns = {name: _json(name, value) for name, value in outputs.items()}
  alone = next(iter(columns.values())) if len(columns) == 1 else None
  if not rows:
    return {'outputs': columns if alone is None else alone}
  if alone is None:
    alone = [dict(zip(columns, row)) for row in zip(*columns.values())]
  return {'predictions': alone}


def parse_examples(body: dict, request: ClassificationRequest):
  """Fills a request's signature and examples from a body."""
  request.model_spec.signature_name = body.get('signature_name', '')
  rows = body.get('examples')
  if not isinstance(rows, list) or not rows:
    raise invalid("Expecting a list of 'examples', of one or more.")
  found = request.input.example_list
  if 'context' in body:
    found = request.input.example_list_with_context
    _fill_example(found.context, body['context'])
  for row in rows:
    _fill_example(found.examples.add(), row)


def _fill_example(example: tf.train.Example, row):
  if not isinstance(row, dict):
    raise invalid(f'Example must be JSON object but got {type(row).__name__}.')
  for name, value in row.items():
    _to_bytes(name)
    feature = example.features.feature[name]
    values = value if isinstance(value, list) else [value]
    kinds = set(map(type, values))
    if kinds and kinds <= {str, dict}:
      feature.bytes_list.value.extend(map(_to_bytes, values))
    elif kinds == {float}:
      feature.float_list.value.extend(values)
    elif kinds and kinds <= {int, bool}:  # Here true is 1.
      numbers = _array(name, list(map(int, values)), tf.int64)
      feature.int64_list.value.extend(numbers.tolist())
    elif kinds:
      raise invalid(f'Unexpected element type in feature: {name!r}.')


def _columns(rows, names: list[str]) -> dict[str, list]:
  if not isinstance(rows, list) or not rows:
    raise invalid("'instances' must be a list of one or more.")
  if not _is_object(rows[0]):
    return {_only(names): rows}
  for i, row in enumerate(rows):
    if not _is_object(row) or sorted(row) != names:
      raise invalid(f'Element {i}: keys must be {", ".join(names)}.')
  return {name: [row[name] for row in rows] for name in names}


def _only(names: list[str]) -> str:
  if len(names) != 1:
    raise invalid(f'Each input must be named: {", ".join(names)}.')
  return names[0]


def _array(name: str, value, dtype: tf.DType) -> np.ndarray:
  """A tensor of lists in lists, without recursion."""
  shape, values, first = [], [value], value
  while isinstance(first, list):
    shape.append(len(first))
    if len(shape) > _DEEPEST:
      raise invalid(f'{name!r} is nested deeper than {_DEEPEST} lists.')
    if not all(isinstance(x, list) and len(x) == shape[-1] for x in values):
      raise invalid(f'{name!r} is ragged at level {len(shape)}.')
    values = [x for row in values for x in row]
    first = values[0] if values else None
  if dtype == tf.string:
    return np.array(list(map(_to_bytes, values)), object).reshape(shape)
  kind = np.dtype(dtype.as_numpy_dtype).kind
  for wrong in set(map(type, values)) - _WRITTEN.get(kind, set()):
    raise invalid(f'{name!r} must hold {dtype.name}, not {wrong.__name__}.')
  try:
    if kind in 'iu' and values:  # NumPy 1 would wrap them.
      if min(values) < dtype.min or max(values) > dtype.max:
        raise OverflowError
    with np.errstate(over='ignore'):  # Too large is infinite.
      return np.array(values, dtype.as_numpy_dtype).reshape(shape)
  except OverflowError as error:
    raise invalid(f'{name!r} has a number beyond {dtype.name}.') from error


def _json(name: str, value: np.ndarray):
  if value.dtype != object:
    return value.tolist()
  found = np.empty(value.shape, object)
  for i, x in enumerate(value.flat):
    if name.endswith('_bytes'):
      found.flat[i] = {'b64': base64.b64encode(x).decode()}
    else:
      found.flat[i] = x.decode(errors='replace')
  return found.tolist()


def _is_bytes(value) -> bool:
  if not isinstance(value, dict) or value.keys() != {'b64'}:
    return False
  return isinstance(value['b64'], str)


def _is_object(value) -> bool:
  return isinstance(value, dict) and not _is_bytes(value)


def _to_bytes(value) -> bytes:
  try:
    if isinstance(value, str):
      return value.encode()  # Fails of a half of a surrogate pair.
    if _is_bytes(value):
      text = re.sub(r'\s', '', value['b64']).rstrip('=')
      return base64.b64decode(text + '=' * (-len(text) % 4), validate=True)
  except ValueError as error:
    raise invalid(f'Unable to decode a string: {error}') from error
  raise invalid('A string is written "..." or {"b64": "..."}.')
