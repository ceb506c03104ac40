"""Tests of how versions are written, with a module of one addition."""

import dataclasses
import os
import pathlib
from unittest import mock

from google.protobuf import text_format
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.config import model_server_config_pb2

from export import saved_model, signatures
from export import settings as settings_lib
from vim_tf.config import ConfigError


class _Sum(signatures.SignatureModule):
  """Adds a weight."""

  def __init__(self, amount: float = 1.0, settings=settings_lib.DEFAULTS):
    super().__init__('sum', settings)
    self.parts.amount = tf.Variable(amount)
    self.parts.unused = tf.Variable(tf.zeros([1000]))
    for name in ('serving_default', 'again'):
      self.add(name, self.add_amount, signatures.example(tf.float32, 'x'))

  def add_amount(self, x):
    return {'sum': x + self.parts.amount}


def _export(amount: float = 1.0) -> saved_model.Export:
  requests = [('serving_default', {'x': [3.0]})]
  return saved_model.Export(_Sum(amount), ['one', 'two'], {'a': 1}, requests)


def _write(*args) -> pathlib.Path:
  return pathlib.Path(saved_model.write(*args))


def _number(version: int) -> settings_lib.Settings:
  return settings_lib.Settings(version=version)


class SavedModelTest(tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.base = pathlib.Path(self.create_tempdir()) / 'deep' / 'base'

  def _entries(self):
    """What lies in the folder besides the files of the server."""
    return sorted(x for x in os.listdir(self.base) if '.config' not in x)

  def _sum(self, version):
    loaded = tf.saved_model.load(str(self.base / str(version)))
    return loaded.signatures['again'](x=tf.constant([3.0]))['sum'].numpy()

  def test_versions_count_up(self):
    for number in (1, 2):
      folder = _write(_export(float(number)), self.base)
      self.assertEqual(folder, self.base / str(number))
    self.assertEqual(_write(_export(), self.base, _number(12)).name, '12')
    self.assertEqual(_write(_export(), self.base, _number(5)).name, '5')
    self.assertEqual(saved_model.versions(self.base), [1, 2, 5, 12])
    self.assertEqual(self._entries(), ['1', '12', '2', '5'])
    self.assertAllClose([self._sum(i)[0] for i in (1, 2)], [4.0, 5.0])

  def test_a_version_is_never_written_over(self):
    _write(_export(1.0), self.base, _number(3))
    with self.assertRaisesRegex(
      saved_model.ExportError, '3 exists already.*none for 4'
    ):
      _write(_export(2.0), self.base, _number(3))
    self.assertAllClose(self._sum(3), [4.0])
    self.assertEqual(self._entries(), ['3'])

  def test_of_two_exports_at_once_the_first_stays(self):
    other = _write(_export(7.0), self.base.parent / 'other')
    real_rename = os.rename

    def be_late(source, target):
      real_rename(other, target)
      real_rename(source, target)

    with mock.patch.object(os, 'rename', be_late):
      with self.assertRaisesRegex(saved_model.ExportError, 'Cannot write'):
        _write(_export(2.0), self.base)
    self.assertAllClose(self._sum(1), [10.0])
    self.assertEqual(os.listdir(self.base), ['1'])

  def test_what_cannot_be_written_leaves_nothing(self):
    self.base.parent.mkdir()
    self.base.write_text('a file')
    with self.assertRaisesRegex(saved_model.ExportError, 'Cannot write'):
      _write(_export(), self.base)
    self.assertEqual(os.listdir(self.base.parent), ['base'])

  def test_settings_out_of_range_are_refused(self):
    for name, value in (
      ('version', -1),
      ('precision', 'float64'),
      ('max_side', 0),
      ('max_pixels', 0),
      ('max_scans', 0),
      ('max_batch_size', 0),
    ):
      with self.assertRaisesRegex(ConfigError, f'{name} is .*{value}'):
        settings_lib.Settings(**{name: value})

  def test_what_a_server_cannot_run_is_not_written(self):
    class Python(signatures.SignatureModule):
      def __init__(self):
        super().__init__('python')
        self.add(
          'serving_default', self.call, signatures.example(tf.int32, 'x')
        )

      def call(self, x):
        return {'x': tf.numpy_function(lambda x: x, [x], tf.int32)}

    export = dataclasses.replace(_export(), module=Python())
    with self.assertRaisesRegex(saved_model.ExportError, 'ops PyFunc'):
      _write(export, self.base)
    self.assertEmpty(os.listdir(self.base))

  def test_on_another_file_system(self):
    """As gs:// is; ram:// is the one that is everywhere."""
    base = f'ram://{self.base}'
    copied = []
    real_copy = tf.io.gfile.copy

    def copy(source, target):
      copied.append(target)
      real_copy(source, target)

    with mock.patch.object(tf.io.gfile, 'copy', copy):
      for number in (1, 2):
        folder = saved_model.write(_export(float(number)), base)
        self.assertEqual(folder, f'{base}/{number}')
        self.assertEqual(copied[-1], f'{folder}/{saved_model.GRAPH_FILE}')
    self.assertEqual(saved_model.versions(base), [1, 2])
    with self.assertRaisesRegex(saved_model.ExportError, '2 exists already'):
      saved_model.write(_export(), base, _number(2))
    here = _write(_export(2.0), self.base, _number(2))
    for file in here.rglob('*'):
      there = f'{base}/2/{file.relative_to(here)}'
      self.assertEqual(tf.io.gfile.isdir(there), file.is_dir(), there)
    loaded = tf.saved_model.load(f'{base}/2')
    found = loaded.signatures['again'](x=tf.constant([3.0]))
    self.assertAllClose(found['sum'], [5.0])
    with tf.io.gfile.GFile(f'{base}/{saved_model.MODEL_CONFIG}') as file:
      self.assertEqual(file.read(), saved_model.model_config({'sum': base}))
    with self.assertRaisesRegex(saved_model.ExportError, 'none://base'):
      saved_model.write(_export(), 'none://base')

  def test_ops_that_do_not_come_with_tensorflow_are_found(self):
    folder = _write(_export(), self.base)
    self.assertEmpty(saved_model.foreign_ops(folder))
    file = folder / saved_model.GRAPH_FILE
    proto = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    library = proto.meta_graphs[0].graph_def.library
    library.function[0].node_def.add(name='x', op='Addons>Rotate')
    file.write_bytes(proto.SerializeToString())
    self.assertEqual(saved_model.foreign_ops(folder), {'Addons>Rotate'})

  def test_limits_are_in_the_metadata(self):
    settings = settings_lib.Settings(max_batch_size=12)
    export = saved_model.Export(_Sum(settings=settings))
    graph = saved_model.read_graph(_write(export, self.base, settings))
    shape = graph.signature_def['again'].inputs['x'].tensor_shape
    self.assertEqual(shape.dim[0].name, '1 to 12')
    loaded = tf.saved_model.load(str(self.base / '1'))
    with self.assertRaisesRegex(
      tf.errors.InvalidArgumentError, 'x holds 13 examples, but .* 1 to 12'
    ):
      loaded.signatures['again'](x=tf.zeros([13]))

  def test_files_of_the_server_are_left_as_they_are(self):
    batching = self.base / saved_model.BATCHING_CONFIG
    self.base.mkdir(parents=True)
    batching.write_text('mine')
    settings = settings_lib.Settings(name='other', max_batch_size=12)
    _write(_export(), self.base, settings)
    self.assertEqual(batching.read_text(), 'mine')
    os.remove(batching)
    _write(_export(), self.base, settings)
    text = batching.read_text()
    sizes = [line for line in text.splitlines() if 'allowed' in line]
    # TensorFlow Serving wants the last size to be the largest batch.
    self.assertEqual([int(x.split()[-1]) for x in sizes], [1, 2, 4, 8, 12])
    self.assertIn('max_batch_size { value: 12 }', text)
    monitoring = (self.base / saved_model.MONITORING_CONFIG).read_text()
    self.assertIn(saved_model.METRICS_PATH, monitoring)
    config = text_format.Parse(
      (self.base / saved_model.MODEL_CONFIG).read_text(),
      model_server_config_pb2.ModelServerConfig(),
    ).model_config_list.config
    self.assertEqual(
      [(x.name, x.base_path) for x in config], [('other', str(self.base))]
    )


if __name__ == '__main__':
  tf.test.main()
