"""The likelihood of held-out codes: units, conditions, references, sources."""

import dataclasses
import json
import math
import pathlib
import shutil

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import testing
from tests.experiments import running, tiny_runs
from vim_tf import protocols
from vim_tf.config import UserError
from vim_tf.data import pipeline, sources
from vim_tf.jobs import encode as encode_job
from vim_tf.jobs import evaluate_likelihood, restore
from vim_tf.metrics import baselines

_CODES = 16  # Of one image.
_HELD_OUT = sum(tiny_runs.HELD_OUT)
_DRAWS = 2 * sum(tiny_runs.TRAIN)  # Of two passes.


def _restored(conditional=True, label_drop=0.1):
  """A tokenizer and a VIM with random weights, as if they were trained."""
  runs = tiny_runs.shared()
  tokenizer, vim = restore.both(runs.vim if conditional else runs.unconditional)
  config = dataclasses.replace(vim.config, label_drop=label_drop)
  return tokenizer, dataclasses.replace(vim, config=config)


def _protocol(data, **kwargs):
  return protocols.LikelihoodProtocol(
    **{'data': data, 'max_images': 100, 'batch_size': 4, 'passes': 2, **kwargs}
  )


def _held_out(tokenizer):
  data = tokenizer.config.data
  images, labels = pipeline.evaluation_arrays(
    sources.load(data, 'validation'), data
  )
  return tokenizer.model.encode(tf.constant(images)), labels


def _bits(model, codes, labels) -> np.ndarray:
  """Bits of each image's codes, from the softmax, in NumPy."""
  logits = model(codes, tf.constant(labels, tf.int32)).numpy().astype(float)
  chances = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
  found = np.take_along_axis(chances, codes.numpy()[..., None], axis=-1)
  return -np.log2(found[..., 0]).sum(axis=1)


class LikelihoodTest(running.Refused, parameterized.TestCase, tf.test.TestCase):
  def test_figures(self):
    tokenizer, vim = _restored()
    data = tokenizer.config.data
    result = evaluate_likelihood.evaluate(tokenizer, vim, _protocol(data))
    json.dumps(result)
    figures = result['figures']
    codes, labels = _held_out(tokenizer)
    self.assertLen(labels, _HELD_OUT)
    for prefix, ids in (('', labels), ('unconditional_', [2] * _HELD_OUT)):
      bits = _bits(vim.model, codes, ids)
      expected = {
        'bits_per_code': bits.mean() / _CODES,
        'bits_per_image': bits.mean(),
        'bits_per_dimension': bits.mean() / (16 * 16 * 3),
        'nats_per_code': bits.mean() / _CODES * math.log(2),
        'nats_per_image': bits.mean() * math.log(2),
        'nats_per_dimension': bits.mean() * math.log(2) / (16 * 16 * 3),
        'bits_per_code_standard_error': (
          bits.std(ddof=1) / _CODES / math.sqrt(_HELD_OUT)
        ),
      }
      for name, value in expected.items():
        self.assertAllClose(figures[prefix + name], value, 1e-5, 0.0, name)
    self.assertNotEqual(
      figures['bits_per_code'], figures['unconditional_bits_per_code']
    )

    # The counting models learn from the VIM's own first draws.
    draws = pipeline.training_batches(
      sources.load(data, 'train'),
      data,
      batch_size=_DRAWS,
      seed=vim.config.run.seed,
    )
    learned = tokenizer.model.encode(next(iter(draws))['images'])
    for name, value in baselines.reference_bits_per_code(
      learned.numpy(), codes.numpy(), 32
    ).items():
      self.assertAllClose(figures[name], value)
    self.assertEqual(figures['uniform_bits_per_code'], 5.0)
    self.assertAllClose(
      figures['share_of_order1'],
      figures['bits_per_code'] / figures['order1_bits_per_code'],
    )
    protocol = result['protocol']
    self.assertEqual(protocol['images'], _HELD_OUT)
    self.assertEqual(protocol['train_draws'], _DRAWS)
    for name in ('vim_step', 'tokenizer_step'):
      self.assertEqual(protocol[name], tiny_runs.STEP)

    # Neither the size of a batch nor a cache of codes changes a figure.
    self.enter_context(testing.eagerly())
    other = evaluate_likelihood.evaluate(
      tokenizer, vim, _protocol(data, batch_size=7)
    )
    self.assertAllClose(other['figures'], figures, rtol=1e-5)
    out = pathlib.Path(self.create_tempdir().full_path) / 'codes'
    encode_job.encode(tokenizer, out, data, crops=2)
    cached = evaluate_likelihood.evaluate(
      tokenizer, vim, _protocol(data, codes=str(out), passes=3)
    )
    self.assertAllClose(cached['figures'], figures, rtol=1e-5)
    self.assertStartsWith(cached['protocol']['codes'], 'cache ')
    for name in ('data_fingerprint', 'train_data_fingerprint', 'images'):
      self.assertEqual(cached['protocol'][name], protocol[name])
    wrong, _ = _restored()
    testing.randomize(wrong.model, seed=1)
    with self.assertRaisesRegex(UserError, 'another tokenizer'):
      evaluate_likelihood.evaluate(wrong, vim, _protocol(data, codes=str(out)))

  @parameterized.parameters(True, False)
  def test_only_what_was_trained_is_measured(self, conditional):
    self.enter_context(testing.eagerly())
    tokenizer, vim = _restored(conditional, 0.0)
    protocol = _protocol(
      tokenizer.config.data, max_images=4, max_train_codes=3 * _CODES
    )
    result = evaluate_likelihood.evaluate(tokenizer, vim, protocol)
    names = set(result['figures'])
    self.assertEmpty({n for n in names if n.startswith('unconditional')})
    self.assertEqual(result['protocol']['conditional'], conditional)
    self.assertEqual(result['protocol']['images'], 4)
    self.assertEqual(result['protocol']['train_draws'], 3)

  def test_classes_by_likelihood(self):
    self.enter_context(testing.eagerly())
    tokenizer, vim = _restored()
    data = tokenizer.config.data
    protocol = _protocol(data, classify=True)
    figures = evaluate_likelihood.evaluate(tokenizer, vim, protocol)['figures']
    codes, labels = _held_out(tokenizer)
    bits = [_bits(vim.model, codes, np.full_like(labels, i)) for i in (0, 1)]
    right = ((bits[1] < bits[0]) == labels).mean()
    self.assertAlmostEqual(figures['classified_top1'], right)
    with self.assertRaisesRegex(UserError, 'two classes or more'):
      evaluate_likelihood.evaluate(*_restored(False, 0.0), protocol)

  def test_another_size(self):
    tokenizer, vim = _restored()
    data = dataclasses.replace(tokenizer.config.data, image_size=32)
    with self.assertRaisesRegex(UserError, '32 pixels, .* takes 16'):
      evaluate_likelihood.evaluate(tokenizer, vim, _protocol(data))

  def test_by_the_binary(self):
    self.enter_context(testing.eagerly())
    runs = tiny_runs.shared()
    binary = running.Binary('evaluate')
    out = self._new
    run = ('--job=likelihood', f'--workdir={runs.vim}', f'--out={out}')
    result = binary.run(*run, '--batch_size=4', '--passes=2')
    self.assertEqual((result.status, result.error_lines), (0, []))
    found = json.loads((out / 'figures.json').read_text())
    tokenizer, vim = restore.both(runs.vim)
    expected = evaluate_likelihood.evaluate(
      tokenizer, vim, _protocol(vim.config.data)
    )
    self.assertEqual(found['protocol'], expected['protocol'])
    self.assertAllClose(found['figures'], expected['figures'])
    shutil.rmtree(out)
    for flag, text in (
      ('--num_samples=8', '--num_samples belongs to --job=generation'),
      (f'--codes={runs.images}', 'is not a cache of codes'),
      (f'--workdir={runs.tokenizer}', "'vit_vqgan', not 'vim'"),
    ):
      self._assert_refused(binary.run(*run, flag), text)


if __name__ == '__main__':
  tf.test.main()
