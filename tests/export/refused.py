"""What a server of the exports must refuse, and how."""

import grpc
import numpy as np
from PIL import Image
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
  classification_pb2,
  get_model_metadata_pb2,
  predict_pb2,
)

from tests.export import calls, clients, tiny

_EMPTY = 'holds 0 examples, but a batch holds 1 to 32'


def _bad_requests() -> dict[str, tuple[str, str, dict, str]]:
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
  # Of the other bounds the exports themselves are asked: c_api_test.
  for name, value, text in (
    ('class_ids', 10, 'is 10, but must be in [0, 9]'),
    ('seeds', 2**32, 'is 4294967296'),
    ('temperature', np.nan, 'is nan'),
    ('top_p', 0.0, 'is 0, but must be in (0.0, 1.0]'),
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


class Tests(clients.TestCase):
  """The base of a test case, whose class starts a server."""

  def test_bad_inputs_are_refused_with_their_example(self):
    for name, (model, signature, inputs, text) in _bad_requests().items():
      with self.subTest(name):
        with self.assertRaises(grpc.RpcError) as caught:
          self.predict(model, signature, inputs)
        self.assertEqual(
          caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT
        )
        self.assertIn(text, caught.exception.details())
        columns = {k: clients.to_json(v) for k, v in inputs.items()}
        status, body = self.rest(
          'POST',
          f'/v1/models/{model}:predict',
          {'signature_name': signature, 'inputs': columns},
        )
        self.assertEqual(status, 400, body)
        # JSON has no empty array of a shape, so that another check finds it.
        if text != _EMPTY or all(x.ndim == 1 for x in inputs.values()):
          self.assertIn(text, body['error'])
    self.assert_lives()

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
    self.assert_lives()

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
    request = clients.spec(predict_pb2.PredictRequest(), 'tokenizer', 'decode')
    request.model_spec.version_label = 'none'
    self.refused(self.stub.Predict, request)
    # Of servables/tensorflow/predict_impl.cc, Predict: no model_spec.
    self.refused(self.stub.Predict, predict_pb2.PredictRequest())
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
      request = clients.spec(
        classification_pb2.ClassificationRequest(), 'probe', signature
      )
      request.input.example_list.examples.append(calls.example(b''))
      self.refused(self.stub.Classify, request)
    # Of servables/tensorflow/util.cc: InputToSerializedExampleTensor.
    request = clients.spec(
      classification_pb2.ClassificationRequest(), 'probe', 'classify'
    )
    self.refused(self.stub.Classify, request)
    # Of servables/tensorflow/get_model_metadata_impl.cc.
    request = clients.spec(
      get_model_metadata_pb2.GetModelMetadataRequest(), 'probe'
    )
    self.refused(self.stub.GetModelMetadata, request)

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
    image = {'image/encoded': clients.to_json(tiny.encoded(tiny.picture(0)))}
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
    request = clients.spec(predict_pb2.PredictRequest(), 'tokenizer', 'decode')
    tensor = request.inputs['codes']
    for number in (types_pb2.DT_RESOURCE, types_pb2.DT_VARIANT, 0, 99, 101):
      tensor.dtype = number
      self.refused(self.stub.Predict, request)
    tensor.dtype = types_pb2.DT_INT32
    self.refused(self.stub.Predict, request)  # A scalar.
    for sizes in ([-1, 16], [2**62, 2**62], [1] * 300):
      del tensor.tensor_shape.dim[:]
      for size in sizes:
        tensor.tensor_shape.dim.add(size=size)
      self.refused(self.stub.Predict, request)
    del tensor.tensor_shape.dim[:]
    for size in (1, 16):
      tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = b'123'
    self.refused(self.stub.Predict, request)
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
    self.assert_lives()
