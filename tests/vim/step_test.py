"""Tests of a training step of stage 2: its loss, its draws, its tokenizer."""

import dataclasses

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import testing
from vim_tf import presets
from vim_tf.config import OptimizerConfig
from vim_tf.training import optimizers
from vim_tf.vim import model as model_lib
from vim_tf.vim import step as step_lib
from vim_tf.vit_vqgan import model as vit_vqgan_model


def _config(dropout=0.0, label_drop=0.0, **optimizer):
  model = testing.vim_config(
    transformer=testing.transformer_config(dropout=dropout),
    grid_size=2,
    codebook_size=16,
  )
  return dataclasses.replace(
    presets.stage2('tiny'),
    model=model,
    optimizer=OptimizerConfig(**{'learning_rate': 1e-2, **optimizer}),
    label_drop=label_drop,
  )


def _batch(count=6, seed=0):
  rng = np.random.default_rng(seed)
  return {
    'codes': tf.constant(rng.integers(0, 16, [count, 4]), tf.int32),
    'labels': tf.constant(rng.integers(0, 5, [count]), tf.int32),
    'seeds': tf.constant(rng.integers(0, 2**32, [count]), tf.uint32),
  }


def _make(config, encode=None, seed=3, recompute=False):
  tf.keras.utils.set_random_seed(seed)
  model = model_lib.VIM(config.model, recompute)
  model.build()
  optimizer = optimizers.Optimizer(config.optimizer, model.trainable_variables)
  return step_lib.VIMStep(config, model, optimizer, encode), model


def _run(step, batch):
  kind = step.step_kind(0)
  return step.replica_step(kind, batch, tf.constant(0, tf.int64))


class VIMStepTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.parameters(1, 3)
  def test_loss_is_the_cross_entropy(self, accumulate):
    step, model = _make(_config(accumulate=accumulate))
    testing.randomize(model)
    batch = _batch()
    codes = batch['codes'].numpy()
    logits = model(batch['codes'], batch['labels']).numpy().astype(float)
    chances = np.exp(logits)
    chances /= chances.sum(axis=-1, keepdims=True)
    of_codes = np.take_along_axis(chances, codes[..., None], axis=-1)
    nats = -np.log(of_codes).mean()
    metrics = _run(step, batch)
    self.assertAllClose(metrics['loss'], nats, rtol=1e-5)
    self.assertAllClose(metrics['bits_per_code'], nats / np.log(2), rtol=1e-5)
    self.assertAllClose(
      metrics['accuracy'], (logits.argmax(-1) == codes).mean()
    )

  def test_a_program_of_xla_is_the_same_step(self):
    """With its loop over blocks, which is within that over micro-batches."""
    found, batch = [], _batch(4)
    for compiled in (False, True):
      config = _config(dropout=0.1, accumulate=2)
      step, model = _make(config, recompute=compiled)
      # That the optimizers compile others test.
      step._optimizer = testing.Descent(model.trainable_variables)
      run = lambda step=step: _run(step, batch)  # noqa: E731
      if compiled:
        run = tf.function(run, jit_compile=True, autograph=False)
      found.append([run() for _ in range(3)])
    for one, other in zip(*found, strict=True):
      for name, value in one.items():
        self.assertAllClose(value, other[name], rtol=1e-4, msg=name)

  def test_overfits(self):
    step, model = _make(_config(dropout=0.1, label_drop=0.1))
    batch = _batch(2)
    before = [v.numpy() for v in model.trainable_variables]
    run = tf.function(lambda: _run(step, batch), autograph=False)
    found = [run() for _ in range(30)]
    self.assertAllClose(found[0]['loss'], np.log(16), rtol=0.1)
    self.assertLess(float(found[-1]['loss']), 0.3 * float(found[0]['loss']))
    for old, new in zip(before, model.trainable_variables, strict=True):
      self.assertNotAllEqual(old, new, new.name)

  def test_label_drop(self):
    step, _ = _make(_config(label_drop=0.1))
    count = 20_000
    labels = tf.range(count) % 5
    seeds = tf.cast(tf.range(count), tf.uint32)
    found = step._drop_labels(labels, seeds).numpy()
    dropped = found == 5
    self.assertAllClose(dropped.mean(), 0.1, atol=0.01)
    self.assertAllEqual(found[~dropped], labels.numpy()[~dropped])
    for label in range(5):  # Whatever the class is.
      self.assertAllClose(dropped[label::5].mean(), 0.1, atol=0.02)
    backwards = step._drop_labels(labels[::-1], seeds[::-1])
    self.assertAllEqual(backwards[::-1], found)
    step, _ = _make(_config())
    self.assertAllEqual(step._drop_labels(labels, seeds), labels)

  def test_dropped_labels_train_the_row_of_no_class(self):
    """A label of its own gets a gradient only where it is kept."""
    batch = _batch(2)
    batch['labels'] = tf.zeros_like(batch['labels'])
    for label_drop, moved in ((0.0, [0]), (0.999, [5])):
      step, model = _make(_config(label_drop=label_drop))
      before = model.start_embedding.embeddings.numpy()
      _run(step, batch)
      change = np.abs(model.start_embedding.embeddings.numpy() - before)
      self.assertAllEqual(np.flatnonzero(change.max(axis=1)), moved)

  def test_tokenizer_stays_as_it_is(self):
    sizes = testing.vit_vqgan_config()
    tf.keras.utils.set_random_seed(0)
    tokenizer = vit_vqgan_model.ViTVQGAN(sizes)
    tokenizer.build()
    testing.randomize(tokenizer)
    before = [v.numpy() for v in tokenizer.variables]
    images = np.random.default_rng(0).uniform(size=[6, 8, 8, 3])
    images = tf.constant(images, tf.float32)
    batch = _batch()
    codes = tokenizer.encode(images)
    self.assertGreater(len(np.unique(codes)), 2)
    with_codes = {**batch, 'codes': codes}
    with_images = {**batch, 'images': images}
    del with_images['codes']
    one, one_model = _make(_config(dropout=0.1), tokenizer.encode)
    other, other_model = _make(_config(dropout=0.1))
    for _ in range(3):
      found, expected = _run(one, with_images), _run(other, with_codes)
      self.assertAllEqual(found['loss'], expected['loss'])
    for old, new in zip(before, tokenizer.variables, strict=True):
      self.assertAllEqual(old, new)
    for a, b in zip(one_model.variables, other_model.variables, strict=True):
      self.assertAllEqual(a, b)
    self.assertNotIn('tokenizer', one.checkpoint_contents())

  def test_seeds_draw_the_dropout(self):
    """Seeds of examples, not their places, decide."""
    config = _config(dropout=0.5)
    batch = _batch()
    order = [3, 1, 0, 2, 5, 4]
    shuffled = {name: tf.gather(x, order) for name, x in batch.items()}
    renamed = {**batch, 'seeds': batch['seeds'] + tf.constant(1, tf.uint32)}
    losses = [
      float(_run(_make(config)[0], each)['loss'])
      for each in (batch, shuffled, renamed)
    ]
    self.assertAllClose(losses[0], losses[1], rtol=1e-5)
    self.assertGreater(abs(losses[0] - losses[2]), 1e-6)


if __name__ == '__main__':
  tf.test.main()
