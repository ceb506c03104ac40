"""TF Serving's gRPC services over loaded models."""

import contextlib

from absl import logging
import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
  classification_pb2,
  get_model_metadata_pb2,
  get_model_status_pb2,
  model_service_pb2_grpc,
  predict_pb2,
  prediction_service_pb2_grpc,
)

from export.try_it import servables

_METADATA = 'signature_def'


@contextlib.contextmanager
def _told(context: grpc.ServicerContext):
  """Turns errors into the status that TF Serving would give."""
  try:
    yield
  except servables.InvalidRequest as error:
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
  except servables.NotFound as error:
    context.abort(grpc.StatusCode.NOT_FOUND, str(error))
  except tf.errors.OpError as error:
    logging.exception('A request failed.')
    context.abort(grpc.StatusCode.INTERNAL, str(error))


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
  """Predict, Classify and GetModelMetadata; the rest is UNIMPLEMENTED.

  Args:
    models: What is served.
  """

  def __init__(self, models: servables.Models):
    self._models = models

  def Predict(self, request, context):
    """Runs a signature on tensors."""
    with _told(context):
      servable = self._get(request.model_spec)
      try:
        inputs = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
      except (TypeError, ValueError, MemoryError) as error:
        raise servables.InvalidRequest(
          f'An input cannot be read: {error}.'
        ) from error
      name = servables.signature_of(request)
      outputs = servable.predict(name, inputs)
      wanted = list(request.output_filter) or list(outputs)
      for key in wanted:
        if key not in outputs:
          raise servables.InvalidRequest(
            f'Signature {name!r} has no output {key!r}; it gives '
            f'{", ".join(outputs)}.'
          )
      response = predict_pb2.PredictResponse()
      _fill_spec(response.model_spec, servable, name)
      for key in wanted:
        response.outputs[key].CopyFrom(tf.make_tensor_proto(outputs[key]))
      return response

  def Classify(self, request, context):
    """Classifies tf.Examples."""
    with _told(context):
      servable = self._get(request.model_spec)
      name = servables.signature_of(request)
      classes, scores = servable.classify(name, request.input)
      response = classification_pb2.ClassificationResponse()
      _fill_spec(response.model_spec, servable, name)
      for labels, values in zip(classes, scores):
        row = response.result.classifications.add()
        for label, value in zip(labels, values):
          row.classes.add(label=label.decode(), score=value)
      return response

  def GetModelMetadata(self, request, context):
    """Tells the signatures of a model."""
    with _told(context):
      for field in request.metadata_field:
        if field != _METADATA:
          raise servables.InvalidRequest(
            f'There is no metadata field {field!r}; there is {_METADATA}.'
          )
      servable = self._get(request.model_spec)
      response = get_model_metadata_pb2.GetModelMetadataResponse()
      _fill_spec(response.model_spec, servable, '')
      response.metadata[_METADATA].Pack(signature_map(servable))
      return response

  def _get(self, spec):
    return self._models[spec.name].get(_version(spec))


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
  """GetModelStatus; models cannot be changed by request.

  Args:
    models: What is served.
  """

  def __init__(self, models: servables.Models):
    self._models = models

  def GetModelStatus(self, request, context):
    """Tells which versions there are and how they do."""
    with _told(context):
      return model_status(
        self._models[request.model_spec.name], _version(request.model_spec)
      )


def signature_map(
  servable: servables.Servable,
) -> get_model_metadata_pb2.SignatureDefMap:
  """The signatures of a version, as clients ask for them."""
  found = get_model_metadata_pb2.SignatureDefMap()
  for name, definition in servable.signature_defs.items():
    found.signature_def[name].CopyFrom(definition)
  return found


def model_status(
  model: servables.Model, version: int | None = None
) -> get_model_status_pb2.GetModelStatusResponse:
  """How the versions of a model do.

  Raises:
    NotFound: If the version asked for was never there.
  """
  response = get_model_status_pb2.GetModelStatusResponse()
  for number, status in model.status().items():
    if version not in (None, number):
      continue
    row = response.model_version_status.add(version=number, state=status.state)
    row.status.SetInParent()  # All is well, if nothing else is said.
    if status.error:
      row.status.error_code = grpc.StatusCode.UNKNOWN.value[0]
      row.status.error_message = status.error
  if not response.model_version_status:
    raise servables.NotFound(f'{model.name} has no version {version or ""}.')
  return response


def _version(spec) -> int | None:
  return spec.version.value if spec.HasField('version') else None


def _fill_spec(spec, servable: servables.Servable, signature: str):
  spec.name = servable.name
  spec.version.value = servable.version
  spec.signature_name = signature
