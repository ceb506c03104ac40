"""The front door: a run is opened, and draws what `sample` draws."""

import pathlib
import subprocess
import sys
from unittest import mock

from absl.testing import absltest, parameterized
import numpy as np
from PIL import Image

from tests.experiments import tiny_runs
import vim_tf
from vim_tf.config import ConfigError, UserError
from vim_tf.jobs import load as load_job
from vim_tf.jobs import precision, restore
from vim_tf.jobs import sample as sample_job
from vim_tf.training import workdir as workdir_lib
from vim_tf.vim.sampling import SamplingConfig

_SETTINGS = {'temperature': 0.9, 'top_p': 0.95, 'guidance_scale': 2.0}


class LoadTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.paths = tiny_runs.shared()
    cls.run_ = vim_tf.load(cls.paths.vim)

  def test_it_draws_what_the_program_draws(self):
    out = pathlib.Path(self.create_tempdir()) / 'out'
    samples = sample_job.sample(
      self.paths.vim,
      out,
      count=3,
      seed=5,
      batch_size=4,
      config=SamplingConfig(**_SETTINGS),
    )
    classes = [self.run_.class_names[i] for i in samples.ids]
    settings = {'seeds': samples.seeds, **_SETTINGS}
    codes = self.run_.sample_codes(classes, **settings)
    np.testing.assert_array_equal(codes, samples.codes)
    images = self.run_.sample(classes, batch_size=5, **settings)
    self.assertEqual(images.shape, (6, tiny_runs.SIZE, tiny_runs.SIZE, 3))
    self.assertEqual(images.dtype, np.float32)
    self.assertBetween(images.min(), 0.0, 1.0)
    self.assertBetween(images.max(), 0.0, 1.0)
    for row, image in zip(
      workdir_lib.read_json(out / 'samples.json')['samples'], images
    ):
      with Image.open(out / row['file']) as file:
        np.testing.assert_allclose(
          np.asarray(file) / 255, image, atol=0.51 / 255
        )
    # By id, alone and in another order the same.
    one = self.run_.sample_codes([1], seeds=[samples.seeds[4]], **_SETTINGS)
    np.testing.assert_array_equal(one[0], samples.codes[4])
    order = [3, 0, 5]
    some = self.run_.sample_codes(
      samples.ids[order], seeds=samples.seeds[order], batch_size=2, **_SETTINGS
    )
    np.testing.assert_array_equal(some, samples.codes[order])

  def test_the_models_are_keras_models(self):
    self.assertIsInstance(self.run_.vim, vim_tf.VIM)
    self.assertIsInstance(self.run_.tokenizer, vim_tf.ViTVQGAN)
    self.assertEqual(self.run_.class_names, tiny_runs.CLASSES)
    self.assertEqual(self.run_.config, restore.vim(self.paths.vim).config)

  def test_images_to_codes_and_back(self):
    images = self.run_.sample(['dark', 'BRIGHT', 'dark'])
    codes = np.asarray(self.run_.tokenizer.encode(images))
    np.testing.assert_array_equal(self.run_.encode(images, 2), codes)
    np.testing.assert_allclose(
      self.run_.decode(codes, 2),
      np.clip(self.run_.tokenizer.decode(codes), 0, 1),
      atol=1e-5,
    )
    self.assertEmpty(self.run_.encode(images[:0]))

  def test_a_tokenizer_alone(self):
    run = vim_tf.load(self.paths.tokenizer)
    self.assertIsNone(run.vim)
    images = np.zeros([2, tiny_runs.SIZE, tiny_runs.SIZE, 3], np.float32)
    np.testing.assert_array_equal(run.encode(images), self.run_.encode(images))
    with self.assertRaisesRegex(UserError, 'load the run of a VIM'):
      run.sample(['dark'])

  def test_a_vim_without_classes(self):
    run = vim_tf.load(self.paths.unconditional)
    self.assertEmpty(run.class_names)
    self.assertLen(run.sample(seeds=[4, 5]), 2)
    with self.assertRaisesRegex(ConfigError, 'give seeds alone'):
      run.sample(['dark'])

  @parameterized.parameters(
    (['grey'], {}, "no class 'grey'"),
    ([2], {}, 'classes from 2 to 2'),
    ('dark', {}, 'in a list'),
    (None, {}, 'in a list'),
    (['dark'], {'seeds': [1, 2]}, 'one seed for each'),
    (['dark'], {'seeds': [-1]}, 'seed'),
    (['dark'], {'top_p': 0.0}, 'top_p is 0'),
    (['dark'], {'guidance': 2.0}, 'guidance_scale'),
    (['dark'], {'batch_size': 0}, 'batch_size is 0'),
  )
  def test_refuses_to_draw(self, classes, settings, message):
    with self.assertRaisesRegex(ConfigError, message) as raised:
      self.run_.sample(classes, **settings)
    self.assertNotIn('\n', str(raised.exception))

  @parameterized.parameters(
    ('encode', [1, 8, 8, 3], np.float32(0), r'\[n, 16, 16, 3\]'),
    ('encode', [1, 16, 16, 3], np.uint8(0), 'uint8'),
    ('decode', [1, 3], np.int32(0), r'\[n, 16\]'),
    ('decode', [1, 16], np.int32(99), '99'),
    ('classify', [1, 16, 16, 3], np.float32(0), 'no probe'),
  )
  def test_refuses_to_compute(self, name, shape, value, message):
    with self.assertRaisesRegex(UserError, message):
      getattr(self.run_, name)(np.full(shape, value))

  def test_refuses_what_is_no_run(self):
    with self.assertRaisesRegex(UserError, 'not a working directory'):
      load_job.load(self.create_tempdir().full_path)
    with self.assertRaisesRegex(ConfigError, "precision is 'half'"):
      load_job.load(self.paths.vim, precision='half')

  def test_the_precision_that_is_faster_here(self):
    for slower, faster in (('float32', 'bfloat16'), ('bfloat16', 'float32')):
      clock = [0.0]

      def product(name, clock=clock, slower=slower):
        def run():
          clock[0] += 2.0 if name == slower else 1.0

        return run

      with mock.patch.multiple(
        precision,
        _product=product,
        time=mock.Mock(perf_counter=lambda clock=clock: clock[0]),
      ):
        precision.faster.cache_clear()
        found = load_job.load(self.paths.vim, precision='auto')
      for model in (found.vim, found.tokenizer):
        self.assertEqual(restore.precision(model), faster)
    precision.faster.cache_clear()
    self.assertIn(precision.faster(), ('float32', 'bfloat16'))

  def test_codes_do_not_hang_on_the_window(self):
    expected = self.run_.sample_codes(seeds=[1, 2], classes=[0, 1], window=1)
    for window in (0, 3):
      found = self.run_.sample_codes([0, 1], seeds=[1, 2], window=window)
      np.testing.assert_array_equal(found, expected)
    with self.assertRaisesRegex(ConfigError, 'window 17 .*0 to 16'):
      self.run_.sample([0], window=17)

  def test_tensorflow_waits(self):
    code = (
      'import sys, vim_tf; vim_tf.presets.stage1("tiny"); '
      'assert "load" in dir(vim_tf); assert "tensorflow" not in sys.modules'
    )
    subprocess.run([sys.executable, '-c', code], check=True)
    with self.assertRaisesRegex(AttributeError, 'vim_tf.*nothing'):
      _ = vim_tf.nothing


if __name__ == '__main__':
  absltest.main()
