"""What a run says before its first step, and a GPU that is not used."""

import os
import pathlib
from unittest import mock
import urllib.error

from absl.testing import absltest, parameterized
import tensorflow as tf

from vim_tf.config import ConfigError, RunConfig, UserError
from vim_tf.training import preamble, strategy

_RUN = RunConfig(
  num_steps=3_000,
  batch_size=20,
  eval_every=500,
  picture_every=0,
  eval_examples=100,
)


class DescribeTest(absltest.TestCase):
  def test_crops_are_examples(self):
    train = preamble.Split('codes', 600, ('a', 'b'), crops=10)
    told = preamble.describe('VIM', _RUN, train, train, {'model': 1}, 'runs/v')
    text = '\n'.join(told)
    self.assertIn('600 images of codes, 10 crops of each, in', text)
    self.assertIn('are 10 epochs', text)
    preamble.check_batch(6_000, train)

  def test_a_batch_larger_than_the_data(self):
    train = preamble.Split('x (train)', 7, ('image',))
    preamble.check_batch(7, train)
    with self.assertRaisesRegex(UserError, '8, but x .train. has only 7 exam'):
      preamble.check_batch(8, train)


class MissingGpuTest(parameterized.TestCase):
  @parameterized.parameters('proc/driver/nvidia', 'dev/nvidia0')
  def test_a_driver_without_libraries(self, sign):
    root = pathlib.Path(self.create_tempdir().full_path)
    self.assertEqual(strategy.missing_gpu(root), '')
    (root / sign).mkdir(parents=True)
    build = tf.sysconfig.get_build_info()
    for visible in ('0', '0,1'):  # As a cluster's scheduler sets it.
      with mock.patch.dict(os.environ, {'CUDA_VISIBLE_DEVICES': visible}):
        text = strategy.missing_gpu(root)
      self.assertIn(f'NVIDIA GPU ({root / sign})', text)
      self.assertNotIn('\n', text)
      if build['is_cuda_build']:
        self.assertIn(f'CUDA {build["cuda_version"]} and cuDNN', text)
    for hidden in ('', '-1'):  # On purpose.
      with mock.patch.dict(os.environ, {'CUDA_VISIBLE_DEVICES': hidden}):
        self.assertEqual(strategy.missing_gpu(root), '')


class EstimateTest(absltest.TestCase):
  def test_images_hours_and_chip_hours(self):
    run = RunConfig(batch_size=256)
    one = tf.distribute.OneDeviceStrategy('/cpu:0')
    self.assertEqual(
      preamble.estimate('VIM', 90_000, run, 7200.0, one),
      'VIM: the 90,000 steps to come take 2:00:00 at 3,200.0 images/s; '
      'evaluations and checkpoints come on top.',
    )
    tpu = mock.create_autospec(tf.distribute.TPUStrategy, instance=True)
    tpu.num_replicas_in_sync = 128
    self.assertIn(
      ' images/s on 128 chips, 256.0 chip-hours;',
      preamble.estimate('VIM', 90_000, run, 7200.0, tpu),
    )


class NoTpuTest(parameterized.TestCase):
  def test_none_here(self):
    with self.assertRaisesRegex(ConfigError, 'knows no TPU.*tpu.lock'):
      strategy.make('tpu')

  def test_its_float32_products_would_be_float32(self):
    """Without it their factors are rounded to bfloat16 there."""
    switch = tf.config.experimental.enable_tensor_float_32_execution
    switch(True)
    self.addCleanup(switch, True)
    with self.assertRaises(ConfigError):
      strategy.make('tpu')
    product = tf.function(lambda a, b: tf.matmul(a, b), jit_compile=True)
    matrix = tf.TensorSpec([2, 2])
    program = product.experimental_get_compiler_ir(matrix, matrix)(stage='hlo')
    self.assertIn('operand_precision={highest,highest}', program)

  @parameterized.parameters(
    (
      tf.errors.NotFoundError(None, None, "device '/device:TPU_SYSTEM:0'\nat"),
      'this machine has none, or another process',
    ),
    (urllib.error.URLError('not known'), 'cannot be reached .*not known'),
    (RuntimeError('googleapiclient is missing\nat'), 'googleapiclient is miss'),
  )
  def test_one_line(self, error, told):
    resolvers = tf.distribute.cluster_resolver
    with mock.patch.object(resolvers, 'TPUClusterResolver', side_effect=error):
      with self.assertRaisesRegex(ConfigError, f"No TPU 'x' answers: .*{told}"):
        strategy.make('tpu', 'x')
    self.assertNotIn('\n', strategy._no_tpu(error))


if __name__ == '__main__':
  absltest.main()
