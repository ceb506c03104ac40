"""The stock clients of a server of the exports, gRPC's and REST's.

Files that tests name are of the repository tensorflow/serving, below
`tensorflow_serving/`: there it was read what the real server does.
"""

import base64
import http.client
import json
import pathlib

from absl.testing import absltest
import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
  get_model_metadata_pb2,
  predict_pb2,
  prediction_service_pb2_grpc,
)


def spec(message, model: str, signature: str = ''):
  """Names the model and signature of a request."""
  message.model_spec.name = model
  message.model_spec.signature_name = signature
  return message


def connect(channel: grpc.Channel):
  """The stock client of the prediction service."""
  return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def predict(stub, model: str, signature: str, inputs: dict, filtered=()):
  """The response to gRPC's Predict."""
  request = spec(predict_pb2.PredictRequest(), model, signature)
  request.output_filter.extend(filtered)
  for name, value in inputs.items():
    request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
  return stub.Predict(request)


def metadata(stub, model: str):
  """The response to gRPC's GetModelMetadata."""
  request = spec(get_model_metadata_pb2.GetModelMetadataRequest(), model)
  request.metadata_field.append('signature_def')
  return stub.GetModelMetadata(request)


def to_json(value):
  """Bytes as TF Serving's JSON writes them, arrays as lists."""
  if isinstance(value, np.ndarray):
    return to_json(value.tolist())
  if isinstance(value, list):
    return [to_json(x) for x in value]
  if isinstance(value, bytes):
    return {'b64': base64.b64encode(value).decode()}
  return value


class TestCase(absltest.TestCase):
  """The base of a test case, whose class starts a server.

  Not TensorFlow's test case, which would have the server prepare its graphs
  anew for each test.

  Attributes:
    bases: The folder of each model's versions, of which it serves number 1.
    loaded: Those versions, loaded without any server.
    port: Of gRPC.
    rest_port: Of REST.
  """

  bases: dict[str, pathlib.Path]
  loaded: dict
  port: int
  rest_port: int

  def setUp(self):
    super().setUp()
    self.channel = grpc.insecure_channel(f'127.0.0.1:{self.port}')
    self.addCleanup(self.channel.close)
    self.stub = connect(self.channel)

  @classmethod
  def load(cls, bases: dict[str, pathlib.Path]):
    """Loads what the server serves."""
    cls.bases = bases
    cls.loaded = {
      name: tf.saved_model.load(str(base / '1')) for name, base in bases.items()
    }

  def direct(self, model: str, signature: str, inputs: dict) -> dict:
    """The outputs of a signature without any server."""
    outputs = self.loaded[model].signatures[signature](
      **{name: tf.constant(x) for name, x in inputs.items()}
    )
    return {name: x.numpy() for name, x in outputs.items()}

  def predict(self, model, signature, inputs, filtered=()):
    """The response to gRPC's Predict."""
    return predict(self.stub, model, signature, inputs, filtered)

  def rest(
    self, method: str, path: str, body=None, **headers
  ) -> tuple[int, dict | None]:
    """Status and JSON (None if it is something else) of an HTTP request.

    A body that is a list of bytes is sent in chunks.
    """
    connection = http.client.HTTPConnection('127.0.0.1', self.rest_port)
    chunks = isinstance(body, list)
    if not chunks and body is not None and not isinstance(body, bytes):
      body = json.dumps(body).encode()
    connection.request(method, path, body, headers, encode_chunked=chunks)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    is_json = response.getheader('Content-Type') == 'application/json'
    return response.status, json.loads(content) if is_json else None

  def refused(self, method, request):
    """Asks for what gRPC must call an invalid argument."""
    with self.assertRaises(grpc.RpcError) as caught:
      method(request)
    self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)

  def assert_lives(self):
    """It answers still."""
    inputs = {'codes': np.zeros([1, 16], np.int32)}
    self.assertLen(self.predict('tokenizer', 'decode', inputs).outputs, 1)
