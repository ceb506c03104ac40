"""Tests of VIM: causality, its cache, classes and dropout."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import testing
from vim_tf.vim import model as model_lib

_CODES = 9
_NO_CLASS = 5


def _codes(batch: int = 3) -> tf.Tensor:
  rng = np.random.default_rng(3)
  return tf.constant(rng.integers(0, 11, [batch, _CODES]), tf.int32)


def _model(
  dropout: float = 0.0, recompute=False, block='paper', **sizes
) -> model_lib.VIM:
  transformer = testing.transformer_config(dropout=dropout, block=block)
  config = testing.vim_config(transformer=transformer, **sizes)
  model = model_lib.VIM(config, recompute=recompute)
  model.build()
  testing.randomize(model)
  return model


class ModelTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(
    (5, 'factorized'),
    (5, 'learned'),
    (0, 'factorized'),
    (0, 'sincos'),
    (5, 'factorized', 'modern'),
  )
  def test_cached_decoding_equals_the_full_pass(
    self, num_classes, positions, block='paper'
  ):
    model = _model(num_classes=num_classes, positions=positions, block=block)
    codes, class_ids = _codes(), tf.constant([0, 2, num_classes])
    full = model(codes, class_ids)
    self.assertEqual(full.shape, [3, _CODES, 11])
    step = tf.function(model.decode, autograph=False)
    start = model.start(class_ids)
    caches = [cache.grown(_CODES) for cache in model.new_cache(3)]
    before = tf.pad(codes, [[0, 0], [1, 0]])[:, :-1]  # Of the first: anything.
    for i in range(0, _CODES, 3):
      positions = tf.tile(tf.range(i, i + 3)[None], [3, 1])
      logits, caches = step(before[:, i : i + 3], start, caches, positions)
      expected = tf.reshape(full[:, i : i + 3], logits.shape)
      self.assertAllClose(logits, expected, atol=1e-5, rtol=1e-5)

  def test_conformance(self):
    testing.check_layer(
      self,
      lambda **kwargs: model_lib.VIM(
        testing.vim_config(transformer=testing.transformer_config(dropout=0.1)),
        recompute=True,
        **kwargs,
      ),
      (_codes(), tf.constant([0, 4, 5]), tf.constant([1, 2, 3], tf.uint32)),
      bfloat16_atol=0.2,
    )

  @parameterized.parameters(0, 4, 8)
  def test_a_code_changes_nothing_up_to_its_own_logits(self, position):
    model, codes = _model(), _codes()
    class_ids = tf.constant([0, 1, 2])
    changed = codes.numpy()
    changed[:, position] = (changed[:, position] + 1) % 11
    one, other = model(codes, class_ids), model(changed, class_ids)
    self.assertAllEqual(one[:, : position + 1], other[:, : position + 1])
    if position < _CODES - 1:
      for i in range(position + 1, _CODES):
        self.assertNotAllClose(one[:, i], other[:, i])

  def test_every_class_and_no_class_have_rows_of_their_own(self):
    model = _model()
    codes = tf.repeat(_codes(1), 6, axis=0)
    logits = model(codes, tf.range(6)).numpy()
    for i in range(6):
      for j in range(i):
        self.assertNotAllClose(logits[i], logits[j])
    self.assertAllEqual(
      model.start(tf.constant([_NO_CLASS]))[0, 0],
      model.start_embedding.embeddings[-1],
    )

  def test_unconditional_model_takes_no_notice_of_class_ids(self):
    model = _model(num_classes=0)
    self.assertEqual(model.start_embedding.embeddings.shape, [1, 16])
    logits = model(tf.repeat(_codes(1), 3, axis=0), tf.constant([0, 7, -1]))
    self.assertAllClose(logits[0], logits[1], atol=1e-5)
    self.assertAllClose(logits[0], logits[2], atol=1e-5)

  def test_positions_count(self):
    model = _model()
    logits = model(tf.zeros([1, _CODES], tf.int32), tf.constant([0]))
    for i in range(1, _CODES):
      self.assertNotAllClose(logits[0, i], logits[0, i - 1])

  def test_intermediates(self):
    model, out = _model(), {}
    codes, class_ids = _codes(), tf.constant([0, 1, 2])
    logits = model(codes, class_ids, out=out)
    self.assertEqual(sorted(out), ['block_0', 'block_1', 'embedded', 'final'])
    for value in out.values():
      self.assertEqual(value.shape, [3, _CODES, 16])
    self.assertAllClose(model.logits(out['final']), logits)
    self.assertAllClose(
      out['embedded'][:, :1], model.start(class_ids), atol=0, rtol=0
    )
    self.assertAllClose(
      model.transformer.norm(out['block_1']), out['final'], atol=1e-5
    )

  def test_intermediates_of_a_whole_image(self):
    model, out = _model(), {}
    codes, class_ids = _codes(), tf.constant([0, 1, _NO_CLASS])
    model(codes, class_ids, out=out)
    whole = model.intermediates(codes, class_ids)
    self.assertEqual(sorted(whole), sorted(out))
    for name, value in whole.items():
      self.assertEqual(value.shape, [3, _CODES, 16])
      # The pass that predicts sees the same, but for the last code.
      self.assertAllClose(value[:, :-1], out[name][:, 1:], atol=1e-5)
    changed = codes.numpy()
    changed[:, -1] = (changed[:, -1] + 1) % 11
    other = model.intermediates(changed, class_ids)
    for name, value in whole.items():
      self.assertAllEqual(value[:, :-1], other[name][:, :-1])
      self.assertNotAllClose(value[:, -1], other[name][:, -1])


class DropoutTest(tf.test.TestCase):
  def test_needs_seeds_and_a_rate(self):
    codes, class_ids = _codes(), tf.constant([0, 1, 2])
    seeds = tf.constant([1, 2, 3], tf.uint32)
    plain, dropped = _model(), _model(dropout=0.3)
    self.assertAllEqual(dropped(codes, class_ids), plain(codes, class_ids))
    self.assertAllEqual(plain(codes, class_ids, seeds), plain(codes, class_ids))
    noisy = dropped(codes, class_ids, seeds)
    self.assertNotAllClose(noisy, plain(codes, class_ids))
    self.assertAllEqual(noisy, dropped(codes, class_ids, seeds))

  def test_an_example_depends_on_its_own_seed_alone(self):
    model = _model(dropout=0.3)
    codes, class_ids = _codes(), tf.constant([0, 1, 2])
    one = model(codes, class_ids, tf.constant([1, 2, 3], tf.uint32))
    other = model(codes, class_ids, tf.constant([7, 2, 3], tf.uint32))
    alone = model(codes[1:2], class_ids[1:2], tf.constant([2], tf.uint32))
    self.assertNotAllClose(one[0], other[0])
    self.assertAllEqual(one[1:], other[1:])
    self.assertAllClose(alone[0], one[1], atol=1e-5)

  def test_embeddings_are_dropped_too(self):
    out = {}
    seeds = tf.constant([1, 2, 3], tf.uint32)
    _model(dropout=0.5)(_codes(), tf.constant([0, 1, 2]), seeds, out=out)
    share = np.mean(out['embedded'].numpy() == 0.0)
    self.assertAllClose(share, 0.5, atol=0.1)


if __name__ == '__main__':
  tf.test.main()
