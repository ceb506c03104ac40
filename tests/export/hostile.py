"""What no client may do to the loopback server, nor make it say."""

import contextlib
import http.client
import json
import socket
import threading
import zlib

import google.protobuf.message
import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from export.try_it import serve
from tests.export import calls, clients, tiny

_FUZZED = 150  # Requests of a kind.
_DEADLINE = 120.0  # Seconds to wait for an answer at most.


class Tests(clients.TestCase):
  """The base of a test case, whose class starts a server."""

  def test_another_host_is_refused(self):
    for host, wanted in (
      ('localhost', 200),
      (f'LOCALHOST:{self.rest_port}', 200),
      ('127.0.0.1', 200),
      ('[::1]:1', 200),
      ('example.com', 403),
      ('localhost.example.com', 403),
      ('127.0.0.1.example.com:80', 403),
      ('', 403),
    ):
      for path in ('/', '/page.json', '/v1/models/probe'):
        status, _ = self.rest('GET', path, Host=host)
        self.assertEqual(status, wanted, (host, path))

  def test_slow_clients_hold_no_thread(self):
    threads = threading.active_count()
    head = b'POST /v1/models/probe:predict HTTP/1.1\r\nHost: localhost\r\n'
    beginnings = (b'', b'POST /v1', head, head + b'Content-Length: 9\r\n\r\n{')
    address = ('127.0.0.1', self.rest_port)
    opened = []
    for i in range(400):
      opened.append(self.enter_context(socket.create_connection(address)))
      opened[-1].sendall(beginnings[i % len(beginnings)])
    codes = [[0] * 16]
    body = {'signature_name': 'decode_png', 'instances': codes}
    for _ in range(3):
      status, _ = self.rest('POST', '/v1/models/tokenizer:predict', body)
      self.assertEqual(status, 200)
    self.assertLessEqual(threading.active_count(), threads + serve.THREADS)
    self.assertTrue(all(x.fileno() >= 0 for x in opened))

  def _raw(self, data: bytes, seconds: float = _DEADLINE) -> bytes:
    """The first line of what comes back; b'' if nothing does."""
    address = ('127.0.0.1', self.rest_port)
    with socket.create_connection(address, timeout=seconds) as client:
      client.sendall(data)
      with contextlib.suppress(ConnectionError, TimeoutError):
        return client.makefile('rb').readline().strip()
      return b''

  def test_requests_that_are_no_http(self):
    head = b'POST /v1/models/probe:predict HTTP/1.1\r\nHost: localhost\r\n'
    for more, wanted in (
      (b'Content-Length: x\r\n\r\n{}', b'400'),
      (b'Content-Length: -1\r\n\r\n{}', b'400'),
      (b'Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}', b'400'),
      (b'Transfer-Encoding: chunked\r\n\r\nxyz\r\n', b'400'),
      (b'Name\r\n\r\n', b'400'),
      (b'Name: ' + b'x' * 9000 + b'\r\n\r\n', b'400'),
      (b'Name: x\r\n' * 500 + b'\r\n', b'400'),
    ):
      with self.subTest(more[:40]):
        self.assertIn(wanted, self._raw(head + more).split())
    self.assertIn(b'400', self._raw(b'GET /' + b'x' * 9000 + b' HTTP/1.1\r\n'))
    # 300 MB of zeros.
    zip_bomb = zlib.compressobj(wbits=31)
    data = b''.join(zip_bomb.compress(bytes(10**7)) for _ in range(30))
    data += zip_bomb.flush()
    path, gzipped = '/v1/models/probe:predict', {'Content-Encoding': 'gzip'}
    self.assertEqual(self.rest('POST', path, data, **gzipped)[0], 413)

  def test_fuzz(self):
    """Of what is changed at random, nothing is more than refused."""
    rng = np.random.default_rng(22)

    def change(data: bytes) -> bytes:
      found = bytearray(data)
      for _ in range(rng.integers(1, 5)):
        at = rng.integers(len(found))
        kind = rng.integers(4)
        if kind == 0:
          found[at] = rng.integers(256)
        elif kind == 1:
          del found[at : at + rng.integers(1, 9)]
        elif kind == 2:
          found[at:at] = found[: rng.integers(1, 9)]
        else:
          found[at:at] = rng.choice([b'[', b'}', b'"', b'-', b'e9', b'\\ud8'])
        found = found or bytearray(b'0')
      return bytes(found)

    def rows(signature, instance):
      body = {'signature_name': signature, 'instances': [instance] * 2}
      return json.dumps(body).encode()

    picture = tiny.encoded(tiny.picture(0))
    example = {'image/encoded': clients.to_json(picture), 'more': [1, 2]}
    classified = {'signature_name': 'classify', 'examples': [example]}
    connection = http.client.HTTPConnection('127.0.0.1', self.rest_port)
    for path, body in (
      ('tokenizer:predict', rows('decode', [1] * 16)),
      ('sampler:predict', rows('serving_default', {
        k: v[0].item() for k, v in calls.sampling_inputs(1).items()})),
      ('probe:classify', json.dumps(classified).encode()),
    ):  # fmt: skip
      for _ in range(_FUZZED):
        changed = change(body)
        connection.request('POST', f'/v1/models/{path}', changed)
        response = connection.getresponse()
        self.assertIn(response.status, (200, 400), (changed, response.read()))
        response.read()
    connection.close()
    head = b'POST /v1/models/tokenizer:predict HTTP/1.1\r\nHost: localhost\r\n'
    body = rows('decode', [1] * 16)
    whole = head + b'Content-Length: %d\r\n\r\n' % len(body) + body
    for _ in range(_FUZZED):
      changed = change(whole[:120]) + whole[120:]
      # Some of them wait for more.
      answer = (self._raw(changed, 0.2) + b' none none').split()[1]
      self.assertIn(
        answer, (b'200', b'400', b'403', b'404', b'408', b'none'), changed
      )
    request = clients.spec(predict_pb2.PredictRequest(), 'tokenizer', 'decode')
    codes = np.zeros([2, 16], np.int32)
    request.inputs['codes'].CopyFrom(tf.make_tensor_proto(codes))
    message = request.SerializeToString()
    method = '/tensorflow.serving.PredictionService/Predict'
    # The client sends the bytes as they are.
    call = self.channel.unary_unary(method, bytes, bytes)
    allowed = ('INVALID_ARGUMENT', 'NOT_FOUND', 'FAILED_PRECONDITION')
    for _ in range(_FUZZED):
      changed = change(message)
      try:
        predict_pb2.PredictRequest.FromString(changed)
      except google.protobuf.message.DecodeError:
        allowed_here = ('INTERNAL',)  # gRPC's own, of what is no message.
      else:
        allowed_here = allowed
      try:
        call(changed)
      except grpc.RpcError as error:
        self.assertIn(error.code().name, allowed_here, (changed, error))
    for _ in range(_FUZZED):
      files = {'image_bytes': np.array([change(picture)], object)}
      try:
        self.predict('tokenizer', 'serving_default', files)
      except grpc.RpcError as error:
        self.assertEqual(error.code().name, 'INVALID_ARGUMENT', error)
    self.assert_lives()
