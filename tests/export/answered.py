"""What a server of the exports must answer."""

import base64
from concurrent import futures
import gzip
import io
import json

import numpy as np
from PIL import Image
import tensorflow as tf
from tensorflow_serving.apis import (
  classification_pb2,
  get_model_metadata_pb2,
  get_model_status_pb2,
  model_service_pb2_grpc,
  prediction_log_pb2,
)

from tests.export import calls, clients, tiny

_BATCHES = (1, 5)
_AT_ONCE = 200


class Tests(clients.TestCase):
  """The base of a test case, whose class starts a server."""

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
      columns = {name: clients.to_json(x) for name, x in inputs.items()}
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
      columns = {name: clients.to_json(x) for name, x in inputs.items()}
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
    request = clients.spec(
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
        'examples': [
          {'image/encoded': clients.to_json(file)} for file in contents
        ],
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
    response = clients.metadata(self.stub, 'sampler')
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
    request = clients.spec(
      get_model_status_pb2.GetModelStatusRequest(), 'probe'
    )
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
