"""Loaded versions of models, and the folders that are watched for new ones."""

import dataclasses
import os
import pathlib
import re
import threading

from absl import logging
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
  get_model_status_pb2,
  input_pb2,
  prediction_log_pb2,
)

from export import saved_model, signatures

State = get_model_status_pb2.ModelVersionStatus.State
_CLASSIFY_INPUT = 'inputs'


class InvalidRequest(ValueError):
  """A request that the client must change: INVALID_ARGUMENT, or 400."""


class NotFound(LookupError):
  """A model, version or signature that is not there: NOT_FOUND, or 404."""


class Servable:
  """One loaded version of a model.

  Args:
    name: The model's name.
    folder: The version's folder, named by its number.
  """

  # TensorFlow spreads one request over the cores; more at once only add to
  # the memory. Shared by all models.
  _running = threading.BoundedSemaphore(2 * (os.cpu_count() or 1))

  def __init__(self, name: str, folder: pathlib.Path):
    self.name = name
    self.version = int(folder.name)
    self.folder = folder
    self.signature_defs = {
      key: definition
      for key, definition in saved_model.read_graph(
        folder
      ).signature_def.items()
      if not key.startswith('__')  # The initialiser's.
    }
    # The object is kept, because the variables go away with it.
    self._loaded = tf.saved_model.load(str(folder), tags=[saved_model.TAG])

  def predict(
    self, signature: str, inputs: dict[str, np.ndarray]
  ) -> dict[str, np.ndarray]:
    """Runs a signature.

    Args:
      signature: Its name.
      inputs: One array for each of its inputs.

    Returns:
      The outputs by name.

    Raises:
      NotFound: If there is no such signature.
      InvalidRequest: If inputs are missing, of another type or shape, or
        refused by the graph.
    """
    definition = self.definition(signature)
    _check_inputs(signature, definition, inputs)
    with self._running:
      try:
        tensors = {
          key: tf.constant(value, tf.as_dtype(definition.inputs[key].dtype))
          for key, value in inputs.items()
        }
        outputs = self._loaded.signatures[signature](**tensors)
      except (tf.errors.InvalidArgumentError, ValueError, TypeError) as error:
        raise InvalidRequest(_reason(error)) from error
      return {key: value.numpy() for key, value in outputs.items()}

  def classify(
    self, signature: str, request: input_pb2.Input
  ) -> tuple[np.ndarray, np.ndarray]:
    """Runs a signature of TF Serving's Classify API.

    Args:
      signature: Its name.
      request: The examples.

    Returns:
      Classes (bytes) and their scores, both `[examples, classes]`.

    Raises:
      NotFound: If there is no such signature.
      InvalidRequest: If it does not classify, or the graph refuses.
    """
    method = self.definition(signature).method_name
    if method != tf.saved_model.CLASSIFY_METHOD_NAME:
      raise InvalidRequest(
        f'Signature {signature!r} of {self.name} has the method {method!r}, '
        f'but Classify needs {tf.saved_model.CLASSIFY_METHOD_NAME!r}.'
      )
    serialized = [x.SerializeToString() for x in _examples(request)]
    if not serialized:
      raise InvalidRequest('The input holds no examples.')
    found = self.predict(
      signature, {_CLASSIFY_INPUT: np.array(serialized, object)}
    )
    return found['classes'], found['scores']

  def definition(self, signature: str) -> meta_graph_pb2.SignatureDef:
    """Inputs, outputs and method of a signature."""
    if signature not in self.signature_defs:
      raise NotFound(
        f'{self.name} has no signature {signature!r}; it has '
        f'{", ".join(sorted(self.signature_defs))}.'
      )
    return self.signature_defs[signature]

  def warm_up(self) -> int:
    """Replays the version's own requests; returns how many there were."""
    file = self.folder / saved_model.WARMUP_FILE
    count = 0
    if file.exists():
      for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        self._replay(prediction_log_pb2.PredictionLog.FromString(record))
        count += 1
    return count

  def _replay(self, log: prediction_log_pb2.PredictionLog):
    kind = log.WhichOneof('log_type')
    if kind == 'predict_log':
      request = log.predict_log.request
      inputs = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
      self.predict(signature_of(request), inputs)
    elif kind == 'classify_log':
      request = log.classify_log.request
      self.classify(signature_of(request), request.input)


@dataclasses.dataclass
class VersionStatus:
  """What became of a version.

  Attributes:
    state: As the model service tells it.
    error: Why it could not be loaded, or ''.
  """

  state: int
  error: str = ''


class Model:
  """A folder of versions, of which the newest is served.

  Args:
    name: The model's name.
    base: The folder.
  """

  def __init__(self, name: str, base: str | os.PathLike):
    self.name = name
    self.base = pathlib.Path(base)
    self._servable = None
    self._status: dict[int, VersionStatus] = {}
    self._lock = threading.Lock()

  def get(self, version: int | None = None) -> Servable:
    """The version that is served.

    Args:
      version: A certain one; None: whichever it is.

    Raises:
      NotFound: If it is not served.
    """
    servable = self._servable
    if servable is None or version not in (None, servable.version):
      which = 'no version' if version is None else f'no version {version}'
      raise NotFound(f'{self.name} has {which} that is available.')
    return servable

  def status(self) -> dict[int, VersionStatus]:
    """The versions that were met, the newest first."""
    with self._lock:
      return dict(sorted(self._status.items(), reverse=True))

  def refresh(self):
    """Takes the newest version into use, if it is not yet.

    The old one answers until the new one is loaded and warm; requests that
    are then under way still end with it.
    """
    found = saved_model.versions(self.base)
    current = self._servable.version if self._servable else None
    if not found or found[-1] == current or self._failed(found[-1]):
      return
    version = found[-1]
    self._set(version, VersionStatus(State.LOADING))
    try:
      servable = Servable(self.name, self.base / str(version))
      count = servable.warm_up()
    except Exception as error:  # A damaged version must not end the server.
      logging.error('%s %d cannot be served: %s', self.name, version, error)
      self._set(version, VersionStatus(State.END, str(error)))
      return
    self._servable = servable
    self._set(version, VersionStatus(State.AVAILABLE))
    if current is not None:
      self._set(current, VersionStatus(State.END))
    logging.info(
      'Serving %s %d, after %d requests to warm up.', self.name, version, count
    )

  def _failed(self, version: int) -> bool:
    status = self.status().get(version)
    return bool(status and status.error)

  def _set(self, version: int, status: VersionStatus):
    with self._lock:
      self._status[version] = status


class Models:
  """All models of a server.

  Args:
    bases: The folder of each model's versions, by its name.
  """

  def __init__(self, bases: dict[str, str | os.PathLike]):
    self.by_name = {name: Model(name, base) for name, base in bases.items()}

  def __getitem__(self, name: str) -> Model:
    if name not in self.by_name:
      raise NotFound(
        f'There is no model {name!r}; there are {", ".join(self.by_name)}.'
      )
    return self.by_name[name]

  def refresh(self):
    """Looks for new versions of all models."""
    for model in self.by_name.values():
      model.refresh()


def signature_of(request) -> str:
  """The signature that a request to predict or to classify asks for."""
  return request.model_spec.signature_name or signatures.SERVE


def _check_inputs(name, definition, inputs):
  wanted = definition.inputs
  for key in wanted:
    if key not in inputs:
      raise InvalidRequest(
        f'Signature {name!r} needs the input {key!r}; it takes '
        f'{", ".join(sorted(wanted))}.'
      )
  for key, value in inputs.items():
    if key not in wanted:
      raise InvalidRequest(
        f'Signature {name!r} has no input {key!r}; it takes '
        f'{", ".join(sorted(wanted))}.'
      )
    dtype = tf.as_dtype(wanted[key].dtype)
    found = tf.as_dtype(value.dtype)
    if found != dtype:
      raise InvalidRequest(
        f'Input {key!r} of signature {name!r} is {found.name}, but must be '
        f'{dtype.name}.'
      )
    shape = tf.TensorShape(wanted[key].tensor_shape)
    if not shape.is_compatible_with(value.shape):
      raise InvalidRequest(
        f'Input {key!r} of signature {name!r} has the shape '
        f'{list(value.shape)}, but must have {shape.as_list()}, where None '
        'is the batch.'
      )


def _examples(request: input_pb2.Input) -> list[tf.train.Example]:
  kind = request.WhichOneof('kind')
  if kind == 'example_list':
    return list(request.example_list.examples)
  if kind != 'example_list_with_context':
    return []
  found = []
  for part in request.example_list_with_context.examples:
    example = tf.train.Example()
    example.CopyFrom(request.example_list_with_context.context)
    example.MergeFrom(part)
    found.append(example)
  return found


def _reason(error: Exception) -> str:
  """The line of an error that tells what is wrong."""
  text = re.sub(r'\{\{.*?\}\} *', '', str(error))  # Names of nodes.
  lines = [line for line in text.splitlines() if line.strip()]
  for line in lines:
    if 'assertion failed: [' in line:
      return line.split('assertion failed: [', 1)[1].rsplit(']', 1)[0]
  return next(
    (
      line.strip()
      for line in lines
      if not line.startswith(('Graph execution', 'Detected at', '<stack'))
    ),
    type(error).__name__,
  )
