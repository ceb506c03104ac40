"""Tests of the loopback server with the stock clients, and of its page."""

import json
import os
import pathlib
import re
import shutil
import subprocess
from unittest import mock

from absl.testing import absltest
import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from export import saved_model, warmup
from tests.export import (
  answered,
  calls,
  clients,
  hostile,
  loopback,
  page,
  refused,
  served,
  tiny,
)

_DOCS = pathlib.Path(__file__).parents[2] / 'docs'


class ServeTest(answered.Tests, refused.Tests, hostile.Tests, page.Tests):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.load(served.exports()[1])
    cls.server = loopback.start(cls.bases)
    cls.addClassCleanup(cls.server.stop)
    cls.port, cls.rest_port = cls.server.port, cls.server.rest_port

  def test_warmup_replays_every_record(self):
    for name, base in self.bases.items():
      file = base / '1' / saved_model.WARMUP_FILE
      count = sum(1 for _ in tf.data.TFRecordDataset(str(file)))
      servable = self.server.models.by_name[name].get()
      self.assertEqual(servable.warm_up(), count)
      names = [x for x in servable.signature_defs if not x.startswith('__')]
      self.assertGreaterEqual(count, len(names))

  def test_messages_name_the_input(self):
    good = calls.sampling_inputs(2)
    missing = {name: x for name, x in good.items() if name != 'seeds'}
    for inputs, text in (
      (
        {**good, 'seeds': np.float32([1, 2])},
        "Input 'seeds' of 'serving_default': Type mismatch between "
        r'parsed tensor \(float\) and dtype \(int64',
      ),
      ({**good, 'top_k': np.int64([1, 2])}, "'top_k'.*: Type mismatch"),
      ({**good, 'seeds': np.int64(3)}, r"'seeds'.* the shape \[\], but .*None"),
      (missing, 'takes class_ids.*, temperature, top_k, top_p, but given'),
      ({**good, 'more': np.zeros(2)}, 'given were class_ids, .*, more, '),
    ):
      with self.assertRaisesRegex(grpc.RpcError, text):
        self.predict('sampler', 'serving_default', inputs)

  def test_clients_of_the_docs(self):
    text = (_DOCS / 'serving.md').read_text()
    text = text.replace(':8500', f':{self.port}')
    text = text.replace(':8501', f':{self.rest_port}')
    folder = pathlib.Path(self.create_tempdir())
    file = tiny.encoded(tiny.picture(6), 'JPEG')
    (folder / 'image.jpg').write_bytes(file)
    here = os.getcwd()
    self.addCleanup(os.chdir, here)
    os.chdir(folder)
    blocks = re.findall(
      r'^```python\n(.*?)^```', text, re.DOTALL | re.MULTILINE
    )
    self.assertLen(blocks, 2)
    for block in blocks:
      exec(compile(block, 'serving.md', 'exec'), {})
    drawn = {
      **warmup.sampling_settings(4),
      'class_ids': np.full(4, 3, np.int32),
      'guidance_scale': np.full(4, 2.0, np.float32),
    }
    expected = self.direct('sampler', 'serving_default', drawn)['png_bytes']
    found = [(folder / f'sample-{i}.png').read_bytes() for i in range(4)]
    self.assertEqual(found, expected.tolist())
    files = {'image_bytes': np.array([file], object)}
    expected = self.direct('tokenizer', 'reconstruct', files)['png_bytes']
    self.assertEqual((folder / 'reconstruction.png').read_bytes(), expected[0])

  def test_command_lines_of_the_docs(self):
    if not shutil.which('curl'):
      self.skipTest('There is no curl on this machine.')
    text = (_DOCS / 'serving.md').read_text()
    lines = re.findall(
      r'^    curl -s localhost(?:.*\\\n)*.*', text, re.MULTILINE
    )
    folder = self.create_tempdir()
    folder.create_file(
      'image.jpg', tiny.encoded(tiny.picture(6), 'JPEG'), mode='wb'
    )
    answers = [
      json.loads(
        subprocess.run(
          ['bash', '-c', line.replace('8501', str(self.rest_port))],
          cwd=folder.full_path,
          check=True,
          stdout=subprocess.PIPE,
        ).stdout
      )
      for line in lines
    ]
    self.assertEqual(
      [list(x) for x in answers],
      [['predictions'], ['results'], ['model_version_status'],
       ['model_spec', 'metadata']],
    )  # fmt: skip

  def test_time_is_limited(self):
    codes = np.zeros([1, 16], np.int32)
    late = tf.errors.DeadlineExceededError(None, None, 'late')
    run = mock.Mock(side_effect=late)
    servable = self.server.models.by_name['tokenizer'].get()
    with mock.patch.object(servable, '_session', mock.Mock(run=run)):
      body = {'signature_name': 'decode', 'inputs': codes.tolist()}
      answer = self.rest('POST', '/v1/models/tokenizer:predict', body)
      self.assertEqual(answer, (504, {'error': 'late'}))
      request = clients.spec(
        predict_pb2.PredictRequest(), 'tokenizer', 'decode'
      )
      request.inputs['codes'].CopyFrom(tf.make_tensor_proto(codes))
      with self.assertRaises(grpc.RpcError) as caught:
        self.stub.Predict(request, timeout=1000.0)
    self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
    limits = [x.kwargs['options'].timeout_in_ms for x in run.call_args_list]
    self.assertEqual(limits[0], 600_000)  # As the server was started.
    self.assertBetween(limits[1], 1, 1_010_000)  # gRPC rounds up by 1%.


if __name__ == '__main__':
  absltest.main()
