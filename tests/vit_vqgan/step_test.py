"""Tests of a training step of stage 1: who is moved by which loss, and when."""

import dataclasses

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import testing
from tests.vit_vqgan import tiny_step
from vim_tf.config import CodebookConfig
from vim_tf.vit_vqgan import augment, gan_losses, losses


class StepKindTest(tf.test.TestCase):
  def _kinds(self, config, count):
    step = tiny_step.Parts(config).step
    return [step.step_kind(i) for i in range(count)]

  def test_plain(self):
    config = tiny_step.config(**{'codebook.init_from_data': 'false'})
    self.assertEqual(self._kinds(config, 3), ['plain'] * 3)

  def test_initialize_at_once(self):
    self.assertEqual(
      self._kinds(tiny_step.config(), 2), ['center+initialize', 'plain']
    )

  def test_everything(self):
    config = dataclasses.replace(
      tiny_step.adversarial(
        **{'adversarial.start_step': 4, 'adversarial.r1_interval': 4}
      ),
      codebook=CodebookConfig(
        init_from_data=True,
        init_step=3,
        revival_interval=2,
        revival_steps=8,
      ),
    )
    expected = [
      'center+unquantized',
      'unquantized',
      'unquantized',
      'initialize',
      'revive+adversarial+r1',
      'adversarial',
      'revive+adversarial',
      'adversarial',
      'revive+adversarial+r1',
      'adversarial',
      'adversarial',
      'adversarial',
      'adversarial+r1',
    ]
    self.assertEqual(self._kinds(config, 13), expected)
    without = dataclasses.replace(
      config, losses=dataclasses.replace(config.losses, adversarial=0.0)
    )
    self.assertEqual(
      self._kinds(without, 9),
      ['center+unquantized', 'unquantized', 'unquantized']
      + ['initialize', 'revive', 'plain', 'revive', 'plain', 'revive'],
    )

  def test_without_r1(self):
    config = tiny_step.adversarial(**{'adversarial.r1_gamma': 0})
    self.assertEqual(
      self._kinds(config, 2), ['center+initialize+adversarial', 'adversarial']
    )


class TokenizerStepTest(parameterized.TestCase, tf.test.TestCase):
  def test_terms_sum_to_the_loss(self):
    config = tiny_step.adversarial(
      **{
        'model.logit_laplace': 'true',
        'losses.codebook': 0.7,
        'losses.commitment': 0.3,
        'losses.l2': 1.1,
        'losses.l1': 0.9,
        'losses.logit_laplace': 0.2,
        'losses.logit_laplace_form': 'density',
        'losses.perceptual': 0.6,
      }
    )
    parts = tiny_step.Parts(config, descent=True)
    batch = tiny_step.batch(16)
    out = parts.model(batch['images'])
    density = losses.logit_laplace_nll(
      batch['images'], out['mu'], out['log_scale'], form='density'
    )
    metrics = parts.run(batch, kind='perceptual+adversarial')
    self.assertAllClose(
      metrics['logit_laplace'], tf.reduce_mean(density), rtol=1e-4
    )
    weights = dataclasses.asdict(config.losses)
    del weights['logit_laplace_form']
    for name in weights:
      self.assertNotAlmostEqual(metrics[name], 0.0, msg=name)
    self.assertAllClose(
      metrics['loss'],
      sum(weight * metrics[name] for name, weight in weights.items()),
      rtol=1e-5,
    )

  @parameterized.parameters(
    ('plain', False),
    ('adversarial', False),
    ('adversarial+r1', False),
    ('adversarial+r1', True),
  )
  def test_each_network_follows_its_own_loss(self, kind, augmented):
    """Both change by the gradients of losses that are put together here."""
    config = tiny_step.adversarial(
      **{
        'losses.l1': 0.3,
        'adversarial.r1_gamma': 2.0,
        'adversarial.augment': 'true' if augmented else 'false',
      }
    )
    parts = tiny_step.Parts(config, descent=True)
    batch = tiny_step.batch(16)
    images = batch['images']
    model = parts.model

    def judge(images):
      if augmented:  # Real and reconstructed images alike.
        images = augment.augment(images, batch['seeds'])
      return parts.discriminator(images, training=True)

    generator_loss, discriminator_loss = gan_losses.GAN_LOSSES['non_saturating']
    with tf.GradientTape() as tape:
      out = model(images)
      error = images - out['reconstruction']
      total = (
        tf.reduce_mean(out['codebook'])
        + 0.25 * tf.reduce_mean(out['commitment'])
        + tf.reduce_mean(error**2)
        + 0.3 * tf.reduce_mean(tf.abs(error))
      )
      if kind != 'plain':
        fake = judge(out['reconstruction'])
        total += 0.5 * tf.reduce_mean(generator_loss(fake))
    expected = tape.gradient(total, model.trainable_variables)
    with tf.GradientTape() as tape:
      fakes = tf.constant(out['reconstruction'].numpy())
      loss = discriminator_loss(judge(images), judge(fakes))
      if kind == 'adversarial+r1':
        # Every r1_interval-th step alone, hence so many times as strong.
        with tf.GradientTape() as inner:
          signed = 2 * images - 1  # As StyleGAN2's images.
          inner.watch(signed)
          logits = judge((signed + 1) / 2)
        slope = inner.gradient(logits, signed)
        penalty = tf.reduce_sum(slope**2, axis=[1, 2, 3])
        loss += 2.0 / 2 * config.adversarial.r1_interval * penalty
      loss = tf.reduce_mean(loss)
    judged = parts.discriminator.trainable_variables
    judge_expected = tape.gradient(loss, judged)
    before = tiny_step.values(model.trainable_variables)
    judge_before = tiny_step.values(judged)

    metrics = parts.run(batch, kind=kind)

    self.assertAllClose(metrics['loss'], total, rtol=1e-4)
    moved = zip(before, model.trainable_variables, expected, strict=True)
    for old, variable, gradient in moved:
      self.assertAllClose(
        (old - variable) / testing.Descent.RATE,
        gradient,
        1e-3,
        1e-3,
        variable.name,
      )
    if kind == 'plain':
      self.assertAllEqual(judge_before[0], judged[0])
      self.assertNotIn('discriminator/loss', metrics)
      return
    self.assertAllClose(metrics['discriminator/loss'], loss, rtol=1e-4)
    self.assertEqual('discriminator/r1' in metrics, kind.endswith('r1'))
    moved = zip(judge_before, judged, judge_expected, strict=True)
    for old, variable, gradient in moved:
      self.assertAllClose(
        (old - variable) / testing.Descent.RATE,
        gradient,
        1e-3,
        2e-3,
        variable.name,
      )
      if 'kernel' in variable.name:
        self.assertNotAllEqual(old, variable)

  def test_adaptive_weight(self):
    config = tiny_step.adversarial(**{'adversarial.adaptive_weight': 'true'})
    parts = tiny_step.Parts(config, descent=True)
    batch = tiny_step.batch(16)
    images, model = batch['images'], parts.model
    last = model.decoder.last_layer
    with tf.GradientTape(persistent=True) as tape:
      out = model(images)
      error = images - out['reconstruction']
      plain = tf.reduce_mean(
        out['codebook'] + 0.25 * out['commitment']
      ) + tf.reduce_mean(error**2)
      logits = parts.discriminator(out['reconstruction'], training=True)
      judged = tf.reduce_mean(
        gan_losses.GAN_LOSSES['non_saturating'][0](logits)
      )
    ratio = tf.norm(tape.gradient(plain, last)) / (
      tf.norm(tape.gradient(judged, last)) + 1e-4
    )
    metrics = parts.run(batch, kind='adversarial')
    self.assertAllClose(metrics['adaptive_weight'], ratio, rtol=1e-3)
    self.assertAllClose(
      metrics['loss'], plain + 0.5 * ratio * judged, rtol=1e-3
    )

  def test_center(self):
    """The first reconstructions are the mean colour of the first batch."""
    for logit_laplace in ('false', 'true'):
      parts = tiny_step.Parts(
        tiny_step.config(**{'model.logit_laplace': logit_laplace})
      )
      batch = tiny_step.batch(16)
      color = tf.reduce_mean(batch['images'], axis=[0, 1, 2])
      expected = tf.reduce_mean((batch['images'] - color) ** 2)
      metrics = parts.run(batch, kind='center+unquantized')
      self.assertAllClose(metrics['l2'], expected, rtol=0.05)

  def test_unquantized_leaves_the_codebook_alone(self):
    config = tiny_step.config(**{'codebook.init_step': 2})
    parts = tiny_step.Parts(config)
    codebook = parts.model.quantizer.codebook
    before = codebook.numpy()
    others = tiny_step.values(parts.model.encoder.trainable_variables)
    metrics = parts.run(tiny_step.batch(16), step=0)
    self.assertEqual((metrics['codebook'], metrics['commitment']), (0.0, 0.0))
    self.assertAllEqual(codebook, before)
    self.assertNotAllClose(
      others[0], parts.model.encoder.trainable_variables[0]
    )
    metrics = parts.run(tiny_step.batch(16), step=2)
    self.assertEqual(metrics['codes_replaced'], config.model.codebook_size)
    self.assertGreater(metrics['commitment'], 0.0)

  def test_revival_takes_what_was_not_used_since_the_last_one(self):
    config = tiny_step.config(
      **{
        'codebook.init_from_data': 'false',
        'codebook.revival_interval': 3,
        'codebook.revival_steps': 100,
        'optimizer.learning_rate': 1e-8,
      }
    )
    parts = tiny_step.Parts(config, average=True)
    size = config.model.codebook_size
    used = set()
    for step in (1, 2):
      batch = tiny_step.batch(16, seed=step)
      used |= set(parts.model.encode(batch['images']).numpy().ravel())
      self.assertNotIn('codes_replaced', parts.run(batch, step=step))
    self.assertLess(len(used), size)
    codebook = parts.model.quantizer.codebook
    before = codebook.numpy()
    batch = tiny_step.batch(16, seed=3)
    metrics = parts.run(batch, step=3)
    self.assertEqual(metrics['codes_replaced'], size - len(used))
    kept = np.isin(np.arange(size), list(used))
    self.assertAllClose(codebook.numpy()[kept], before[kept], atol=1e-5)
    self.assertAllGreater(np.abs(codebook.numpy() - before)[~kept].max(1), 1e-3)
    self.assertAllClose(parts.average.quantizer.codebook, codebook, atol=1e-5)
    # Counting began anew: the next revival looks at one batch alone.
    now = set(parts.model.encode(batch['images']).numpy().ravel())
    self.assertAllClose(metrics['usage'], len(now) / size)
    metrics = parts.run(tiny_step.batch(16, seed=4), step=6)
    self.assertEqual(metrics['codes_replaced'], size - len(now))

  @parameterized.parameters('revive', 'adversarial+r1')
  def test_compiles(self, kind):
    """Under XLA to the same result, with what a binary's flags can add."""
    config = tiny_step.adversarial(
      **{
        'adversarial.loss': 'hinge',
        'adversarial.adaptive_weight': 'true',
        'optimizer.accumulate': '2' if kind == 'revive' else '1',
      }
    )
    block = testing.transformer_config(num_blocks=1)
    config = dataclasses.replace(
      config,
      model=testing.vit_vqgan_config(
        encoder=block, decoder=block, logit_laplace=False
      ),
      data=dataclasses.replace(config.data, image_size=8),
    )
    batch = tiny_step.batch(8)
    plain, compiled = (tiny_step.Parts(config, descent=True) for _ in range(2))
    expected = plain.run(batch, kind=kind)
    run = tf.function(
      lambda: compiled.step.replica_step(kind, batch, tf.constant(0)),
      jit_compile=True,
      autograph=False,
    )
    self.assertAllClose(run(), expected, rtol=1e-3, atol=1e-5)
    for one, other in zip(
      plain.model.trainable_variables,
      compiled.model.trainable_variables,
      strict=True,
    ):
      self.assertAllClose(one, other, rtol=1e-3, atol=1e-5, msg=one.name)


if __name__ == '__main__':
  tf.test.main()
