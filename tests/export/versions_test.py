"""Tests of which models and versions the loopback server takes up."""

import asyncio
from concurrent import futures
import os
import pathlib
import shutil
import time
from unittest import mock

from absl.testing import absltest
from google.protobuf import text_format
import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from export import saved_model
from export.try_it import servables, serve
from tests.export import clients, loopback, served

_CLIENTS = 2  # More would slow down what they wait for.
_DEADLINE = 120.0  # Seconds until a new version must be served.


def _save(folder: pathlib.Path, factor: int):
  """A model that loads at once, whose answers tell which one it is."""
  codes = tf.TensorSpec([None, 16], tf.int32, name='codes')
  decode = tf.function(lambda codes: {'codes': factor * codes}, [codes])
  tf.saved_model.save(tf.Module(), folder, {'decode': decode})


class VersionsTest(absltest.TestCase):
  """New versions, while requests run."""

  def setUp(self):
    super().setUp()
    self.base = pathlib.Path(self.create_tempdir()) / 'tokenizer'
    shutil.copytree(served.exports()[1]['tokenizer'], self.base)
    (self.base / '1' / saved_model.WARMUP_FILE).unlink()  # It takes time.

  def _wait(self, condition):
    end = time.monotonic() + _DEADLINE
    while not condition():
      self.assertLess(time.monotonic(), end)
      time.sleep(0.05)

  def test_a_new_version_is_taken_up_and_no_request_is_lost(self):
    base, made = self.base.parent / 'new', self.base.parent / 'made'
    for factor, folder in ((1, base / '1'), (2, made)):
      _save(folder, factor)
    codes = np.arange(16, dtype=np.int32)[None]
    running_server = loopback.start({'new': base})
    self.addCleanup(running_server.stop)
    channel = grpc.insecure_channel(f'127.0.0.1:{running_server.port}')
    self.addCleanup(channel.close)
    stub = clients.connect(channel)
    answers = []

    def ask():
      while not (answers and answers[-1][0] == 2) or len(answers) < 50:
        response = clients.predict(stub, 'new', 'decode', {'codes': codes})
        answers.append((
          response.model_spec.version.value,
          tf.make_ndarray(response.outputs['codes']),
        ))  # fmt: skip

    with futures.ThreadPoolExecutor(_CLIENTS) as pool:
      asking = [pool.submit(ask) for _ in range(_CLIENTS)]
      self._wait(lambda: len(answers) > 20)
      os.rename(made, base / '2')
      for one in asking:
        one.result(_DEADLINE)
    self.assertEqual({version for version, _ in answers}, {1, 2})
    for version, found in answers:
      np.testing.assert_array_equal(found, version * codes)

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
    bases = {name: str(base) for name, base in served.exports()[1].items()}
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
    base = served.exports()[1]['tokenizer']
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
    first = loopback.start({'tokenizer': served.exports()[1]['tokenizer']})
    self.addCleanup(first.stop)
    taken = serve.serve(servables.Models([]), 0, first.rest_port, print)
    with self.assertRaisesRegex(serve.ServerError, 'Cannot listen'):
      asyncio.run(taken)


if __name__ == '__main__':
  absltest.main()
