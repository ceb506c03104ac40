"""Tests of the three exports: what a C++ session answers, as servers do."""

import contextlib
import io
import json
import pathlib
import re
import shutil
import subprocess
import sys
from unittest import mock

from absl.testing import parameterized
import numpy as np
from PIL import Image
import tensorflow as tf
from tensorflow.python.tools import saved_model_cli

from export import probe, sampler, saved_model, signatures, tokenizer
from tests import testing
from tests.export import asked, c_api, calls, served, tiny
from vim_tf.jobs import restore
from vim_tf.probe import features
from vim_tf.vim import decoding
from vim_tf.vim import model as vim_model

_DOCS = pathlib.Path(__file__).parents[2] / 'docs'
_BFLOAT16 = restore.policy('bfloat16')
_HALF = saved_model.Settings(precision='bfloat16')


def _functions_with_weights(version: pathlib.Path) -> list[str]:
  """Names of the graph's functions that have a matrix as a constant."""
  matrices = [
    function.signature.name
    for function in saved_model.read_graph(version).graph_def.library.function
    for node in function.node_def
    if node.op == 'Const'
    and len(node.attr['value'].tensor.tensor_shape.dim) == 2
    and node.attr['dtype'].type == tf.bfloat16.as_datatype_enum
  ]
  return sorted(set(matrices))


class ExportsTest(parameterized.TestCase, testing.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root, cls.bases = served.exports()
    cls.runs = {name: cls.root / 'runs' / name for name in cls.bases}
    cls.tokenizer, cls.vim = restore.both(cls.runs['sampler'])
    cls.decoder = decoding.Decoder(cls.vim.model)
    cls.files = tiny.files(max(asked.BATCHES))
    cls.images = tiny.pipeline_images(cls.files, cls.root / 'images', 16)
    cls.codes = cls.tokenizer.model.encode(cls.images).numpy()
    cls.results = {}
    for (model, name, inputs), _, answer in asked.answers()[0]['right']:
      code, text, outputs = answer
      assert code == c_api.OK, text
      batch = len(next(iter(inputs.values())))
      cls.results[model, name, batch] = inputs, outputs

  def _outputs(self, model, signature):
    """Yields batch size, inputs and outputs."""
    for n in asked.BATCHES:
      inputs, found = self.results[model, signature, n]
      for value in found.values():
        self.assertLen(value, n)
      yield n, inputs, found

  @parameterized.parameters('serving_default', 'reconstruct')
  def test_codes_are_those_of_the_training_pipeline(self, signature):
    for n, _, found in self._outputs('tokenizer', signature):
      self.assertAllEqual(found['codes'], self.codes[:n])

  def test_images_to_codes(self):
    for _, inputs, found in self._outputs('tokenizer', 'encode_images'):
      expected = self.tokenizer.model.encode(inputs['images'])
      self.assertAllEqual(found['codes'], expected)

  def test_codes_to_images(self):
    for _, inputs, found in self._outputs('tokenizer', 'decode'):
      expected = self.tokenizer.model.decode(inputs['codes'])
      self.assertAllClose(found['images'], expected, atol=1e-5)

  def test_codes_to_png_files(self):
    for _, inputs, found in self._outputs('tokenizer', 'decode_png'):
      images = self.tokenizer.model.decode(inputs['codes']).numpy()
      self._assert_shown(found['png_bytes'], images)

  def test_reconstructions(self):
    for n, _, found in self._outputs('tokenizer', 'reconstruct'):
      images = self.tokenizer.model.decode(self.codes[:n]).numpy()
      self.assertAllClose(found['images'], images, atol=1e-5)
      self._assert_shown(found['png_bytes'], images)

  def _assert_shown(self, files, images):
    for file, image in zip(files, images, strict=True):
      pixels = np.asarray(Image.open(io.BytesIO(file)))
      self.assertAllClose(pixels / 255.0, image, atol=0.6 / 255)

  def _draw(self, inputs, **kwargs):
    n = len(inputs['seeds'])
    return self.decoder(
      inputs['class_ids'], inputs['seeds'], list(calls.SETTINGS[:n]), **kwargs
    )

  @parameterized.parameters('serving_default', 'sample_images')
  def test_samples_are_those_of_the_library(self, signature):
    for _, inputs, found in self._outputs('sampler', signature):
      codes = self._draw(inputs)
      self.assertAllEqual(found['codes'], codes)
      images = self.tokenizer.model.decode(codes).numpy()
      if 'images' in found:
        self.assertAllClose(found['images'], images, atol=1e-5)
      else:
        self._assert_shown(found['png_bytes'], images)

  def test_samples_do_not_depend_on_the_batch(self):
    one = self.results['sampler', 'serving_default', 1][1]
    five = self.results['sampler', 'serving_default', 5][1]
    self.assertAllEqual(one['codes'][0], five['codes'][0])
    self.assertEqual(one['png_bytes'][0], five['png_bytes'][0])

  def test_completions_keep_rows_and_draw_the_others(self):
    for n, inputs, found in self._outputs('sampler', 'complete'):
      kept = inputs['kept_rows'] * 4
      codes = self._draw(inputs, prefix=self.codes[:n], prefix_length=kept)
      self.assertAllEqual(found['codes'], codes)
      for i in range(n):
        self.assertAllEqual(codes[i, : kept[i]], self.codes[i, : kept[i]])

  def test_negative_log_likelihood(self):
    for n, inputs, found in self._outputs('sampler', 'negative_log_likelihood'):
      codes = self.codes[:n]
      logits = self.vim.model(codes, inputs['class_ids'])
      nats = vim_model.negative_log_likelihood(logits, codes).numpy()
      self.assertAllClose(found['nats'], nats.sum(axis=1), rtol=1e-4)
      self.assertAllClose(
        found['bits_per_code'], nats.mean(axis=1) / np.log(2), rtol=1e-4
      )

  def _expected_features(self, n):
    return self._features_of(self.codes[:n])

  def _features_of(self, codes):
    return features.block_features(
      self.vim.model, tf.constant(codes), tiny.PROBE_BLOCK
    )[features.block_name(tiny.PROBE_BLOCK)].numpy()

  def test_features(self):
    for n, _, found in self._outputs('probe', 'features'):
      self.assertAllClose(
        found['features'], self._expected_features(n), atol=1e-4
      )

  def test_probabilities_and_likeliest_classes(self):
    reader = tf.train.load_checkpoint(
      str(self.runs['probe'] / 'seed-0/final/checkpoints')
      + f'/step-{tiny.STEP:09d}/checkpoint'
    )

    def weight(name):
      return reader.get_tensor(f'block_1/{name}/.ATTRIBUTES/VARIABLE_VALUE')

    for n, _, found in self._outputs('probe', 'serving_default'):
      x = (self._expected_features(n) - weight('mean')) * weight('scale')
      logits = x @ weight('kernel')[:, 0] + weight('bias')[0]
      expected = np.exp(logits - logits.max(axis=1, keepdims=True))
      expected /= expected.sum(axis=1, keepdims=True)
      self.assertAllClose(found['probabilities'], expected, atol=1e-4)
      best = np.argsort(-found['probabilities'], axis=1)[:, :5]
      self.assertAllEqual(found['top_ids'], best)
      for i in range(n):
        self.assertEqual(
          [x.decode() for x in found['top_classes'][i]],
          [tiny.CLASSES[k] for k in best[i]],
        )
        self.assertAllEqual(
          found['top_scores'][i], found['probabilities'][i, best[i]]
        )

  def test_classify_gives_the_likeliest_classes(self):
    for n, _, found in self._outputs('probe', 'classify'):
      expected = self.results['probe', 'serving_default', n][1]
      self.assertAllEqual(found['classes'], expected['top_classes'])
      self.assertAllClose(found['scores'], expected['top_scores'])

  def test_saved_model_cli_shows_what_the_docs_show(self):
    trim = re.search(r'sed -n "(.*)"', (_DOCS / 'serving.md').read_text())[1]
    for name, base in self.bases.items():
      arguments = ['cli', 'show', '--all', '--dir', str(base / '1')]
      shown = io.StringIO()
      with (
        mock.patch.object(sys, 'argv', arguments),
        contextlib.redirect_stdout(shown),
        self.assertRaises(SystemExit) as ended,
      ):
        saved_model_cli.main()
      self.assertIsNone(ended.exception.code)
      trimmed = subprocess.run(
        ['sed', '-n', trim],
        check=True,
        input=shown.getvalue(),
        stdout=subprocess.PIPE,
        text=True,
      ).stdout
      expected = (_DOCS / 'signatures' / f'{name}.txt').read_text()
      self.assertEqual(trimmed, expected)

  def test_only_the_classify_signature_is_of_that_method(self):
    for name, base in self.bases.items():
      graph = saved_model.read_graph(base / '1')
      for key, found in graph.signature_def.items():
        if not key.startswith('__'):
          classifies = found.method_name == 'tensorflow/serving/classify'
          self.assertEqual(classifies, (name, key) == ('probe', 'classify'))

  def test_weights_are_stored_once(self):
    def size(path):
      reader = tf.train.load_checkpoint(str(path))
      shapes = reader.get_variable_to_shape_map()
      return sum(
        int(np.prod(shape))
        for name, shape in shapes.items()
        if not name.startswith('_CHECKPOINTABLE') and 'save_counter' not in name
      )

    exported = {
      name: size(base / '1' / 'variables' / 'variables')
      for name, base in self.bases.items()
    }
    first, second = (
      sum(int(np.prod(v.shape)) for v in run.model.weights)
      for run in (self.tokenizer, self.vim)
    )
    self.assertEqual(exported['tokenizer'], first)
    self.assertEqual(exported['sampler'], first + second)
    # The probe needs neither the decoder nor VIM's head.
    self.assertLess(exported['probe'], first + second)

  def test_assets(self):
    for name, base in self.bases.items():
      assets = base / '1' / 'assets'
      self.assertEqual(
        (assets / 'class_names.txt').read_text().split(), tiny.CLASSES
      )
      config = json.loads((assets / 'config.json').read_text())
      self.assertEqual(config['tokenizer']['kind'], 'vit_vqgan', name)
      self.assertEqual(config['settings']['max_scans'], 100)

  def test_flags_of_the_binary(self):
    base = self.root / 'by_flags'
    status, error = served.run(
      'probe',
      f'--workdir={self.runs["probe"]}',
      f'--base={base}',
      '--block=0',
      '--version=4',
      '--name=other',
      '--max_side=10',
    )
    self.assertEqual(status, 0, error)
    config = json.loads((base / '4' / saved_model.CONFIG_FILE).read_text())
    self.assertEqual(config['block'], 0)
    self.assertIn('"other"', (base / saved_model.MODEL_CONFIG).read_text())
    loaded = tf.saved_model.load(str(base / '4'))
    with self.assertRaisesRegex(tf.errors.InvalidArgumentError, '10 a side'):
      loaded.signatures['features'](image_bytes=tf.constant(self.files[:1]))

  def test_what_cannot_be_exported_is_told_in_one_line(self):
    begun = shutil.copytree(self.runs['probe'], self.root / 'begun')
    shutil.rmtree(begun / 'seed-0')
    other = tiny.vim(self.root / 'other', self.runs['tokenizer'], seed=9)
    probed = f'--workdir={self.runs["probe"]}'
    for name, flags, text in (
      ('probe', [f'--workdir={begun}'], 'no probe yet'),
      ('tokenizer', ['--workdir=/nowhere'], 'not a working directory'),
      ('sampler', [f'--workdir={self.runs["tokenizer"]}'], "not 'vim'"),
      ('probe', [probed, '--block=9'], 'block 9'),
      ('probe', [probed, f'--vim={other}'], 'probes another VIM'),
      ('sampler', ['--workdir=runs/vim', '--max_side=0'], 'max_side is 0'),
      (
        'sampler',
        [f'--workdir={self.runs["sampler"]}', '--window=99'],
        'window 99',
      ),
    ):
      base = self.root / 'refused'
      status, error = served.run(name, f'--base={base}', *flags)
      self.assertEqual((status, base.exists()), (1, False))
      self.assertIn(text, error.splitlines()[-1])

  def test_a_loop_compiled_by_xla(self):
    loaded = tf.saved_model.load(served.compiled_sampler())
    inputs = calls.sampling_inputs(2)
    found = loaded.signatures['serving_default'](
      **{name: tf.constant(x) for name, x in inputs.items()}
    )
    self.assertAllEqual(found['codes'], self._draw(inputs))

  def _written(self, exporter, **kwargs):
    """The parts of an export that is neither traced nor written."""
    name = exporter.__name__.rpartition('.')[2]
    with (
      mock.patch.object(saved_model, 'write') as write,
      mock.patch.object(signatures.SignatureModule, 'add'),
    ):
      exporter.export(self.runs[name], self.root / 'none', **kwargs)
    return write.call_args.args[0].module.parts

  def test_every_export_can_be_in_bfloat16(self):
    for exporter in (tokenizer, sampler, probe):
      parts = self._written(exporter, settings=_HALF)
      self.assertEqual(parts.tokenizer.compute_dtype, 'bfloat16')
      if exporter is not tokenizer:
        self.assertEqual(parts.vim.compute_dtype, 'bfloat16')

  def test_constants_only_where_they_are_asked_for(self):
    for frozen in (True, False):
      parts = self._written(sampler, frozen=frozen, settings=_HALF)
      with mock.patch.object(decoding, 'decode') as decode:
        parts.plain_loop.python_function(guided=False)
      self.assertEqual(decode.call_args.kwargs['frozen'], frozen)

  def test_bfloat16_sampler(self):
    version = sampler.export(
      self.runs['sampler'], self.root / 'bfloat16', settings=_HALF
    )
    reader = tf.train.load_checkpoint(f'{version}/variables/variables')
    types = reader.get_variable_to_dtype_map()
    weights = {x for key, x in types.items() if key.startswith('weights')}
    self.assertEqual(weights, {tf.float32})
    self.assertLen(_functions_with_weights(pathlib.Path(version)), 1)
    loaded = tf.saved_model.load(version).signatures
    classes = tf.constant([0, 3, 9])
    found = loaded['negative_log_likelihood'](
      image_bytes=tf.constant(self.files[:3]), class_ids=classes
    )
    first, second = restore.both(self.runs['sampler'], dtype=_BFLOAT16)
    codes = first.model.encode(self.images[:3])
    nats = vim_model.negative_log_likelihood(
      second.model(codes, classes), codes
    ).numpy()
    self.assertAllClose(found['nats'], nats.sum(axis=1), rtol=0.05)
    inputs = calls.sampling_inputs(3)
    drawn = loaded['sample_images'](
      **{name: tf.constant(x) for name, x in inputs.items()}
    )
    images = first.model.decode(drawn['codes'])
    self.assertAllClose(drawn['images'], images, atol=0.1)


if __name__ == '__main__':
  tf.test.main()
