"""Tests of `evaluate --job=reconstruction`: figures, protocol, refusals."""

import json
import os
import pathlib
import shutil
from unittest import mock

from absl.testing import parameterized
import numpy as np
from PIL import Image
import tensorflow as tf

from tests import testing
from tests.experiments import running, tiny_runs
from vim_tf import protocols
from vim_tf.config import replace
from vim_tf.data import sources
from vim_tf.jobs import restore
from vim_tf.metrics import generation
from vim_tf.vit_vqgan import losses, lpips

_SIZE = tiny_runs.SIZE
_COUNT = sum(tiny_runs.HELD_OUT)  # Fills no batch of 5 nor of 32.


def _read_images(folder: pathlib.Path) -> np.ndarray:
  paths = sorted((folder / 'validation').glob('*/*.png'))
  return np.stack([np.asarray(Image.open(path)) for path in paths]) / 255.0


class ReconstructionTest(
  running.Refused, parameterized.TestCase, tf.test.TestCase
):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root = testing.new_folder('evaluate')
    cls.images = tiny_runs.shared().images
    cls.tokenizer = cls.root / 'tokenizer'
    changes = {'model.logit_laplace': 'true', 'optimizer.ema_decay': '0.9'}
    tiny_runs.make_tokenizer(cls.tokenizer, cls.images, **changes)
    cls.config = restore.tokenizer(cls.tokenizer).config
    cls.network = cls.root / 'means'
    tf.saved_model.save(tiny_runs.Means(2), str(cls.network))
    cls.binary = running.Binary('evaluate')
    cls.out = cls.root / 'out'
    result = cls._evaluate(
      f'--out={cls.out}', f'--network=file:{cls.network}', '--batch_size=5'
    )
    assert result.status == 0, result.error
    # The graphs are those of the first call, whose figures all must equal.
    cls.enter_context(testing.eagerly())
    cls.text = (cls.out / 'figures.json').read_text()
    cls.result = json.loads(cls.text)
    cls.figures = cls.result['figures']

  @classmethod
  def _evaluate(cls, *arguments):
    return cls.binary.run(
      '--job=reconstruction', f'--workdir={cls.tokenizer}', *arguments
    )

  def _expected(self):
    """Images, reconstructions and codes, one image at a time."""
    images = _read_images(self.images)
    model = restore.tokenizer(self.tokenizer).model
    codes = [model.encode(image[None].astype('f')).numpy() for image in images]
    rebuilt = [model.decode(code).numpy()[0] for code in codes]
    return images, np.stack(rebuilt), np.concatenate(codes)

  # ------------------------------------------------------------------ figures

  def test_pixels(self):
    images, rebuilt, _ = self._expected()
    self.assertGreater(np.std(rebuilt), 0.05)  # Not one flat colour.
    l2 = np.mean((images - rebuilt) ** 2, axis=(1, 2, 3))
    for name, expected in {
      'l1': np.mean(np.abs(images - rebuilt)),
      'l2': np.mean(l2),
      'mean_psnr': np.mean(-10 * np.log10(l2)),
      'psnr_of_mean_l2': -10 * np.log10(np.mean(l2)),
      'ssim': np.mean(
        tf.image.ssim(images.astype('f'), rebuilt.astype('f'), 1.0)
      ),
    }.items():
      self.assertAllClose(self.figures[name], expected, rtol=1e-4, msg=name)

  def test_lpips(self):
    images, rebuilt, _ = self._expected()
    distances = lpips.LPIPS()(images.astype('f'), rebuilt.astype('f'))
    self.assertAllClose(
      self.figures['lpips_vgg'], np.mean(distances), rtol=1e-3
    )

  def test_logit_laplace(self):
    images, _, _ = self._expected()
    out = restore.tokenizer(self.tokenizer).model(images.astype('f'))
    nll = losses.logit_laplace_nll(
      images.astype('f'), out['mu'], out['log_scale']
    )
    self.assertAllClose(
      self.figures['logit_laplace_nll'],
      np.mean(losses.binned_to_density(nll)),
      rtol=1e-4,
    )

  def test_codebook(self):
    _, _, codes = self._expected()
    _, counts = np.unique(codes, return_counts=True)
    shares = counts / codes.size
    size = self.config.model.codebook_size
    self.assertGreater(len(counts), 1)
    self.assertAllClose(self.figures['usage'], len(counts) / size)
    self.assertAllClose(
      self.figures['perplexity'], np.exp(-np.sum(shares * np.log(shares)))
    )
    # There are fewer images than a window has, and the figures say so.
    self.assertEqual(self.figures['images_per_window'], _COUNT)
    self.assertAllClose(
      self.figures['usage_per_256_images'], len(counts) / size
    )

  def test_distances_and_their_floor(self):
    images, rebuilt, _ = self._expected()
    real = tiny_runs.means(images, 2)
    self.assertAllClose(
      self.figures['rfd_file_means'],
      generation.frechet_distance(real, tiny_runs.means(rebuilt, 2)),
      rtol=1e-3,
    )
    order = np.random.default_rng(0).permutation(_COUNT)
    half = _COUNT // 2
    self.assertEqual(self.figures['floor_images_file_means'], half)
    self.assertAllClose(
      self.figures['floor_fd_file_means'],
      generation.frechet_distance(
        real[order[:half]], real[order[half : 2 * half]]
      ),
      rtol=1e-2,
      atol=1e-4,
    )
    for name in ('kd', 'kd_error', 'precision', 'recall'):
      self.assertIn(f'r{name}_file_means', self.figures)
      self.assertIn(f'floor_{name}_file_means', self.figures)

  def test_no_name_is_that_of_the_papers_figure(self):
    for name in self.figures:
      self.assertNotIn('fid', name.lower())
      self.assertNotRegex(name, '^(is|inception_score|fd|kd)(_|$)')

  def test_batches_and_other_networks_change_no_figure(self):
    out = self.root / 'again'
    result = self._evaluate(
      f'--out={out}', '--network=', '--perceptual=false', '--batch_size=32'
    )
    self.assertEqual(result.status, 0, result.error)
    again = json.loads((out / 'figures.json').read_text())
    self.assertNotIn('lpips_vgg', again['figures'])
    self.assertFalse([name for name in again['figures'] if 'fd' in name])
    for name, value in again['figures'].items():
      self.assertAllClose(value, self.figures[name], rtol=1e-5, msg=name)
    self.assertEqual(again['protocol']['network'], '')
    self.assertEqual(again['protocol']['network_source'], '')

  def test_precisions(self):
    out = self.root / 'precisions'
    result = self._evaluate(
      f'--out={out}', '--network=', '--perceptual=false', '--precisions'
    )
    self.assertEqual(result.status, 0, result.error)
    figures = json.loads((out / 'figures.json').read_text())['figures']
    images = _read_images(self.images).astype('f')
    one, other = (
      tf.function(restore.tokenizer(self.tokenizer, policy).model.encode)(
        images
      ).numpy()
      for policy in ('float32', 'mixed_bfloat16')
    )
    # The weights are random: a batch of another size rounds otherwise.
    self.assertAllClose(
      figures['same_codes_bfloat16'], np.mean(one == other), atol=0.05
    )
    size = self.config.model.codebook_size
    for name, codes in (('float32', one), ('bfloat16', other)):
      self.assertAllClose(
        figures[f'usage_{name}'], len(np.unique(codes)) / size, atol=3 / size
      )
    self.assertNotIn('same_codes_bfloat16', self.figures)

  # ------------------------------------------------------- protocol, pictures

  def test_json_is_one_line_with_the_whole_protocol(self):
    self.assertEqual(self.text.count('\n'), 1)
    self.assertTrue(self.text.endswith('\n'))
    self.assertEqual(self.result['job'], 'reconstruction')
    source = sources.load(self.config.data, 'validation')
    protocol = dict(self.result['protocol'])
    self.assertRegex(protocol.pop('network_source'), '^sha256:[0-9a-f]{64}$')
    self.assertEqual(
      protocol,
      {
        'data': f'folder:{self.images}',
        'split': 'validation',
        'data_fingerprint': source.fingerprint,
        'images': _COUNT,
        'image_size': _SIZE,
        'crop': 'center',
        'network': f'file:{self.network}',
        'tokenizer_fingerprint': restore.fingerprint(
          restore.tokenizer(self.tokenizer).model
        ),
        'tokenizer_step': tiny_runs.STEP,
      },
    )
    self.assertNotIn('NaN', self.text)  # Which is not JSON.
    self.assertTrue(np.all(np.isfinite(list(self.figures.values()))))

  def test_another_split_and_fewer_images(self):
    out = self.root / 'train'
    for arguments, split, count in (
      (['--eval_split=train'], 'train', sum(tiny_runs.TRAIN)),
      (['--max_images=9'], 'validation', 9),
    ):
      shutil.rmtree(out, ignore_errors=True)
      result = self._evaluate(
        f'--out={out}', '--network=', '--perceptual=false', *arguments
      )
      self.assertEqual(result.status, 0, result.error)
      protocol = json.loads((out / 'figures.json').read_text())['protocol']
      self.assertEqual((protocol['split'], protocol['images']), (split, count))

  def test_few_images_have_the_figures_that_they_can_have(self):
    for count, missing in (
      (3, ['kd_error', 'precision', 'recall']),
      (1, ['fd', 'kd', 'kd_error', 'precision', 'recall']),
    ):
      out = self.root / f'few-{count}'
      result = self._evaluate(
        f'--out={out}',
        f'--max_images={count}',
        f'--network=file:{self.network}',
        '--perceptual=false',
      )
      self.assertEqual(result.status, 0, result.error)
      figures = json.loads((out / 'figures.json').read_text())['figures']
      self.assertGreater(figures['mean_psnr'], 0.0)
      found = [
        name.removesuffix('_file_means')[1:]
        for name, value in figures.items()
        if value is None and not name.startswith('floor')
      ]
      self.assertCountEqual(found, missing)
      self.assertIn(f'a set has {count} images, but at least 4', result.error)

  def test_bad_images_are_left_out(self):
    shutil.copytree(self.images, self.root / 'bad')
    for name in sorted((self.root / 'bad/validation').rglob('*.png'))[:2]:
      name.write_text('no picture')
    result = self._evaluate(
      f'--out={self.root / "without"}',
      f'--data=folder:{self.root / "bad"}',
      '--network=',
      '--perceptual=false',
      '--batch_size=1',
      '--on_bad_example=skip',
    )
    self.assertEqual(result.status, 0, result.error)
    text = (self.root / 'without/figures.json').read_text()
    self.assertEqual(json.loads(text)['protocol']['images'], _COUNT - 2)

  def test_picture(self):
    """Best, median and worst, each above its reconstruction."""
    images, rebuilt, _ = self._expected()
    order = np.argsort(np.mean((images - rebuilt) ** 2, axis=(1, 2, 3)))
    middle = (_COUNT - 8) // 2
    with Image.open(self.out / 'reconstructions.png') as file:
      picture = np.asarray(file) / 255.0
    gap = 2
    row, column = _SIZE + 2 * gap, _SIZE + gap
    self.assertEqual(picture.shape, (6 * row, 8 * column + gap, 3))
    for i, first in enumerate((0, middle, _COUNT - 8)):
      for j in range(8):
        place = order[first + j]
        for k, expected in enumerate((images[place], rebuilt[place])):
          top, left = (2 * i + k) * row + gap, j * column + gap
          found = picture[top : top + _SIZE, left : left + _SIZE]
          self.assertAllClose(found, expected, atol=0.6 / 255)

  # ----------------------------------------------------------------- refusals

  @parameterized.named_parameters(
    ('no_images', ['--data=folder:{root}/empty'], ['has no images']),
    ('no_folder', ['--data=folder:{root}/none'], ['There is no folder']),
    ('no_split', ['--eval_split=test'], ["no split 'test'"]),
    ('no_run', ['--workdir={root}/none'], ['not a working directory']),
    (
      'no_network',
      ['--network=vgg'],
      ["no feature network 'vgg'", 'efficientnet_lite0'],
    ),
    ('out_exists', ['--out={root}/out'], ['exists already']),
    (
      'out_cannot_be',  # Which is told before anything is read.
      ['--out=/proc/new', '--workdir={root}/none'],
      ['Cannot write to --out=/proc/new'],
    ),
  )
  def test_refuses(self, arguments, texts):
    (self.root / 'empty').mkdir(exist_ok=True)
    before = running.snapshot(self.out)
    result = self._evaluate(
      f'--out={self._new}', *(text.format(root=self.root) for text in arguments)
    )
    self._assert_refused(result, *texts)
    self.assertEqual(running.snapshot(self.out), before)

  def test_refuses_inception_without_a_network(self):
    """Through a proxy that is not there: whether there is one decides not."""
    nowhere = {
      'https_proxy': 'http://127.0.0.1:9',
      'no_proxy': '',
      'TFHUB_CACHE_DIR': self.create_tempdir().full_path,
    }
    with mock.patch.dict(os.environ, nowhere):
      result = self._evaluate(
        f'--out={self._new}', '--network=inception', '--perceptual=false'
      )
    self._assert_refused(
      result, 'Inception cannot be loaded', 'tfhub.dev', 'inception:PATH'
    )

  def test_refuses_no_images_at_all(self):
    result = self._evaluate(f'--out={self.root}/new', '--max_images=0')
    self.assertEqual(result.status, 1)
    self.assertIn('max_images', result.error)
    self.assertNotIn('Traceback', result.error)

  def test_refuses_images_of_another_size(self):
    """Which no flag can ask for, but a caller of the job can."""
    from vim_tf.jobs import evaluate_reconstructions

    data = replace(self.config.data, {'image_size': '32'})
    with self.assertRaisesRegex(
      ValueError, 'of 32 pixels, but the tokenizer takes 16'
    ):
      evaluate_reconstructions.evaluate(
        restore.tokenizer(self.tokenizer),
        protocols.ReconstructionProtocol(data=data, max_images=5, network=''),
      )


if __name__ == '__main__':
  tf.test.main()
