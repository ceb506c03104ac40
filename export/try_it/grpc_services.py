"""TF Serving's gRPC services over loaded models."""

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

METADATA = 'signature_def'

# Where the real server puts values, unless it is told to send their bytes.
_FIELDS = {'float32': 'float_val', 'int32': 'int_val', 'int64': 'int64_val',
           'object': 'string_val'}  # fmt: skip


def predict(models: servables.Models, request, seconds=None):
  """PredictRequest to PredictResponse."""
  servable = models.find(request)
  name = servables.signature_of(request)
  wanted = request.output_filter
  response = predict_pb2.PredictResponse()
  _fill_spec(response, servable, name)
  found = servable.predict(name, request.inputs, wanted, seconds)
  for key, value in found.items():
    proto = response.outputs[key]
    proto.dtype = tf.as_dtype(value.dtype).as_datatype_enum
    proto.tensor_shape.CopyFrom(tf.TensorShape(value.shape).as_proto())
    getattr(proto, _FIELDS[value.dtype.name]).extend(value.ravel().tolist())
  return response


def classify(models: servables.Models, request, seconds=None):
  """ClassificationRequest to ClassificationResponse."""
  servable = models.find(request)
  name = servables.signature_of(request)
  found = servable.classify(name, request.input, seconds)
  response = classification_pb2.ClassificationResponse()
  _fill_spec(response, servable, request.model_spec.signature_name)
  for labels, scores in zip(found['classes'], found['scores']):
    row = response.result.classifications.add()
    for label, score in zip(labels, scores):
      row.classes.add(label=label.decode(errors='replace'), score=score)
  return response


def metadata(models: servables.Models, request, _=None):
  """GetModelMetadataRequest to GetModelMetadataResponse: the signatures."""
  if set(request.metadata_field) != {METADATA}:
    raise servables.invalid(f'metadata_field must be {METADATA!r}.')
  servable = models.find(request)
  response = get_model_metadata_pb2.GetModelMetadataResponse()
  _fill_spec(response, servable, '')
  signatures = get_model_metadata_pb2.SignatureDefMap()
  for name, definition in servable.signature_defs.items():
    signatures.signature_def[name].CopyFrom(definition)
  response.metadata[METADATA].Pack(signatures)
  return response


def status(models: servables.Models, request, _=None):
  """GetModelStatusRequest to GetModelStatusResponse; labels are not heeded."""
  if not request.HasField('model_spec'):
    raise servables.invalid('Missing ModelSpec')
  spec = request.model_spec
  model = models.by_name.get(spec.name)
  response = get_model_status_pb2.GetModelStatusResponse()
  rows = response.model_version_status
  for number, version in sorted(model.versions.items() if model else ())[::-1]:
    if spec.HasField('version') and number != spec.version.value:
      continue
    row = rows.add(version=number, state=version.state)
    row.status.SetInParent()  # All is well, if nothing else is said.
    if version.error:
      row.status.error_code = servables.Code.UNKNOWN.value[0]
      row.status.error_message = version.error
  if not rows:
    text = f'Could not find such versions of model {spec.name}'
    raise servables.Refused(servables.Code.NOT_FOUND, text)
  return response


def _method(function):
  def call(self, request, context):
    try:
      return function(self.models, request, context.time_remaining())
    except servables.Refused as error:
      context.abort(error.code, str(error))

  return call


class _Service:
  def __init__(self, models: servables.Models):
    self.models = models


class PredictionService(
  _Service, prediction_service_pb2_grpc.PredictionServiceServicer
):
  """Predict, Classify and GetModelMetadata; the rest is UNIMPLEMENTED."""

  Predict = _method(predict)
  Classify = _method(classify)
  GetModelMetadata = _method(metadata)


class ModelService(_Service, model_service_pb2_grpc.ModelServiceServicer):
  """GetModelStatus; models cannot be changed by request."""

  GetModelStatus = _method(status)


def _fill_spec(response, servable: servables.Servable, signature: str):
  response.model_spec.name = servable.name
  response.model_spec.version.value = servable.version
  response.model_spec.signature_name = signature
