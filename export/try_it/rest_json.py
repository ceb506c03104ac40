"""TF Serving's JSON: requests to arrays, and results to JSON.

The rules are those of its REST API: bytes are `{"b64": "..."}`, and outputs
whose names end in `_bytes` come back so; a request is either a list of
`instances` or the columns of `inputs`.
"""

import base64
import binascii

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from export.try_it.servables import InvalidRequest

INSTANCES, INPUTS = 'instances', 'inputs'
_BYTES = '_bytes'


def parse_predict(
  body: dict, definition: meta_graph_pb2.SignatureDef
) -> dict[str, np.ndarray]:
  """The inputs of a predict request.

  Args:
    body: The request's JSON.
    definition: The signature that it is for.

  Returns:
    Arrays by the names of the inputs.

  Raises:
    InvalidRequest: If it is neither rows nor columns, or a value does not fit.
  """
  if (INSTANCES in body) == (INPUTS in body):
    raise InvalidRequest(f'A request holds either {INSTANCES!r} or {INPUTS!r}.')
  if INSTANCES in body:
    columns = _columns(body[INSTANCES], definition)
  else:
    columns = body[INPUTS]
    if not isinstance(columns, dict) or _is_bytes(columns):
      columns = {_only_input(definition): columns}
  return {
    name: _array(name, value, _dtype(name, definition))
    for name, value in columns.items()
  }


def predict_result(outputs: dict[str, np.ndarray], rows: bool) -> dict:
  """The result of a predict request as JSON.

  Args:
    outputs: Arrays by name, the batch first.
    rows: Whether the request had `instances`.
  """
  columns = {name: _json(name, value) for name, value in outputs.items()}
  alone = len(columns) == 1
  if not rows:
    return {'outputs': next(iter(columns.values())) if alone else columns}
  if alone:
    return {'predictions': next(iter(columns.values()))}
  return {
    'predictions': [dict(zip(columns, row)) for row in zip(*columns.values())]
  }


def parse_examples(body: dict) -> list[tf.train.Example]:
  """The examples of a classify request.

  Args:
    body: The request's JSON: 'examples', a list of features by name, and
      'context', features that all of them have.

  Raises:
    InvalidRequest: If it has none, or a feature is not one.
  """
  rows = body.get('examples')
  context = body.get('context', {})
  if not isinstance(rows, list) or not rows:
    raise InvalidRequest("A request to classify holds a list of 'examples'.")
  found = []
  for i, row in enumerate(rows):
    if not isinstance(row, dict) or not isinstance(context, dict):
      raise InvalidRequest(f'Example {i} is not an object of features.')
    example = tf.train.Example()
    for name, value in {**context, **row}.items():
      _set_feature(example.features.feature[name], name, value)
    found.append(example)
  return found


def _set_feature(feature: tf.train.Feature, name: str, value):
  values = value if isinstance(value, list) else [value]
  if all(isinstance(x, str) or _is_bytes(x) for x in values):
    feature.bytes_list.value.extend(_to_bytes(x) for x in values)
  elif any(isinstance(x, bool) for x in values):
    raise InvalidRequest(f'Feature {name!r} is neither numbers nor strings.')
  elif all(isinstance(x, int) for x in values):
    feature.int64_list.value.extend(values)
  elif all(isinstance(x, (int, float)) for x in values):
    feature.float_list.value.extend(values)
  else:
    raise InvalidRequest(f'Feature {name!r} is neither numbers nor strings.')


def _columns(rows, definition) -> dict[str, list]:
  if not isinstance(rows, list) or not rows:
    raise InvalidRequest(f'{INSTANCES!r} must be a list of 1 or more.')
  if not isinstance(rows[0], dict) or _is_bytes(rows[0]):
    return {_only_input(definition): rows}
  for i, row in enumerate(rows):
    if not isinstance(row, dict) or row.keys() != rows[0].keys():
      raise InvalidRequest(
        f'Instance {i} has other inputs than instance 0: each has all.'
      )
  return {name: [row[name] for row in rows] for name in rows[0]}


def _only_input(definition) -> str:
  if len(definition.inputs) != 1:
    raise InvalidRequest(
      'The signature has several inputs, so that each must be named: '
      f'{", ".join(sorted(definition.inputs))}.'
    )
  return next(iter(definition.inputs))


def _dtype(name: str, definition) -> tf.DType:
  if name not in definition.inputs:
    raise InvalidRequest(
      f'The signature has no input {name!r}; it takes '
      f'{", ".join(sorted(definition.inputs))}.'
    )
  return tf.as_dtype(definition.inputs[name].dtype)


def _array(name: str, value, dtype: tf.DType) -> np.ndarray:
  if dtype == tf.string:
    return np.array(_map(_to_bytes, value), object)
  try:
    found = np.array(value)
  except ValueError as error:  # Lists of different lengths.
    raise InvalidRequest(f'Input {name!r} is ragged: {error}.') from error
  allowed = 'iuf' if dtype.is_floating else 'iu'
  if found.size and found.dtype.kind not in allowed:
    raise InvalidRequest(f'Input {name!r} must hold numbers of {dtype.name}.')
  if dtype.is_integer and found.size:
    if found.min() < dtype.min or found.max() > dtype.max:
      raise InvalidRequest(f'Input {name!r} has a number beyond {dtype.name}.')
  return found.astype(dtype.as_numpy_dtype)


def _json(name: str, value: np.ndarray):
  if value.dtype != object:
    return value.tolist()
  if name.endswith(_BYTES):
    return _map(lambda x: {'b64': base64.b64encode(x).decode()}, value.tolist())
  return _map(bytes.decode, value.tolist())


def _map(function, value):
  if isinstance(value, list):
    return [_map(function, x) for x in value]
  return function(value)


def _is_bytes(value) -> bool:
  return isinstance(value, dict) and value.keys() == {'b64'}


def _to_bytes(value) -> bytes:
  if isinstance(value, str):
    return value.encode()
  if _is_bytes(value) and isinstance(value['b64'], str):
    try:
      return base64.b64decode(value['b64'], validate=True)
    except binascii.Error as error:
      raise InvalidRequest(f'Bytes are not base64: {error}.') from error
  raise InvalidRequest('A string is written "..." or {"b64": "..."}.')
