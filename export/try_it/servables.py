"""Loaded versions of models, and the folders that are watched for new ones.

A version runs in a TensorFlow 1 session with a time limit, as in the real
server; what a refusal says is clearer here, its code is the same.
"""

from collections.abc import Iterable, Mapping
import contextlib
import dataclasses
import pathlib
import re
import time

from absl import logging
import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_status_pb2, prediction_log_pb2
from tensorflow_serving.apis.input_pb2 import Input
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from export import saved_model, signatures

Code = grpc.StatusCode
State = get_model_status_pb2.ModelVersionStatus.State

SESSION = tf.compat.v1.ConfigProto()  # Read when a version is loaded.
_LARGEST_TENSOR = 2**27  # Numbers; the real server takes all memory there is.


class Refused(Exception):  # noqa: N818
  """A request that is not answered; `code` is gRPC's."""

  def __init__(self, code: grpc.StatusCode, message: str):
    super().__init__(message)
    self.code = code


def invalid(message: str) -> Refused:
  """What the client must change: INVALID_ARGUMENT."""
  return Refused(Code.INVALID_ARGUMENT, message)


class Servable:
  """One loaded version of a model, in a folder that is named by its number."""

  def __init__(self, name: str, folder: pathlib.Path):
    self.name, self.folder, self.version = name, folder, int(folder.name)
    graph = tf.Graph()
    self._session = tf.compat.v1.Session(graph=graph, config=SESSION)
    with graph.as_default():
      loaded = tf.compat.v1.saved_model.load(
        self._session, [saved_model.TAG], str(folder)
      )
    self.signature_defs = dict(loaded.signature_def)

  def definition(
    self, signature: str, code: grpc.StatusCode = Code.FAILED_PRECONDITION
  ) -> meta_graph_pb2.SignatureDef:
    """Inputs and outputs of a signature; refuses with `code`."""
    if signature not in self.signature_defs:
      text = f'{self.name} has {_names(self.signature_defs)}'
      raise Refused(code, f'Signature {signature!r} not found: {text}.')
    return self.signature_defs[signature]

  def predict(
    self,
    signature: str,
    inputs: Mapping[str, np.ndarray | tensor_pb2.TensorProto],
    outputs: Iterable[str] = (),
    seconds: float | None = None,
  ) -> dict[str, np.ndarray]:
    """Runs a signature on one tensor for each of its inputs.

    Args:
      signature: Its name.
      inputs: The tensors by name.
      outputs: Which outputs are wanted; all, if none are named.
      seconds: How long it may take; None: as long as it does.

    Raises:
      Refused: If there is no such signature, if tensors do not fit or are
        refused by the graph, or if the time is over.
    """
    definition = self.definition(signature)
    if set(inputs) != set(definition.inputs):
      text = f'{_names(definition.inputs)}, but given were {_names(inputs)}'
      raise invalid(f'Signature {signature!r} takes {text}.')
    feeds = {
      info.name: _array(f'Input {key!r} of {signature!r}', inputs[key], info)
      for key, info in definition.inputs.items()
    }
    wanted = list(outputs) or list(definition.outputs)
    if len({*wanted} & {*definition.outputs}) < len(wanted):
      text = f'{_names(definition.outputs)}, not {", ".join(wanted)}'
      raise invalid(f'Signature {signature!r} gives {text}.')
    fetches = {key: definition.outputs[key].name for key in wanted}
    # 0 would mean no limit.
    limit = None if seconds is None else max(1, min(2**31, int(seconds * 1e3)))
    options = limit and tf.compat.v1.RunOptions(timeout_in_ms=limit)
    try:
      return self._session.run(fetches, feeds, options=options)
    except tf.errors.OpError as error:
      code = next(x for x in Code if x.value[0] == error.error_code)
      raise Refused(code, _reason(error)) from error

  def classify(
    self, signature: str, request: Input, seconds: float | None = None
  ) -> dict[str, np.ndarray]:
    """'classes' and 'scores' of examples, `[examples, classes]`, or refuses."""
    definition = self.definition(signature, Code.INVALID_ARGUMENT)
    taken, given = set(definition.inputs), set(definition.outputs)
    if taken != {'inputs'} or given != {'classes', 'scores'}:
      raise invalid(f'Signature {signature!r} of {self.name} cannot classify.')
    part, context = request.example_list, b''
    if request.HasField('example_list_with_context'):
      part = request.example_list_with_context
      # One after the other, two messages are the first updated by the second.
      context = part.context.SerializeToString()
    rows = [context + x.SerializeToString() for x in part.examples]
    if not rows:
      raise invalid('Input is empty.')
    inputs = {'inputs': np.array(rows, object)}
    return self.predict(signature, inputs, seconds=seconds)

  def warm_up(self) -> int:
    """Replays the version's own requests; returns how many there were."""
    file = self.folder / saved_model.WARMUP_FILE
    records = tf.data.TFRecordDataset([str(file)] if file.exists() else [])
    count = 0
    for record in records.as_numpy_iterator():
      log = prediction_log_pb2.PredictionLog.FromString(record)
      if log.HasField('predict_log'):
        request = log.predict_log.request
        self.predict(signature_of(request), request.inputs)
      elif log.HasField('classify_log'):
        request = log.classify_log.request
        self.classify(signature_of(request), request.input)
      count += 1
    return count


@dataclasses.dataclass
class Version:
  """What became of a version."""

  state: int = State.LOADING  # As the model service tells it.
  error: str = ''  # Why it could not be loaded.
  tries: int = 0
  again: float = 0.0  # When it is tried next, by `time.monotonic`.
  servable: Servable | None = None  # While it is served.


class Model:
  """A folder of versions, of which those are served that a policy wants."""

  def __init__(
    self, config: ModelConfig, retries: int = 5, retry_seconds: float = 60.0
  ):
    self.name, self.labels = config.name, dict(config.version_labels)
    self._base = pathlib.Path(config.base_path)
    self._policy = config.model_version_policy
    self._retries, self._retry_seconds = retries, retry_seconds
    # Written by one thread, and replaced as a whole where others read.
    self.versions: dict[int, Version] = {}

  def get(self, version: int | None = None) -> Servable | None:
    """The newest version that is served, or a certain one; None: it is not."""
    served = {n: x.servable for n, x in self.versions.items() if x.servable}
    return served.get(max(served, default=0) if version is None else version)

  def refresh(self):
    """Takes the wanted versions into use, and then others out of it.

    Old ones answer until a wanted one is loaded and warm; requests that are
    then under way still end with them.
    """
    if not self._base.is_dir():  # It may be away for a while.
      return
    wanted = self._wanted(saved_model.versions(self._base))
    for number in wanted:
      version = self.versions.get(number, Version())
      if version.state == State.END and not version.error:
        version = Version()  # It was out of use.
      if version.state == State.LOADING and time.monotonic() >= version.again:
        self._put(number, version)
        self._put(number, self._load(number, version.tries + 1))
    if not wanted or any(self.get(number) for number in wanted):
      for number, version in self.versions.items():
        if version.servable and number not in wanted:
          self._put(number, Version(State.END))

  def _wanted(self, found: list[int]) -> list[int]:
    if self._policy.HasField('specific'):
      return sorted({*found} & {*self._policy.specific.versions})
    if self._policy.HasField('all'):
      return found
    return found[-(self._policy.latest.num_versions or 1) :]

  def _load(self, number: int, tries: int) -> Version:
    try:
      servable = Servable(self.name, self._base / str(number))
      count = servable.warm_up()
    except Exception as error:  # A damaged version must not end the server.
      logging.error('%s %d, try %d: %s', self.name, number, tries, error)
      again = time.monotonic() + self._retry_seconds
      state = State.LOADING if tries <= self._retries else State.END
      return Version(state, _reason(error), tries, again)
    logging.info('Serving %s %d, warmed by %d.', self.name, number, count)
    return Version(State.AVAILABLE, servable=servable)

  def _put(self, number: int, version: Version):
    self.versions = {**self.versions, number: version}


class Models:
  """All models of a server, each as `Model` takes it."""

  def __init__(self, configs: Iterable[ModelConfig], **retrying):
    self.by_name = {x.name: Model(x, **retrying) for x in configs}

  def find(self, request) -> Servable:
    """The version that a request asks for; refuses what is not served."""
    spec = request.model_spec
    if not spec.name:  # Or it has no spec.
      raise invalid('ModelSpec has no name specified.')
    model = self.by_name.get(spec.name)
    version = spec.version.value if spec.HasField('version') else None
    if spec.WhichOneof('version_choice') == 'version_label':
      version = model and model.labels.get(spec.version_label)
      if version is None:
        raise invalid(f'Unrecognized servable version label: {spec}')
    servable = model and model.get(version)
    if not servable:
      text = f'{spec.name} {version or ""}; served are {_names(self.by_name)}.'
      raise Refused(Code.NOT_FOUND, f'Servable not found for request: {text}')
    return servable

  def refresh(self):
    """Looks for new versions of all models."""
    for model in self.by_name.values():
      with contextlib.suppress(OSError):  # A folder may be away for a while.
        model.refresh()


def signature_of(request) -> str:
  """The signature that a request to predict or to classify asks for."""
  return request.model_spec.signature_name or signatures.SERVE


def _array(what: str, value, info: meta_graph_pb2.TensorInfo) -> np.ndarray:
  """A tensor as TensorFlow itself reads it: values may be left out."""
  if isinstance(value, tensor_pb2.TensorProto):
    sizes = [dim.size for dim in value.tensor_shape.dim]
    if np.prod(sizes, dtype=float) > _LARGEST_TENSOR:
      raise invalid(f'{what} is too large: {sizes}.')
    try:
      text = value.SerializeToString()
      value = tf.io.parse_tensor(text, info.dtype).numpy()
    except tf.errors.OpError as error:
      raise invalid(f'{what}: {_reason(error)}') from error
  shape = tf.TensorShape(info.tensor_shape)
  if not shape.is_compatible_with(value.shape):
    text = f'{list(value.shape)}, but must have {shape.as_list()}'
    raise invalid(f'{what} has the shape {text}, where None is the batch.')
  return value


def _names(names: Iterable[str]) -> str:
  return ', '.join(sorted(x for x in names if not x.startswith('__'))) or 'none'


def _reason(error: Exception) -> str:
  """The part of an error's text that tells what is wrong."""
  text = re.sub(r'\{\{.*?\}\} *', '', getattr(error, 'message', str(error)))
  found = re.search(r'assertion failed: \[(.*)\]', text)
  text = text.removeprefix('Graph execution error:').strip()
  return found[1] if found else text.partition('\n')[0]
