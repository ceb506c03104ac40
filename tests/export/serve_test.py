"""Tests of the loopback server with the stock clients, and of its page."""

import asyncio
from concurrent import futures
import contextlib
import http.client
import json
import logging
import os
import pathlib
import re
import shutil
import socket
import subprocess
import threading
import time
import types
from unittest import mock
import urllib.request
import zlib

from absl.testing import absltest
from google.protobuf import text_format
import google.protobuf.message
import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from export import saved_model, tokenizer, warmup
from export.try_it import servables, serve
from tests.export import calls, chromium, protocol, served, tiny
from vim_tf.jobs import restore

_DOCS = pathlib.Path(__file__).parents[2] / 'docs'
_CLIENTS = 8
_FUZZED = 300  # Requests of a kind.
_DEADLINE = 120.0  # Seconds until a new version must be served.


def _root() -> pathlib.Path:
  return pathlib.Path(tf.compat.v1.test.get_temp_dir()) / 'serve'


def setUpModule():  # noqa: N802
  # Not the subject here, and most of a first request's time.
  tf.config.optimizer.set_experimental_options({'disable_meta_optimizer': True})
  for name in ('aiohttp', 'grpc'):  # They tell of broken requests.
    logging.getLogger(name).setLevel('CRITICAL')
  rewriting = servables.SESSION.graph_options.rewrite_options
  rewriting.disable_meta_optimizer = True
  shutil.rmtree(_root(), ignore_errors=True)
  ServeTest.bases = served.export_all(_root())


def _configs(bases):
  return serve.find_models([f'{x}={base}' for x, base in bases.items()], '')


def _start(bases, seconds=600.0):
  """A server that runs in a thread of its own; `stop` ends it."""
  models = servables.Models(_configs(bases))
  loop, ready = asyncio.new_event_loop(), threading.Event()
  found = types.SimpleNamespace(models=models)

  def tell(*ports):
    found.port, found.rest_port = ports
    ready.set()

  task = loop.create_task(serve.serve(models, 0, 0, tell, 0.2, seconds))
  task.add_done_callback(lambda _: ready.set())
  thread = threading.Thread(
    target=loop.run_until_complete, args=[asyncio.wait([task])]
  )
  thread.start()
  ready.wait()

  def stop():
    loop.call_soon_threadsafe(task.cancel)
    thread.join()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()

  found.stop = stop
  return found


class ServeTest(protocol.ProtocolTests):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.server = _start(cls.bases)
    cls.port, cls.rest_port = cls.server.port, cls.server.rest_port
    cls.loaded = {
      name: tf.saved_model.load(str(base / '1'))
      for name, base in cls.bases.items()
    }

  @classmethod
  def tearDownClass(cls):
    cls.server.stop()
    super().tearDownClass()

  def direct(self, model, signature, inputs):
    outputs = self.loaded[model].signatures[signature](
      **{name: tf.constant(x) for name, x in inputs.items()}
    )
    return {name: x.numpy() for name, x in outputs.items()}

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
      request = protocol.spec(
        predict_pb2.PredictRequest(), 'tokenizer', 'decode'
      )
      request.inputs['codes'].CopyFrom(tf.make_tensor_proto(codes))
      with self.assertRaises(grpc.RpcError) as caught:
        self.stub.Predict(request, timeout=1000.0)
    self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
    limits = [x.kwargs['options'].timeout_in_ms for x in run.call_args_list]
    self.assertEqual(limits[0], 600_000)  # As the server was started.
    self.assertBetween(limits[1], 1, 1_010_000)  # gRPC rounds up by 1%.

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
    clients = []
    for i in range(400):
      clients.append(self.enter_context(socket.create_connection(address)))
      clients[-1].sendall(beginnings[i % len(beginnings)])
    codes = [[0] * 16]
    body = {'signature_name': 'decode_png', 'instances': codes}
    for _ in range(3):
      status, _ = self.rest('POST', '/v1/models/tokenizer:predict', body)
      self.assertEqual(status, 200)
    self.assertLessEqual(threading.active_count(), threads + serve.THREADS)
    self.assertTrue(all(x.fileno() >= 0 for x in clients))

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
    example = {'image/encoded': protocol.to_json(picture), 'more': [1, 2]}
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
    request = protocol.spec(predict_pb2.PredictRequest(), 'tokenizer', 'decode')
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
    self._assert_lives()

  def test_page_is_found(self):
    url = f'http://127.0.0.1:{self.rest_port}/'
    with urllib.request.urlopen(url) as page:
      self.assertIn('text/html', page.headers['Content-Type'])
      self.assertIn(b'id="drop"', page.read())
    with urllib.request.urlopen(f'{url}page.json') as facts:
      found = json.load(facts)
    self.assertCountEqual(found, self.bases)
    self.assertEqual(found['sampler']['class_names'], tiny.CLASSES)

  def test_page(self):
    if not chromium.find():
      self.skipTest(
        'There is no Chromium on this machine (Debian: apt-get install '
        'chromium), so that the page was not tried.'
      )
    url = f'http://127.0.0.1:{self.rest_port}/'
    page = chromium.Page(url, pathlib.Path(self.create_tempdir()))
    self.addCleanup(page.close)
    page.wait_for("document.body && document.body.dataset.ready === 'yes'")
    classes = page.run("""
      [...document.querySelectorAll('#class option')].map((x) => x.textContent)
    """)
    self.assertEqual(classes, [*tiny.CLASSES, 'no class'])

    # A class is chosen and drawn; what is no number is told beside its field.
    page.run("""
      var set = (id, value) => {
        $(id).value = value;
        $(id).dispatchEvent(new Event('change', {bubbles: true}));
      };
      set('class', 4);
      set('seed', '');
      set('top_p', '0');
      set('top_k', '1.5');
      set('guidance', 'x');
      $('draw').click();
    """)
    told = page.run("""
      ['class', 'seed', 'top_p', 'top_k', 'guidance', 'temperature'].map((x) =>
          [$(x).getAttribute('aria-invalid'), $(`${x}_wrong`).textContent])
    """)
    self.assertEqual(
      told,
      [['false', ''], ['true', 'Write a number.'],
       ['true', 'Write more than 0.'], ['true', 'Write a whole number.'],
       ['true', 'Write a number.'], ['false', '']],
    )  # fmt: skip
    self.assertEqual(page.run('document.activeElement.id'), 'guidance')
    page.run("""
      Object.entries({seed: 11, count: 2, guidance: 2.5, top_k: 0, top_p: 1}
      ).forEach((x) => set(...x));
      $('draw').click();
    """)
    shown = page.wait_for("""
      document.querySelectorAll('#samples img').length === 2 &&
      [...document.querySelectorAll('#samples img')].every(
          (x) => x.naturalWidth === 16 && x.width === 16) &&
      [...document.querySelectorAll('#samples img')].map((x) => x.src)
    """)
    drawn = {
      'class_ids': np.int32([4, 4]),
      'seeds': np.int64([11, 12]),
      'temperature': np.float32([1, 1]),
      'top_k': np.int32([0, 0]),
      'top_p': np.float32([1, 1]),
      'guidance_scale': np.float32([2.5, 2.5]),
    }
    expected = self.direct('sampler', 'serving_default', drawn)['png_bytes']
    self.assertEqual(shown, [self._url(file) for file in expected])

    # The address draws the same; a picture's own draws it alone.
    self.assertEqual(
      page.run('location.hash'), '#class=4&guidance=2.5&seed=11&count=2'
    )
    page.run("document.querySelectorAll('#samples .link')[1].click()")
    page.wait_for("document.querySelectorAll('#samples img').length === 1")
    self.assertEqual(
      page.run("document.querySelector('#samples img').src"), shown[1]
    )
    self.assertEqual(page.run("$('seed').value + $('count').value"), '121')
    page.run("document.querySelector('#samples .picture').click()")
    self.assertTrue(page.run("$('large').open"))
    page.run("$('large').close()")

    # What was begun is given up; nothing is told of it later.
    page.run("set('count', 64); $('draw').click()")
    page.run("document.querySelector('#settings .cancel').click()")
    self.assertIn('Cancelled', page.wait_for("""
      document.querySelector('#settings .elapsed').textContent
          .startsWith('Cancelled') &&
      document.querySelector('#settings .elapsed').textContent
    """))  # fmt: skip

    # An image is dropped.
    page.drop(tiny.encoded(tiny.picture(5)), 'image/png')
    shown = page.wait_for("""
      ['reconstruction', 'completion'].every((id) => {
        const image = document.querySelector(`#${id} img`);
        return image && image.naturalWidth === 16;
      }) && document.querySelectorAll('#classes tr').length === 5 &&
      document.querySelector('#reconstruction img').src
    """)
    files = {'image_bytes': np.array([tiny.encoded(tiny.picture(5))], object)}
    expected = self.direct('tokenizer', 'reconstruct', files)['png_bytes']
    self.assertEqual(shown, self._url(expected[0]))
    kept = {'kept_rows': np.int32([2])}  # Half of them, as the page begins.
    one = warmup.sampling_settings(1)
    expected = self.direct('sampler', 'complete', {**files, **kept, **one})
    shown = page.run("document.querySelector('#completion img').src")
    self.assertEqual(shown, self._url(expected['png_bytes'][0]))
    names = page.run("""
      [...document.querySelectorAll('#classes meter')].map(
          (x) => x.getAttribute('aria-label'))
    """)
    self.assertLen(set(names), 5)
    names = page.run("""
      [...document.querySelectorAll('#classes tr')].map(
          (x) => x.firstChild.textContent)
    """)
    found = self.direct('probe', 'serving_default', files)['top_classes']
    self.assertEqual(names, [x.decode() for x in found[0]])

    # The completion follows its own settings, and keeps what is drawn.
    page.run("set('complete_class', 2); set('complete_seed', 8)")
    one.update(class_ids=np.int32([2]), seeds=np.int64([8]))
    expected = self.direct('sampler', 'complete', {**files, **kept, **one})
    shown = page.wait_for(f"""
      document.querySelector('#completion img').src ===
          '{self._url(expected['png_bytes'][0])}'
    """)
    # All rows that are kept are its reconstruction.
    page.run("set('complete_rows', 4)")
    page.wait_for("""
      ['reconstruction', 'completion'].map(
          (id) => document.querySelector(`#${id} img`)?.src
      ).every((x, _, all) => x && x === all[0])
    """)

    # What is no image is refused in words, pasted or dropped.
    error = "document.querySelector('#completing .error').textContent"
    page.drop(b'hello', 'image/png')
    self.assertEqual(
      page.wait_for(error), 'dropped: the bytes are not a JPEG or PNG image'
    )
    self.assertEqual(page.run("$('parts').children.length"), 0)
    page.run(f"{error[:-12]}.textContent = ''")
    page.drop(tiny.encoded(tiny.picture(5), 'GIF'), 'image/gif', 'paste')
    self.assertIn('it is a GIF image', page.wait_for(error))

  def _url(self, file: bytes) -> str:
    return f'data:image/png;base64,{protocol.to_json(file)["b64"]}'


class VersionsTest(absltest.TestCase):
  """New versions, while requests run."""

  def setUp(self):
    super().setUp()
    self.base = pathlib.Path(self.create_tempdir()) / 'tokenizer'
    shutil.copytree(ServeTest.bases['tokenizer'], self.base)
    (self.base / '1' / saved_model.WARMUP_FILE).unlink()  # It takes time.

  def _wait(self, condition):
    end = time.monotonic() + _DEADLINE
    while not condition():
      self.assertLess(time.monotonic(), end)
      time.sleep(0.05)

  def test_a_new_version_is_taken_up_and_no_request_is_lost(self):
    other = tiny.tokenizer(self.base.parent / 'other', seed=9)
    made = self.base.parent / 'made'
    tokenizer.export(other, made)
    codes = np.arange(16, dtype=np.int32)[None]
    expected = [
      restore.tokenizer(run).model.decode(codes).numpy()
      for run in (_root() / 'runs' / 'tokenizer', other)
    ]
    self.assertGreater(np.abs(expected[0] - expected[1]).max(), 1e-2)
    running_server = _start({'tokenizer': self.base})
    self.addCleanup(running_server.stop)
    channel = grpc.insecure_channel(f'127.0.0.1:{running_server.port}')
    self.addCleanup(channel.close)
    stub = protocol.connect(channel)
    answers = []

    def ask():
      while not (answers and answers[-1][0] == 2) or len(answers) < 50:
        response = protocol.predict(
          stub, 'tokenizer', 'decode', {'codes': codes}
        )
        answers.append((
          response.model_spec.version.value,
          tf.make_ndarray(response.outputs['images']),
        ))  # fmt: skip

    with futures.ThreadPoolExecutor(_CLIENTS) as pool:
      clients = [pool.submit(ask) for _ in range(_CLIENTS)]
      self._wait(lambda: len(answers) > 20)
      os.rename(made / '1', self.base / '2')
      for one in clients:
        one.result(_DEADLINE)
    self.assertEqual({version for version, _ in answers}, {1, 2})
    for version, images in answers:
      np.testing.assert_allclose(images, expected[version - 1], atol=1e-4)

  def test_a_version_that_is_not_fit_is_told_and_the_old_one_kept(self):
    model = self._model('')
    # Its own requests fail.
    shutil.copytree(self.base / '1', self.base / '6')
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.signature_name = 'decode'
    request.inputs['codes'].CopyFrom(
      tf.make_tensor_proto(np.full([1, 16], 99, np.int32))
    )
    with tf.io.TFRecordWriter(
      str(self.base / '6' / saved_model.WARMUP_FILE)
    ) as writer:
      writer.write(log.SerializeToString())
    model.refresh()
    self.assertIn('codes is 99', model.versions[6].error)
    self.assertEqual(model.get().version, 1)

  def test_a_version_seen_half_copied_is_tried_again(self):
    """main.cc: max_num_load_retries is 5; util/retrier.cc: Retry."""
    model = self._model('')
    half = self.base / '2'
    half.mkdir()
    (half / 'saved_model.pb').write_text('nonsense')
    for tries in range(1, 4):
      model.refresh()
      self.assertEqual(model.versions[2].tries, tries)
      self.assertEqual(model.versions[2].state, servables.State.LOADING)
      self.assertEqual(model.get().version, 1)
    shutil.copytree(self.base / '1', half, dirs_exist_ok=True)
    model.refresh()
    self.assertEqual(model.get().version, 2)
    self.assertEqual(model.versions[1].state, servables.State.END)
    bad = self.base / '3'
    bad.mkdir()
    for _ in range(9):
      model.refresh()
    self.assertEqual(model.versions[3].tries, 6)
    self.assertEqual(model.versions[3].state, servables.State.END)
    self.assertEqual(model.get().version, 2)

  def test_policies_and_labels(self):
    """sources/storage_path/file_system_storage_path_source.cc."""
    for version in (3, 10):
      (self.base / str(version)).mkdir()
    made = []

    class Loaded(servables.Servable):
      def __init__(self, name, folder):
        self.name, self.folder, self.version = name, folder, int(folder.name)
        made.append(self.version)

      def warm_up(self):
        return 0

    self.enter_context(mock.patch.object(servables, 'Servable', Loaded))

    def served(policy):
      made.clear()
      model = self._model(f'model_version_policy {{ {policy} }}')
      return sorted(n for n, x in model.versions.items() if x.servable)

    self.assertEqual(served(''), [10])
    self.assertEqual(served('latest {}'), [10])
    self.assertEqual(served('latest { num_versions: 2 }'), [3, 10])
    self.assertEqual(served('all {}'), [1, 3, 10])
    self.assertEqual(served('specific { versions: [1, 3, 4] }'), [1, 3])
    self.assertEqual(made, [1, 3])
    model = self._model(
      'model_version_policy { all {} } version_labels { key: "old" value: 1 }'
    )
    models = servables.Models([])
    models.by_name['m'] = model
    for fields, wanted in (
      ({}, 10),
      ({'version_label': 'old'}, 1),
      ({'version': {'value': 3}}, 3),
    ):
      spec = model_pb2.ModelSpec(name='m', **fields)
      found = models.find(predict_pb2.PredictRequest(model_spec=spec))
      self.assertEqual(found.version, wanted)
    # What is there no more is served no more; another folder's absence is not
    # taken for that.
    for version in (1, 3):
      shutil.rmtree(self.base / str(version))
    model.refresh()
    self.assertIsNone(model.get(3))
    self.assertEqual(model.versions[3].state, servables.State.END)
    os.rename(self.base, self.base.with_name('away'))
    model.refresh()
    self.assertEqual(model.get().version, 10)
    os.rename(self.base.with_name('away'), self.base)
    shutil.rmtree(self.base / '10')
    model.refresh()
    self.assertIsNone(model.get())

  def _model(self, settings: str) -> servables.Model:
    text = f'name: "m" base_path: "{self.base}" {settings}'
    config = text_format.Parse(text, model_server_config_pb2.ModelConfig())
    model = servables.Model(config, retry_seconds=0.0)
    model.refresh()
    return model


class FlagsTest(absltest.TestCase):
  def test_models_by_flag_and_by_file(self):
    bases = {name: str(base) for name, base in ServeTest.bases.items()}
    flags = [f'{name}={base}' for name, base in bases.items()]
    file = pathlib.Path(self.create_tempdir()) / 'models.config'
    file.write_text(saved_model.model_config(bases))
    for found in (serve.find_models(flags, ''), serve.find_models([], file)):
      self.assertEqual({x.name: x.base_path for x in found}, bases)

  def test_bad_flags_are_refused(self):
    folder = self.create_tempdir()
    label = """
      model_config_list { config {
        name: "a" base_path: "%s" version_labels { key: "new" value: 7 } } }
    """
    base = ServeTest.bases['tokenizer']
    labelled = folder.create_file('labelled', label % base).full_path
    folder = folder.full_path
    for models, config, text in (
      ([], '', 'No model'),
      (['tokenizer'], '', 'NAME=BASE'),
      ([f'a={folder}'], '', 'no version'),
      ([], f'{folder}/none', 'Cannot read'),
      ([], base / saved_model.BATCHING_CONFIG, 'Cannot read'),
      ([], labelled, "Label 'new' of a is of version 7, but .* holds .1"),
    ):
      with self.assertRaisesRegex(serve.ServerError, text):
        serve.find_models(models, config)

  def test_a_port_that_is_taken_is_told(self):
    first = _start({'tokenizer': ServeTest.bases['tokenizer']})
    self.addCleanup(first.stop)
    taken = serve.serve(servables.Models([]), 0, first.rest_port, print)
    with self.assertRaisesRegex(serve.ServerError, 'Cannot listen'):
      asyncio.run(taken)


if __name__ == '__main__':
  absltest.main()
