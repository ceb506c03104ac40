"""Tests of a step of stage 1 whose batch is in parts: the same step."""

import dataclasses
import functools

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import testing
from tests.vit_vqgan import tiny_step
from vim_tf.config import OptimizerConfig, replace

# A discriminator that, unlike StyleGAN2's, compares no images of a batch.
_PATCHGAN = {
  'adversarial.discriminator': 'patchgan',
  'adversarial.channel_multiplier': 1 / 32,
  'data.image_size': 32,
  'model.image_size': 32,
  'model.patch_size': 8,
}


@functools.cache
def _two_replicas():
  # Once: a second one would give its collectives the keys of the first.
  return tf.distribute.MirroredStrategy(['cpu:0', 'cpu:1'])


class AccumulationTest(parameterized.TestCase, tf.test.TestCase):
  def _run_in_parts(self, config, batch, kind, accumulate):
    """Metrics and gradients of both networks of one step of descent."""
    config = replace(config, {'optimizer.accumulate': str(accumulate)})
    parts = tiny_step.Parts(config, descent=True)
    variables = (
      *parts.model.trainable_variables,
      *parts.discriminator.trainable_variables,
    )
    before = tiny_step.values(variables)
    metrics = parts.run(batch, kind=kind)
    moved = zip(before, tiny_step.values(variables), strict=True)
    return metrics, [(old - new) / testing.Descent.RATE for old, new in moved]

  def test_accumulation_of_4_equals_one_batch(self):
    """With every term, but for a discriminator that compares images."""
    config = tiny_step.adversarial(
      **{
        **_PATCHGAN,
        'model.logit_laplace': 'true',
        'losses.logit_laplace': 0.2,
        'losses.perceptual': 0.6,
      }
    )
    kind = 'perceptual+adversarial+r1'
    batch = tiny_step.batch(32, 8)
    whole = self._run_in_parts(config, batch, kind, 1)
    self.assertGreater(whole[0]['discriminator/r1'], 0.0)
    summed = self._run_in_parts(config, batch, kind, 4)
    for one, other in zip(whole, summed, strict=True):
      self.assertAllClose(one, other, rtol=1e-3, atol=1e-4)

  def test_accumulation_with_minibatch_stddev(self):
    """Micro-batches of whole groups of 4 differ in who is in a group only.

    A batch of 8 has the groups of even and of odd images; two micro-batches
    have one each.
    """
    config, batch = tiny_step.adversarial(), tiny_step.batch(16, 8)
    kind = 'adversarial+r1'
    whole = self._run_in_parts(config, batch, kind, 1)
    grouped = {
      name: tf.concat([value[::2], value[1::2]], axis=0)
      for name, value in batch.items()
    }
    summed = self._run_in_parts(config, grouped, kind, 2)
    for one, other in zip(whole, summed, strict=True):
      self.assertAllClose(one, other, rtol=1e-3, atol=1e-3)
    # In smaller groups the logits are others, so there it cannot hold.
    metrics, _ = self._run_in_parts(config, grouped, kind, 4)
    self.assertAllClose(metrics['l2'], whole[0]['l2'], rtol=1e-4)
    self.assertNotAllClose(
      metrics['discriminator/real_logits'],
      whole[0]['discriminator/real_logits'],
      rtol=1e-3,
    )


class ReplicasTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.parameters('initialize+adversarial+r1', 'revive')
  def test_two_replicas_equal_one(self, kind):
    config = tiny_step.adversarial(**_PATCHGAN)
    config = dataclasses.replace(
      config,
      optimizer=OptimizerConfig(learning_rate=1e-3, ema_decay=0.5),
    )
    batch, used = tiny_step.batch(32), [0, 3, 4, 5, 7]
    one = tiny_step.Parts(config, average=True)
    strategy = _two_replicas()
    with strategy.scope():
      two = tiny_step.Parts(config, average=True)
    for step in (one.step, two.step):  # Of the steps before, for a revival.
      counts = tf.one_hot(used, config.model.codebook_size)
      step.checkpoint_contents()['usage'].counts.assign(
        tf.reduce_sum(counts, axis=0)
      )
    before = one.model.quantizer.codebook.numpy()
    expected = one.run(batch, kind=kind)
    data = (
      tf.data.Dataset.from_tensors(batch)
      .unbatch()
      .batch(8, drop_remainder=True)
    )
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
      tf.data.experimental.AutoShardPolicy.OFF
    )
    halves = next(
      iter(strategy.experimental_distribute_dataset(data.with_options(options)))
    )

    # Op by op, as `one`; replicas_test has graphs of whole runs.
    found = strategy.run(
      lambda part: two.step.replica_step(kind, part, tf.constant(0)),
      args=(halves,),
    )
    metrics = {
      name: strategy.reduce('SUM', value, axis=None)
      for name, value in found.items()
    }
    self.assertAllClose(metrics, expected, rtol=1e-3, atol=1e-5)
    for model, other in (
      (one.model, two.model),
      (one.average, two.average),
      (one.discriminator, two.discriminator),
    ):
      for a, b in zip(model.variables, other.variables, strict=True):
        # Adam turns rounding errors of tiny gradients into whole steps.
        self.assertAllClose(a, b, atol=2.1e-3, msg=a.name)
    # Both replicas hold the same codes, to the bit.
    for model in (two.model, two.average):
      first, second = strategy.experimental_local_results(
        model.quantizer.codebook
      )
      self.assertAllEqual(first, second)
    if kind == 'revive':
      codebook = one.model.quantizer.codebook.numpy()
      moved = np.abs(codebook - before).max(axis=1)
      stayed = np.isin(np.arange(len(moved)), used)
      self.assertAllLess(moved[stayed], 2e-3)  # By Adam alone.
      self.assertAllGreater(moved[~stayed], 0.01)
      self.assertEqual(metrics['codes_replaced'], len(moved) - len(used))


if __name__ == '__main__':
  testing.main()
