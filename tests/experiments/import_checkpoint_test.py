"""Tests that imported weights go on to evaluation, stage 2 and serving."""

import os
import pathlib
import tempfile

from absl.testing import absltest
import numpy as np
from PIL import Image
import tensorflow as tf

from export import tokenizer as tokenizer_export
from tests import testing
from tests.experiments import running
from tests.interop import enhancing_reference as reference
from vim_tf import protocols
from vim_tf.config import DataConfig
from vim_tf.jobs import evaluate_reconstructions, restore
from vim_tf.training import workdir as workdir_lib

# The sizes that the `tiny` preset of stage 2 takes.
_SIZES = reference.Sizes(image_size=16, patch_size=4, codebook_size=32)


class ImportCheckpointTest(running.Refused, absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root = pathlib.Path(cls.enter_context(tempfile.TemporaryDirectory()))
    cls.checkpoint = cls.root / 'vitvq.ckpt'
    cls.weights = reference.random_weights(_SIZES)
    reference.write_checkpoint(cls.checkpoint, cls.weights)
    cls.images = cls.root / 'images'
    cls.held_out = np.random.default_rng(0).integers(
      0, 256, [5, 16, 16, 3], np.uint8
    )
    for split in ('train', 'validation'):
      for name in ('one', 'two'):
        (cls.images / split / name).mkdir(parents=True)
      for i, pixels in enumerate(cls.held_out):
        name = 'one' if i % 2 else 'two'
        Image.fromarray(pixels).save(cls.images / split / name / f'{i}.png')
    cls.binary = running.Binary('import_checkpoint')
    cls.workdir = cls.root / 'imported'
    cls.result = cls.binary.run(
      f'--checkpoint={cls.checkpoint}', f'--workdir={cls.workdir}'
    )

  def test_says_what_was_used_and_dropped(self):
    self.assertEqual(self.result.status, 0, self.result.error)
    record = workdir_lib.read(self.workdir)
    (line,) = (x for x in self.result.error.splitlines() if 'dropped:' in x)
    self.assertIn(f'{len(self.weights) - 3} tensors of vitvq.ckpt', line)
    self.assertIn(record['source']['sha256'], line)
    self.assertIn('1 of loss.perceptual_loss, 2 of loss.discriminator', line)
    self.assertNotIn('imported.', ' '.join(os.listdir(self.root)))

  def test_evaluation_measures_the_other_model(self):
    found, _ = evaluate_reconstructions.evaluate(
      restore.tokenizer(self.workdir),
      protocols.ReconstructionProtocol(
        data=DataConfig(name=f'folder:{self.images}', image_size=16),
        max_images=100,
        network='',
        perceptual=False,
      ),
    )
    images = self.held_out / 255
    pixels = reference.decode(
      self.weights, reference.encode(self.weights, images)
    )
    error = np.mean((np.clip(pixels, 0, 1) - images) ** 2)
    np.testing.assert_allclose(found['figures']['l2'], error, rtol=1e-5)
    self.assertEqual(found['protocol']['tokenizer_step'], 1234)

  def test_stage_2_learns_its_codes(self):
    workdir = self.root / 'vim'
    with testing.eagerly():
      result = running.Binary('train_vim').run(
        '--preset=tiny',
        f'--workdir={workdir}',
        f'--tokenizer={self.workdir}',
        f'--data=folder:{self.images}',
        '--num_classes=2',
        '--steps=1',
        '--batch_size=4',
      )
    self.assertEqual(result.status, 0, result.error)
    tokenizer, vim = restore.both(workdir)
    self.assertEqual(vim.step, 1)
    np.testing.assert_array_equal(
      tokenizer.model.quantizer.codebook,
      self.weights['quantizer.embedding.weight'],
    )

  def test_the_export_serves_its_codes(self):
    version = tokenizer_export.export(self.workdir, self.root / 'exports')
    signatures = tf.saved_model.load(str(version)).signatures
    images = np.float32(self.held_out / 255)
    codes = signatures['encode_images'](images=tf.constant(images))['codes']
    expected = reference.encode(self.weights, images)
    np.testing.assert_array_equal(codes, expected)
    pixels = signatures['decode'](codes=codes)['images']
    np.testing.assert_allclose(
      pixels,
      np.clip(reference.decode(self.weights, expected), 0, 1),
      atol=1e-5,
    )

  def test_refusals_are_one_line(self):
    damaged = self.root / 'damaged.ckpt'
    damaged.write_bytes(self.checkpoint.read_bytes()[:-1])
    for checkpoint, workdir, text in (
      (self.checkpoint, self.workdir, 'exists already'),
      (damaged, self._new, 'cut short'),
      (self.root / 'none.ckpt', self._new, 'No such file'),
    ):
      result = self.binary.run(
        f'--checkpoint={checkpoint}', f'--workdir={workdir}'
      )
      self._assert_refused(result, text)


if __name__ == '__main__':
  absltest.main()
