"""Tests of the loopback server with the stock clients, and of its page."""

from concurrent import futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import time
import urllib.request

from absl.testing import absltest
import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from export import saved_model, tokenizer, warmup
from export.try_it import serve
from tests.export import calls, chromium, protocol, served, tiny
from vim_tf.jobs import restore

_DOCS = pathlib.Path(__file__).parents[2] / 'docs'
_CLIENTS = 8
_DEADLINE = 120.0  # Seconds until a new version must be served.


def _root() -> pathlib.Path:
  return pathlib.Path(tf.compat.v1.test.get_temp_dir()) / 'serve'


def setUpModule():  # noqa: N802
  # Not the subject here, and most of a first request's time.
  tf.config.optimizer.set_experimental_options({'disable_meta_optimizer': True})
  shutil.rmtree(_root(), ignore_errors=True)
  ServeTest.bases = served.export_all(_root())


def _start(bases) -> serve.Server:
  found = serve.Server(bases, port=0, rest_port=0, poll_seconds=0.2)
  found.start()
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
      servable = self.server.models[name].get()
      self.assertEqual(servable.warm_up(), count)
      self.assertGreaterEqual(count, len(servable.signature_defs))

  def test_messages_name_the_input(self):
    good = calls.sampling_inputs(2)
    missing = {name: x for name, x in good.items() if name != 'seeds'}
    for inputs, text in (
      (
        {**good, 'seeds': np.float32([1, 2])},
        "Input 'seeds' of signature 'serving_default' is float32, but must be "
        'int64',
      ),
      (
        {**good, 'top_k': np.int64([1, 2])},
        "'top_k'.* is int64, but must be i",
      ),
      ({**good, 'seeds': np.int64(3)}, r"'seeds'.* the shape \[\], but .*None"),
      (missing, "needs the input 'seeds'; it takes class_ids, guidance_sc"),
      ({**good, 'more': np.zeros(2)}, "has no input 'more'; it takes class_"),
    ):
      with self.assertRaisesRegex(grpc.RpcError, text):
        self.predict('sampler', 'serving_default', inputs)

  def test_a_tensor_too_large_for_its_content_is_refused(self):
    request = protocol.spec(predict_pb2.PredictRequest(), 'tokenizer', 'decode')
    tensor = request.inputs['codes']
    tensor.dtype = types_pb2.DT_INT32
    tensor.int_val.append(1)  # Which would be repeated.
    for size in (2**40, 2**20):
      tensor.tensor_shape.dim.add(size=size)
    with self.assertRaises(grpc.RpcError) as caught:
      self.stub.Predict(request)
    self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)

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
      [['predictions'], ['result'], ['model_version_status'],
       ['model_spec', 'metadata']],
    )  # fmt: skip

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

    # A class is chosen and drawn.
    page.run("""
      document.getElementById('class').value = '4';
      document.getElementById('seed').value = '11';
      document.getElementById('count').value = '2';
      document.getElementById('guidance').value = '2.5';
      document.getElementById('draw').click();
    """)
    shown = page.wait_for("""
      document.querySelectorAll('#samples img').length === 2 &&
      [...document.querySelectorAll('#samples img')].every(
          (x) => x.naturalWidth === 16) &&
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

    # A setting that the graph refuses is told.
    page.run("""
      document.getElementById('settings').noValidate = true;
      document.getElementById('top_p').value = '0';
      document.getElementById('draw').click();
    """)
    error = page.wait_for(
      "document.getElementById('sampling_error').textContent"
    )
    self.assertIn('top_p is 0', error)
    page.run("document.getElementById('top_p').value = '1'")

    # An image is dropped.
    page.drop('drop', tiny.encoded(tiny.picture(5)), 'image/png')
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
    one = {name: x[:1] for name, x in drawn.items()}
    expected = self.direct('sampler', 'complete', {**files, **kept, **one})
    shown = page.run("document.querySelector('#completion img').src")
    self.assertEqual(shown, self._url(expected['png_bytes'][0]))
    names = page.run("""
      [...document.querySelectorAll('#classes tr')].map(
          (x) => x.firstChild.textContent)
    """)
    found = self.direct('probe', 'serving_default', files)['top_classes']
    self.assertEqual(names, [x.decode() for x in found[0]])

    # More rows of it are kept: all of them are its reconstruction.
    page.run("""
      document.getElementById('rows').value = '4';
      document.getElementById('rows').dispatchEvent(new Event('change'));
    """)
    page.wait_for("""
      ['reconstruction', 'completion'].map(
          (id) => document.querySelector(`#${id} img`)?.src
      ).every((x, _, all) => x && x === all[0])
    """)

    # What is no image is refused in words.
    page.drop('drop', b'hello', 'image/png')
    error = page.wait_for("document.getElementById('image_error').textContent")
    self.assertIn('not a JPEG or PNG image', error)

  def _url(self, file: bytes) -> str:
    return f'data:image/png;base64,{protocol.to_json(file)["b64"]}'


class VersionsTest(absltest.TestCase):
  """New versions, while requests run."""

  def setUp(self):
    super().setUp()
    self.base = pathlib.Path(self.create_tempdir()) / 'tokenizer'
    shutil.copytree(ServeTest.bases['tokenizer'], self.base)

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

  def test_a_damaged_version_is_told_and_the_old_one_kept(self):
    running_server = _start({'tokenizer': self.base})
    self.addCleanup(running_server.stop)
    model = running_server.models['tokenizer']
    (self.base / '5').mkdir()
    (self.base / '5' / 'saved_model.pb').write_text('nonsense')
    self._wait(lambda: 5 in model.status() and model.status()[5].error)
    self.assertEqual(model.get().version, 1)
    # A version whose own requests fail is not fit to be served either.
    shutil.copytree(self.base / '1', self.base / '.writing')
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.signature_name = 'decode'
    request.inputs['codes'].CopyFrom(
      tf.make_tensor_proto(np.full([1, 16], 99, np.int32))
    )
    warmup = str(self.base / '.writing' / saved_model.WARMUP_FILE)
    with tf.io.TFRecordWriter(warmup) as writer:
      writer.write(log.SerializeToString())
    os.rename(self.base / '.writing', self.base / '6')
    self._wait(lambda: 6 in model.status() and model.status()[6].error)
    self.assertIn('codes is 99', model.status()[6].error)
    self.assertEqual(model.get().version, 1)


class FlagsTest(absltest.TestCase):
  def test_models_by_flag_and_by_file(self):
    bases = {name: str(base) for name, base in ServeTest.bases.items()}
    flags = [f'{name}={base}' for name, base in bases.items()]
    self.assertEqual(serve.find_bases(flags, ''), bases)
    file = pathlib.Path(self.create_tempdir()) / 'models.config'
    file.write_text(saved_model.model_config(bases))
    self.assertEqual(serve.find_bases([], str(file)), bases)

  def test_bad_flags_are_refused(self):
    folder = self.create_tempdir().full_path
    for models, config, text in (
      ([], '', 'No model'),
      (['tokenizer'], '', 'NAME=BASE'),
      ([f'a={folder}'], '', 'no version'),
      ([], f'{folder}/none', 'Cannot read'),
    ):
      with self.assertRaisesRegex(serve.ServerError, text):
        serve.find_bases(models, config)

  def test_a_port_that_is_taken_is_told(self):
    first = serve.Server({}, port=0, rest_port=0)
    self.addCleanup(first.stop)
    first.start()
    with self.assertRaisesRegex(serve.ServerError, 'Cannot listen'):
      serve.Server({}, port=0, rest_port=first.rest_port)


if __name__ == '__main__':
  absltest.main()
