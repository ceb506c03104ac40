"""What a server of the exports must do, asked with the stock clients.

The same tests run against the loopback server and, where there is one, against
the real `tensorflow_model_server`. Files that are named are of the repository
tensorflow/serving, below `tensorflow_serving/`: there it was read what the real
server does.
"""

import base64
from concurrent import futures
import gzip
import http.client
import io
import json
import pathlib

from absl.testing import absltest
import grpc
import numpy as np
from PIL import Image
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
  classification_pb2,
  get_model_metadata_pb2,
  get_model_status_pb2,
  model_service_pb2_grpc,
  predict_pb2,
  prediction_log_pb2,
  prediction_service_pb2_grpc,
)

from tests.export import calls, tiny

_BATCHES = (1, 5)
_AT_ONCE = 200
_EMPTY = 'holds 0 examples, but a batch holds 1 to 32'


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


def bad_requests() -> dict[str, tuple[str, str, dict, str]]:
  """Model, signature, inputs and a part of the message, by what is wrong."""
  picture = tiny.picture(0)
  good = tiny.encoded(picture)
  found = {}
  for name, file, text in (
    ('no_image', b'hello', 'the bytes are not a JPEG or PNG image'),
    ('no_bytes', b'', 'the image has no bytes'),
    ('webp', tiny.encoded(picture, 'WEBP'), 'it is a WebP image: convert it'),
    ('cut_png', good[: len(good) // 2], 'the image is damaged or cut short'),
    (
      'cut_jpeg',
      tiny.encoded(picture, 'JPEG')[:40],
      'the image is damaged or cut short',
    ),
    ('gif', tiny.encoded(picture, 'GIF'), 'it is a GIF image: convert it'),
    (
      'large',
      tiny.encoded(Image.new('1', (20_000, 20_000))),
      'it has 20000 x 20000',
    ),
    ('long', tiny.encoded(Image.new('L', (20_000, 1))), 'it has 20000 x 1 '),
  ):
    inputs = {'image_bytes': np.array([good, file], object)}
    found[name] = 'tokenizer', 'serving_default', inputs, f'example 1: {text}'
  pair = np.array([good, b'hello'], object)
  text = 'example 1: the bytes are not a JPEG'
  for model, signature, more in (
    ('tokenizer', 'reconstruct', {}),
    ('sampler', 'negative_log_likelihood', {'class_ids': np.int32([0, 1])}),
    (
      'sampler',
      'complete',
      {'kept_rows': np.int32([1, 1]), **calls.sampling_inputs(2)},
    ),
    ('probe', 'serving_default', {}),
    ('probe', 'features', {}),
  ):
    inputs = {'image_bytes': pair, **more}
    found[f'no_image_{model}_{signature}'] = model, signature, inputs, text
  number = tf.train.Example()
  number.features.feature['image/encoded'].int64_list.value.append(3)
  for name, wrong, text in (
    ('no_image', calls.example(b'hello'), 'example 1: the bytes are not'),
    ('no_feature', tf.train.Example(), 'example 1: the image has no bytes'),
    ('number', number, 'example 1, Key: image/encoded'),
  ):
    both = [x.SerializeToString() for x in (calls.example(good), wrong)]
    inputs = {'inputs': np.array(both, object)}
    found[f'classify_{name}'] = 'probe', 'classify', inputs, text
  inputs = {'image_bytes': pair[:1], 'class_ids': np.int32([10])}
  text = 'example 0: class_ids is 10, but must be in [0, 9]'
  found['class_likelihood'] = (
    'sampler',
    'negative_log_likelihood',
    inputs,
    text,
  )
  for name, code in (('high_code', 32), ('negative_code', -1)):
    codes = np.full([3, 16], 7, np.int32)
    codes[2, 15] = code
    text = f'example 2: codes is {code}, but must be in [0, 31]'
    found[name] = 'tokenizer', 'decode', {'codes': codes}, text
  pixels = np.full([2, 16, 16, 3], 0.5, np.float32)
  pixels[1, 0, 0, 0] = 255.0
  found['bright'] = (
    'tokenizer',
    'encode_images',
    {'images': pixels},
    'example 1: images is 255',
  )
  for name, value, text in (
    ('class_ids', 10, 'is 10, but must be in [0, 9]'),
    ('class_ids', -1, 'is -1'),
    ('seeds', -1, 'is -1'),
    ('seeds', 2**32, 'is 4294967296'),
    ('temperature', np.nan, 'is nan'),
    ('temperature', -0.5, 'is -0.5'),
    ('temperature', np.inf, 'is inf'),
    ('top_k', -1, 'is -1'),
    ('top_p', 0.0, 'is 0, but must be in (0.0, 1.0]'),
    ('top_p', 1.5, 'is 1.5'),
    ('guidance_scale', -1.0, 'is -1'),
  ):
    drawn = calls.sampling_inputs(3)
    drawn[name][1] = value
    found[f'{name}_{value}'] = (
      'sampler',
      'serving_default',
      drawn,
      f'example 1: {name} {text}',
    )
  kept = {
    'image_bytes': np.array([good], object),
    'kept_rows': np.int32([5]),
    **calls.sampling_inputs(1),
  }
  text = 'example 0: kept_rows is 5, but must be in [0, 4]'
  found['kept_rows'] = 'sampler', 'complete', kept, text
  uneven = {**calls.sampling_inputs(3), 'seeds': np.arange(2)}
  found['uneven'] = 'sampler', 'serving_default', uneven, 'seeds'
  for model, signature, inputs in calls.every_signature(1):
    empty = {name: x[:0] for name, x in inputs.items()}
    found[f'empty_{model}_{signature}'] = model, signature, empty, _EMPTY
  return found


class ProtocolTests(absltest.TestCase):
  """The base of a test case, whose class starts a server.

  Not TensorFlow's test case, which would have the server prepare its graphs
  anew for each test.

  Attributes:
    bases: The folder of each model's versions, of which it serves number 1.
    port: Of gRPC.
    rest_port: Of REST.
  """

  bases: dict[str, pathlib.Path]
  port: int
  rest_port: int

  def setUp(self):
    super().setUp()
    self.channel = grpc.insecure_channel(f'127.0.0.1:{self.port}')
    self.addCleanup(self.channel.close)
    self.stub = connect(self.channel)

  def direct(self, model: str, signature: str, inputs: dict) -> dict:
    """The outputs of a signature without any server."""
    raise NotImplementedError

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

  def _assert_outputs(self, found, expected):
    self.assertCountEqual(found, expected)
    for name, value in expected.items():
      if value.dtype == object:
        self.assertEqual(np.asarray(found[name]).tolist(), value.tolist())
      else:
        np.testing.assert_allclose(found[name], value, 1e-4, 1e-4)

  def _predicts(self):
    for n in _BATCHES:
      for model, signature, inputs in calls.every_signature(n):
        yield n, model, signature, inputs

  def test_predict_by_grpc(self):
    for _, model, signature, inputs in self._predicts():
      response = self.predict(model, signature, inputs)
      self.assertEqual(response.model_spec.name, model)
      self.assertEqual(response.model_spec.signature_name, signature)
      self.assertEqual(response.model_spec.version.value, 1)
      found = {k: tf.make_ndarray(v) for k, v in response.outputs.items()}
      self._assert_outputs(found, self.direct(model, signature, inputs))

  def test_output_filter(self):
    inputs = calls.sampling_inputs(2)
    found = self.predict('sampler', 'serving_default', inputs, ['codes'])
    self.assertEqual(list(found.outputs), ['codes'])

  def test_predict_by_rest_in_rows(self):
    for n, model, signature, inputs in self._predicts():
      columns = {name: to_json(x) for name, x in inputs.items()}
      rows = [{k: v[i] for k, v in columns.items()} for i in range(n)]
      if len(columns) == 1:  # Then the name may be left out.
        rows = [next(iter(row.values())) for row in rows]
      status, body = self.rest(
        'POST',
        f'/v1/models/{model}:predict',
        {'signature_name': signature, 'instances': rows},
      )
      self.assertEqual(status, 200, body)
      expected = self.direct(model, signature, inputs)
      if len(expected) == 1:
        found = {next(iter(expected)): body['predictions']}
      else:
        found = {
          name: [row[name] for row in body['predictions']] for name in expected
        }
      self._assert_outputs(self._from_json(found, expected), expected)

  def test_predict_by_rest_in_columns(self):
    for _, model, signature, inputs in self._predicts():
      columns = {name: to_json(x) for name, x in inputs.items()}
      status, body = self.rest(
        'POST',
        f'/v1/models/{model}/versions/1:predict',
        {'signature_name': signature, 'inputs': columns},
      )
      self.assertEqual(status, 200, body)
      expected = self.direct(model, signature, inputs)
      found = body['outputs']
      if len(expected) == 1:
        found = {next(iter(expected)): found}
      self._assert_outputs(self._from_json(found, expected), expected)

  def _from_json(self, found, expected):
    def to_bytes(value):
      if isinstance(value, list):
        return [to_bytes(x) for x in value]
      if isinstance(value, dict):
        return base64.b64decode(value['b64'])
      return value.encode()

    return {
      name: to_bytes(value) if expected[name].dtype == object else value
      for name, value in found.items()
    }

  def test_classify(self):
    contents = tiny.files(3)
    expected = self.direct(
      'probe', 'serving_default', {'image_bytes': np.array(contents, object)}
    )
    request = spec(
      classification_pb2.ClassificationRequest(), 'probe', 'classify'
    )
    for file in contents:
      request.input.example_list.examples.append(calls.example(file))
    rows = [
      [(x.label, x.score) for x in row.classes]
      for row in self.stub.Classify(request).result.classifications
    ]
    status, body = self.rest(
      'POST',
      '/v1/models/probe:classify',
      {
        'signature_name': 'classify',
        'examples': [{'image/encoded': to_json(file)} for file in contents],
      },
    )
    self.assertEqual(status, 200, body)
    for found in (rows, body['results']):
      for i, row in enumerate(found):
        names, scores = zip(*row)
        self.assertEqual(
          list(names), [x.decode() for x in expected['top_classes'][i]]
        )
        np.testing.assert_allclose(scores, expected['top_scores'][i], atol=1e-4)

  def test_requests_of_the_warmup_file(self):
    for name, base in self.bases.items():
      file = base / '1' / 'assets.extra' / 'tf_serving_warmup_requests'
      asked = set()
      for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        if log.HasField('classify_log'):
          request = log.classify_log.request
          found = self.stub.Classify(request).result.classifications
        else:
          request = log.predict_log.request
          outputs = self.stub.Predict(request).outputs.values()
          for found in map(tf.make_ndarray, outputs):
            self.assertLen(found, 1)
        self.assertLen(found, 1)
        self.assertEqual(request.model_spec.name, name)
        asked.add(request.model_spec.signature_name)
      of_model = {s for m, s, _ in calls.every_signature(1) if m == name}
      self.assertEqual(asked, of_model)

  def test_metadata(self):
    response = metadata(self.stub, 'sampler')
    found = get_model_metadata_pb2.SignatureDefMap()
    self.assertTrue(response.metadata['signature_def'].Unpack(found))
    signature = found.signature_def['complete']
    self.assertEqual(signature.inputs['seeds'].dtype, tf.int64.as_datatype_enum)
    shape = tf.TensorShape(signature.outputs['codes'].tensor_shape)
    self.assertEqual(shape.as_list(), [None, 16])
    status, body = self.rest('GET', '/v1/models/sampler/metadata')
    self.assertEqual(status, 200, body)
    self.assertEqual(body['model_spec']['version'], '1')
    named = body['metadata']['signature_def']['signature_def']
    self.assertEqual(named['complete']['inputs']['seeds']['dtype'], 'DT_INT64')

  def test_status(self):
    stub = model_service_pb2_grpc.ModelServiceStub(self.channel)
    request = spec(get_model_status_pb2.GetModelStatusRequest(), 'probe')
    found = stub.GetModelStatus(request).model_version_status
    self.assertLen(found, 1)
    self.assertEqual(found[0].version, 1)
    self.assertEqual(
      found[0].state, get_model_status_pb2.ModelVersionStatus.AVAILABLE
    )
    status, body = self.rest('GET', '/v1/models/probe')
    self.assertEqual(status, 200, body)
    row = body['model_version_status'][0]
    self.assertEqual((row['version'], row['state']), ('1', 'AVAILABLE'))

  def test_bad_inputs_are_refused_with_their_example(self):
    for name, (model, signature, inputs, text) in bad_requests().items():
      with self.subTest(name):
        with self.assertRaises(grpc.RpcError) as caught:
          self.predict(model, signature, inputs)
        self.assertEqual(
          caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT
        )
        self.assertIn(text, caught.exception.details())
        columns = {k: to_json(v) for k, v in inputs.items()}
        status, body = self.rest(
          'POST',
          f'/v1/models/{model}:predict',
          {'signature_name': signature, 'inputs': columns},
        )
        self.assertEqual(status, 400, body)
        # JSON has no empty array of a shape, so that another check finds it.
        if text != _EMPTY or all(x.ndim == 1 for x in inputs.values()):
          self.assertIn(text, body['error'])
    self._assert_lives()

  def test_wrong_types_and_names_are_refused(self):
    good = calls.sampling_inputs(2)
    missing = {k: v for k, v in good.items() if k != 'seeds'}
    for inputs in (
      {**good, 'seeds': np.float32([1, 2])},
      {**good, 'class_ids': np.int64([1, 2])},
      {**good, 'seeds': np.zeros([2, 2], np.int64)},
      missing,
      {**good, 'more': np.zeros(2)},
    ):
      with self.assertRaises(grpc.RpcError) as caught:
        self.predict('sampler', 'serving_default', inputs)
      self.assertEqual(
        caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT
      )
    path = '/v1/models/tokenizer:predict'
    for body in (
      b'',
      b'{',
      b'[]',
      {},
      {'signature_name': 'decode', 'instances': []},
      {'signature_name': 'decode', 'instances': [[1.5] * 16]},
      {'signature_name': 'decode', 'instances': [[1] * 15]},
      {'signature_name': 'decode', 'instances': [[1] * 16, [1]]},
      {'signature_name': 'decode', 'instances': [['a'] * 16]},
      {'signature_name': 'decode', 'instances': [[2**31] * 16]},
      {'signature_name': 'decode', 'inputs': {'more': [[1] * 16]}},
      {'signature_name': 3, 'instances': [[1] * 16]},
      {'instances': [{'b64': '!'}]},
      {'instances': [3]},
      b'{"instances": ["\\ud800"]}',
      b'{"instances": ["\xff"]}',
      b'{"instances": ' + b'[' * 900 + b']' * 900 + b'}',
      b'{"instances": ' + b'[' * 9000 + b']' * 9000 + b'}',
      b'{"instances": ' + b'{"a":' * 900 + b'1' + b'}' * 901,
    ):
      status, answer = self.rest('POST', path, body)
      self.assertEqual(status, 400, body)
      self.assertNotEmpty(answer['error'])
    self._assert_lives()

  def test_what_is_not_there(self):
    codes = {'codes': np.zeros([1, 16], np.int32)}
    for model, signature, code in (
      # core/basic_manager.cc: GetUntypedServableHandle.
      ('nobody', '', grpc.StatusCode.NOT_FOUND),
      # model_servers/server_core.cc: ServableRequestFromModelSpec.
      ('', '', grpc.StatusCode.INVALID_ARGUMENT),
      # servables/tensorflow/predict_util.cc: RunPredict.
      ('tokenizer', 'nothing', grpc.StatusCode.FAILED_PRECONDITION),
    ):
      with self.assertRaises(grpc.RpcError) as caught:
        self.predict(model, signature, codes)
      self.assertEqual(caught.exception.code(), code)
    # Of model_servers/server_core.cc, GetModelVersionForLabel.
    request = spec(predict_pb2.PredictRequest(), 'tokenizer', 'decode')
    request.model_spec.version_label = 'none'
    self._refused(self.stub.Predict, request)
    # Of servables/tensorflow/predict_impl.cc, Predict: no model_spec.
    self._refused(self.stub.Predict, predict_pb2.PredictRequest())
    # Of servables/tensorflow/predict_util.cc, PreProcessPrediction.
    for wanted in (['none'], ['images', 'images']):
      with self.assertRaises(grpc.RpcError) as caught:
        self.predict('tokenizer', 'decode', codes, wanted)
      self.assertEqual(
        caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT
      )
    # Of servables/tensorflow/classifier.cc: GetClassificationSignatureDef and
    # PreProcessClassification, which looks at inputs and outputs alone.
    for signature in ('nothing', 'features', ''):
      request = spec(
        classification_pb2.ClassificationRequest(), 'probe', signature
      )
      request.input.example_list.examples.append(calls.example(b''))
      self._refused(self.stub.Classify, request)
    # Of servables/tensorflow/util.cc: InputToSerializedExampleTensor.
    request = spec(
      classification_pb2.ClassificationRequest(), 'probe', 'classify'
    )
    self._refused(self.stub.Classify, request)
    # Of servables/tensorflow/get_model_metadata_impl.cc.
    request = spec(get_model_metadata_pb2.GetModelMetadataRequest(), 'probe')
    self._refused(self.stub.GetModelMetadata, request)

  def _refused(self, method, request):
    with self.assertRaises(grpc.RpcError) as caught:
      method(request)
    self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)

  def test_paths(self):
    """model_servers/http_rest_api_util.cc: ParseModelInfo; http_server.cc."""
    decode = {'signature_name': 'decode', 'instances': [[0] * 16]}
    for method, path, wanted in (
      ('GET', '/v1/models/probe/versions/1', 200),
      ('GET', '/v1/models/probe/labels/none', 200),  # It is not looked at.
      ('GET', '/V1/Models/probe/METADATA', 200),  # Which tells the status.
      ('GET', '/v1/models/%70robe', 200),
      ('POST', '/v1/models/tokenizer/versions/1:predict', 200),
      ('GET', '/v1/models/nobody', 404),
      ('GET', '/v1/models/probe/versions/9', 404),
      ('GET', '/v1/models/probe/metadata?x', 400),
      ('GET', '/v1/models/probe?x', 404),  # A model of that name.
      ('GET', '/v1/models', 400),
      ('GET', '/v1/models/', 400),
      ('GET', '/v1/models/probe/labels/none/metadata', 400),
      ('GET', '/v1/models/probe/versions/99999999999999999999', 400),
      ('GET', '/v1/models/probe:predict', 400),
      ('GET', '/v1/', 400),
      ('PUT', '/v1/models/tokenizer:predict', 400),
      ('OPTIONS', '/v1/models/tokenizer:predict', 400),
      ('POST', '/v1/models/tokenizer', 400),
      ('POST', '/v1/models/tokenizer/metadata', 400),
      ('POST', '/v1/models/tokenizer:PREDICT', 400),
      ('POST', '/v1/models/tokenizer:decode', 400),
      ('POST', '/v1/models/nobody:predict', 404),
      ('POST', '/v1/models/tokenizer/versions/9:predict', 404),
      ('POST', '/v1/models/tokenizer/labels/none:predict', 400),
      ('GET', '/x', 404),
      ('GET', '/v2/models/probe', 404),
    ):
      with self.subTest(f'{method} {path}'):
        body = decode if method != 'GET' else None
        self.assertEqual(self.rest(method, path, body)[0], wanted)
    # http_server.cc: ProcessRequest.
    origin = {'Origin': 'http://x'}
    self.assertEqual(self.rest('OPTIONS', '/v1/models/x', **origin)[0], 200)
    # model_servers/http_rest_api_handler.cc: GetInfoMap.
    body = {'signature_name': 'nothing', 'instances': [1]}
    status, _ = self.rest('POST', '/v1/models/tokenizer:predict', body)
    self.assertEqual(status, 400)
    # JSON is read before the model is looked for.
    self.assertEqual(
      self.rest('POST', '/v1/models/nobody:predict', b'{')[0], 400
    )

  def test_bodies_that_are_taken(self):
    """util/json_tensor.cc, and util/net_http/server/internal."""
    path = '/v1/models/tokenizer:predict'
    codes = list(range(16))
    body = {'signature_name': 'decode', 'instances': [codes], 'more': 1}
    text = json.dumps(body).encode()
    wanted = self.rest('POST', path, body)
    self.assertEqual(wanted[0], 200, wanted)
    # ParseJson stops when it is done, and skips a byte order mark.
    self.assertEqual(self.rest('POST', path, b'\xef\xbb\xbf' + text), wanted)
    self.assertEqual(self.rest('POST', path, text + b' and more'), wanted)
    # evhttp_request.cc: ReadRequestBytes, ReadRequestGzipBytes.
    self.assertEqual(self.rest('POST', path, [text[:9], text[9:]]), wanted)
    gzipped = {'Content-Encoding': 'gzip'}
    squeezed = gzip.compress(text)
    self.assertEqual(self.rest('POST', path, squeezed, **gzipped), wanted)
    self.assertEqual(self.rest('POST', path, text, **gzipped)[0], 400)
    # FillTensorMapFromInputsMap looks for the inputs that it knows alone.
    inputs = {'codes': [codes], 'more': 'x'}
    body = {'signature_name': 'decode', 'inputs': inputs}
    status, found = self.rest('POST', path, body)
    self.assertEqual(
      (status, found['outputs']), (200, wanted[1]['predictions'])
    )
    # FillTensorMapFromInstancesList does not.
    rows = [{'codes': codes, 'more': 1}]
    body = {'signature_name': 'decode', 'instances': rows}
    self.assertEqual(self.rest('POST', path, body)[0], 400)
    # JsonDecodeBase64Object: absl::Base64Unescape.
    file = tiny.encoded(tiny.picture(0))
    plain = base64.encodebytes(file).decode()
    self.assertIn('\n', plain)
    answers = [
      self.rest('POST', path, {'instances': [{'b64': text}]})
      for text in (plain, plain.rstrip('=\n'), plain.replace('\n', ''))
    ]
    self.assertEqual(answers[0][0], 200, answers[0])
    self.assertEqual(answers, [answers[0]] * 3)

  def test_numbers_that_are_not_taken(self):
    """util/json_tensor.cc: AddValueToTensor, AddValueToFeature."""
    path = '/v1/models/tokenizer:predict'
    for value in (True, 1.0, '1', None, {}, 2**31):
      codes = [[*range(15), value]]
      body = {'signature_name': 'decode', 'instances': codes}
      self.assertEqual(self.rest('POST', path, body)[0], 400, value)
    half = [[[[0.5] * 3] * 16] * 16]
    body = {'signature_name': 'encode_images', 'instances': half}
    self.assertEqual(self.rest('POST', path, body)[0], 200)
    half[0][0][0] = [0.5, 1, True]
    self.assertEqual(self.rest('POST', path, body)[0], 400)
    half[0][0][0] = [0.5, 1, 0]
    self.assertEqual(self.rest('POST', path, body)[0], 200)
    image = {'image/encoded': to_json(tiny.encoded(tiny.picture(0)))}
    for more, status in (
      ([1, 2], 200),
      ([1.0, 2.5], 200),
      ([True, 2], 200),  # Of integers, true is one.
      ([], 200),
      ([1, 2.5], 400),
      ([True, 2.5], 400),
      (['a', 1], 400),
      ([None], 400),
      ([[1]], 400),
      ({'b64': 1}, 400),
      ([2**63], 400),
    ):
      examples = [{**image, 'more': more}]
      body = {'signature_name': 'classify', 'examples': examples}
      found = self.rest('POST', '/v1/models/probe:classify', body)
      self.assertEqual(found[0], status, (more, found))
    # FillClassifyRegressRequestFromJson: what all examples share.
    body = {'signature_name': 'classify', 'examples': [image, image]}
    shared = {**body, 'examples': [{}, {}], 'context': image}
    answers = [
      self.rest('POST', '/v1/models/probe:classify', x) for x in (body, shared)
    ]
    self.assertEqual(answers[0], answers[1])

  def test_tensors_that_are_not_taken(self):
    request = spec(predict_pb2.PredictRequest(), 'tokenizer', 'decode')
    tensor = request.inputs['codes']
    for number in (types_pb2.DT_RESOURCE, types_pb2.DT_VARIANT, 0, 99, 101):
      tensor.dtype = number
      self._refused(self.stub.Predict, request)
    tensor.dtype = types_pb2.DT_INT32
    self._refused(self.stub.Predict, request)  # A scalar.
    for sizes in ([-1, 16], [2**62, 2**62], [1] * 300):
      del tensor.tensor_shape.dim[:]
      for size in sizes:
        tensor.tensor_shape.dim.add(size=size)
      self._refused(self.stub.Predict, request)
    del tensor.tensor_shape.dim[:]
    for size in (1, 16):
      tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = b'123'
    self._refused(self.stub.Predict, request)
    tensor.ClearField('tensor_content')
    tensor.int_val.append(7)  # Stands for all that follow, as in TensorFlow.
    found = self.stub.Predict(request).outputs['images']
    wanted = {'codes': np.full([1, 16], 7, np.int32)}
    np.testing.assert_allclose(
      tf.make_ndarray(found),
      self.direct('tokenizer', 'decode', wanted)['images'],
      atol=1e-4,
    )
    # servables/tensorflow/predict_util.cc: PostProcessPredictionResult.
    self.assertNotEmpty(found.float_val)
    self.assertEmpty(found.tensor_content)
    self._assert_lives()

  def test_many_requests_at_once(self):
    codes = np.random.default_rng(0).integers(0, 32, [_AT_ONCE, 16], np.int32)
    expected = np.concatenate(
      [
        self.direct('tokenizer', 'decode_png', {'codes': part})['png_bytes']
        for part in np.split(codes, 8)  # A batch holds so many at most.
      ]
    )

    def ask(i):
      one = {'codes': codes[i : i + 1]}
      if i % 2:
        found = self.predict('tokenizer', 'decode_png', one).outputs
        return tf.make_ndarray(found['png_bytes'])[0]
      _, body = self.rest(
        'POST',
        '/v1/models/tokenizer:predict',
        {'signature_name': 'decode_png', 'instances': one['codes'].tolist()},
      )
      return base64.b64decode(body['predictions'][0]['b64'])

    with futures.ThreadPoolExecutor(_AT_ONCE) as pool:
      found = list(pool.map(ask, range(_AT_ONCE)))
    for i in range(_AT_ONCE):
      pixels = [
        np.int32(Image.open(io.BytesIO(x))) for x in (found[i], expected[i])
      ]
      # A last bit may differ, because the batch's size does.
      np.testing.assert_allclose(*pixels, atol=1)

  def _assert_lives(self):
    inputs = {'codes': np.zeros([1, 16], np.int32)}
    self.assertLen(self.predict('tokenizer', 'decode', inputs).outputs, 1)
