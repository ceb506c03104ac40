"""Tests of a training step of stage 1: who is moved by which loss, and when."""

import dataclasses
import functools

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import testing
from vim_tf import presets
from vim_tf.config import CodebookConfig, OptimizerConfig, Stage1Config, replace
from vim_tf.training import optimizers
from vim_tf.vit_vqgan import discriminators, gan_losses
from vim_tf.vit_vqgan import model as model_lib
from vim_tf.vit_vqgan import step as step_lib

_RATE = 0.01


class _Descent:
  """Plain gradient descent: what it changes shows the gradient itself."""

  def __init__(self, variables):
    self._variables = list(variables)

  def apply(self, gradients):
    for variable, gradient in zip(self._variables, gradients, strict=True):
      variable.assign_sub(_RATE * gradient)
    return {'gradient_norm': tf.linalg.global_norm(gradients)}


def _config(**changes) -> Stage1Config:
  """The tiny preset with one block a stack and a tiny discriminator."""
  changes = {
    'model.encoder.num_blocks': '1',
    'model.decoder.num_blocks': '1',
    'adversarial.channel_multiplier': str(1 / 128),
    **{name: str(value) for name, value in changes.items()},
  }
  return replace(presets.stage1('tiny'), changes)


def _adversarial(**changes) -> Stage1Config:
  return _config(**{'losses.adversarial': 0.5, **changes})


def _batch(size, count=8, seed=0):
  """Images of four even squares each."""
  images = np.random.default_rng(seed).uniform(size=[count, 2, 2, 3])
  images = images.repeat(size // 2, axis=1).repeat(size // 2, axis=2)
  return {
    'images': tf.constant(images, tf.float32),
    'labels': tf.zeros([count], tf.int32),  # Data have them; no step may mind.
    'seeds': tf.cast(tf.range(count), tf.uint32),
  }


def _perceptual(one, other):
  return 3.0 * tf.reduce_mean(tf.abs(one - other) ** 3, axis=[1, 2, 3])


class _Parts:
  """A step and what it trains."""

  def __init__(self, config, descent=False, average=False):
    tf.keras.utils.set_random_seed(1)
    self.config = config
    self.model = model_lib.ViTVQGAN(config.model)
    self.model.build()
    self.average = None
    if average:
      self.average = model_lib.ViTVQGAN(config.model)
      self.average.build()
      self.average.set_weights(self.model.get_weights())

    def optimizer(settings, variables, averages=None):
      if descent:
        return _Descent(variables)
      return optimizers.Optimizer(settings, variables, averages)

    self.discriminator = judge = None
    if config.losses.adversarial:
      self.discriminator = discriminators.make(
        config.adversarial, config.model.image_size, 'float32'
      )
      judge = optimizer(
        config.discriminator_optimizer, self.discriminator.trainable_variables
      )
    self.step = step_lib.TokenizerStep(
      config,
      self.model,
      optimizer(
        config.optimizer,
        self.model.trainable_variables,
        self.average.trainable_variables if average else None,
      ),
      self.average,
      _perceptual if config.losses.perceptual else None,
      self.discriminator,
      judge,
    )

  def run(self, batch, step=0, kind=None):
    """One step, op by op; its metrics as numbers."""
    kind = kind or self.step.step_kind(step)
    metrics = self.step.replica_step(kind, batch, tf.constant(step, tf.int64))
    for name, value in metrics.items():
      assert value.shape == [], name
    return {name: float(value) for name, value in metrics.items()}


@functools.cache
def _two_replicas():
  # Once: a second one would give its collectives the keys of the first.
  return tf.distribute.MirroredStrategy(['cpu:0', 'cpu:1'])


def _values(variables):
  return [variable.numpy() for variable in variables]


class StepKindTest(tf.test.TestCase):
  def _kinds(self, config, count):
    step = _Parts(config).step
    return [step.step_kind(i) for i in range(count)]

  def test_plain(self):
    config = _config(**{'codebook.init_from_data': 'false'})
    self.assertEqual(self._kinds(config, 3), ['plain'] * 3)

  def test_initialize_at_once(self):
    self.assertEqual(self._kinds(_config(), 2), ['center+initialize', 'plain'])

  def test_everything(self):
    config = dataclasses.replace(
      _adversarial(
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
    config = _adversarial(**{'adversarial.r1_gamma': 0})
    self.assertEqual(
      self._kinds(config, 2), ['center+initialize+adversarial', 'adversarial']
    )


class TokenizerStepTest(parameterized.TestCase, tf.test.TestCase):
  def test_terms_sum_to_the_loss(self):
    config = _adversarial(
      **{
        'model.logit_laplace': 'true',
        'losses.codebook': 0.7,
        'losses.commitment': 0.3,
        'losses.l2': 1.1,
        'losses.l1': 0.9,
        'losses.logit_laplace': 0.2,
        'losses.perceptual': 0.6,
      }
    )
    parts = _Parts(config, descent=True)
    metrics = parts.run(_batch(16), kind='perceptual+adversarial')
    weights = dataclasses.asdict(config.losses)
    for name in weights:
      self.assertNotAlmostEqual(metrics[name], 0.0, msg=name)
    self.assertAllClose(
      metrics['loss'],
      sum(weight * metrics[name] for name, weight in weights.items()),
      rtol=1e-5,
    )

  @parameterized.parameters('plain', 'adversarial', 'adversarial+r1')
  def test_each_network_follows_its_own_loss(self, kind):
    """Both change by the gradients of losses that are put together here."""
    config = _adversarial(**{'losses.l1': 0.3, 'adversarial.r1_gamma': 2.0})
    parts = _Parts(config, descent=True)
    batch = _batch(16)
    images = batch['images']
    model, judge = parts.model, parts.discriminator
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
        fake = judge(out['reconstruction'], training=True)
        total += 0.5 * tf.reduce_mean(generator_loss(fake))
    expected = tape.gradient(total, model.trainable_variables)
    with tf.GradientTape() as tape:
      fakes = tf.constant(out['reconstruction'].numpy())
      loss = discriminator_loss(
        judge(images, training=True), judge(fakes, training=True)
      )
      if kind == 'adversarial+r1':
        # Every r1_interval-th step alone, hence so many times as strong.
        with tf.GradientTape() as inner:
          inner.watch(images)
          logits = judge(images, training=True)
        slope = inner.gradient(logits, images)
        penalty = tf.reduce_sum(slope**2, axis=[1, 2, 3])
        loss += 2.0 / 2 * config.adversarial.r1_interval * penalty
      loss = tf.reduce_mean(loss)
    judge_expected = tape.gradient(loss, judge.trainable_variables)
    before = _values(model.trainable_variables)
    judge_before = _values(judge.trainable_variables)

    metrics = parts.run(batch, kind=kind)

    self.assertAllClose(metrics['loss'], total, rtol=1e-4)
    moved = zip(before, model.trainable_variables, expected, strict=True)
    for old, variable, gradient in moved:
      self.assertAllClose(
        (old - variable) / _RATE, gradient, 1e-3, 1e-3, variable.name
      )
    if kind == 'plain':
      self.assertAllEqual(judge_before[0], judge.trainable_variables[0])
      self.assertNotIn('discriminator/loss', metrics)
      return
    self.assertAllClose(metrics['discriminator/loss'], loss, rtol=1e-4)
    self.assertEqual('discriminator/r1' in metrics, kind.endswith('r1'))
    moved = zip(
      judge_before, judge.trainable_variables, judge_expected, strict=True
    )
    for old, variable, gradient in moved:
      self.assertAllClose(
        (old - variable) / _RATE, gradient, 1e-3, 2e-3, variable.name
      )
      if 'kernel' in variable.name:
        self.assertNotAllEqual(old, variable)

  def test_adaptive_weight(self):
    config = _adversarial(**{'adversarial.adaptive_weight': 'true'})
    parts = _Parts(config, descent=True)
    batch = _batch(16)
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

  def _run_in_parts(self, config, batch, kind, accumulate):
    """Metrics and gradients of both networks of one step of descent."""
    config = replace(config, {'optimizer.accumulate': str(accumulate)})
    parts = _Parts(config, descent=True)
    variables = (
      *parts.model.trainable_variables,
      *parts.discriminator.trainable_variables,
    )
    before = _values(variables)
    metrics = parts.run(batch, kind=kind)
    moved = zip(before, _values(variables), strict=True)
    return metrics, [(old - new) / _RATE for old, new in moved]

  @parameterized.parameters(4, 8)
  def test_accumulation_of_4_equals_one_batch(self, count):
    """With every term, but for a discriminator that compares images."""
    config = _adversarial(
      **{
        'adversarial.discriminator': 'patchgan',
        'adversarial.channel_multiplier': 1 / 32,
        'data.image_size': 32,
        'model.image_size': 32,
        'model.patch_size': 8,
        'model.logit_laplace': 'true',
        'losses.logit_laplace': 0.2,
        'losses.perceptual': 0.6,
      }
    )
    kind = 'perceptual+adversarial+r1'
    batch = _batch(32, count)
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
    config, batch = _adversarial(), _batch(16, 8)
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

  def test_center(self):
    """The first reconstructions are the mean colour of the first batch."""
    for logit_laplace in ('false', 'true'):
      parts = _Parts(_config(**{'model.logit_laplace': logit_laplace}))
      batch = _batch(16)
      color = tf.reduce_mean(batch['images'], axis=[0, 1, 2])
      expected = tf.reduce_mean((batch['images'] - color) ** 2)
      metrics = parts.run(batch, kind='center+unquantized')
      self.assertAllClose(metrics['l2'], expected, rtol=0.05)

  def test_unquantized_leaves_the_codebook_alone(self):
    config = _config(**{'codebook.init_step': 2})
    parts = _Parts(config)
    codebook = parts.model.quantizer.codebook
    before = codebook.numpy()
    others = _values(parts.model.encoder.trainable_variables)
    metrics = parts.run(_batch(16), step=0)
    self.assertEqual((metrics['codebook'], metrics['commitment']), (0.0, 0.0))
    self.assertAllEqual(codebook, before)
    self.assertNotAllClose(
      others[0], parts.model.encoder.trainable_variables[0]
    )
    metrics = parts.run(_batch(16), step=2)
    self.assertEqual(metrics['codes_replaced'], config.model.codebook_size)
    self.assertGreater(metrics['commitment'], 0.0)

  def test_revival_takes_what_was_not_used_since_the_last_one(self):
    config = _config(
      **{
        'codebook.init_from_data': 'false',
        'codebook.revival_interval': 3,
        'codebook.revival_steps': 100,
        'optimizer.learning_rate': 1e-8,
      }
    )
    parts = _Parts(config, average=True)
    size = config.model.codebook_size
    used = set()
    for step in (1, 2):
      batch = _batch(16, seed=step)
      used |= set(parts.model.encode(batch['images']).numpy().ravel())
      self.assertNotIn('codes_replaced', parts.run(batch, step=step))
    self.assertLess(len(used), size)
    codebook = parts.model.quantizer.codebook
    before = codebook.numpy()
    batch = _batch(16, seed=3)
    metrics = parts.run(batch, step=3)
    self.assertEqual(metrics['codes_replaced'], size - len(used))
    kept = np.isin(np.arange(size), list(used))
    self.assertAllClose(codebook.numpy()[kept], before[kept], atol=1e-5)
    self.assertAllGreater(np.abs(codebook.numpy() - before)[~kept].max(1), 1e-3)
    self.assertAllClose(parts.average.quantizer.codebook, codebook, atol=1e-5)
    # Counting began anew: the next revival looks at one batch alone.
    now = set(parts.model.encode(batch['images']).numpy().ravel())
    self.assertAllClose(metrics['usage'], len(now) / size)
    metrics = parts.run(_batch(16, seed=4), step=6)
    self.assertEqual(metrics['codes_replaced'], size - len(now))

  def test_overfits(self):
    config = dataclasses.replace(
      _adversarial(**{'losses.adversarial': 0.01}),
      optimizer=OptimizerConfig(learning_rate=5e-3, ema_decay=0.5),
    )
    parts = _Parts(config, average=True)
    batch = _batch(16, count=2)
    before = _values(parts.model.trainable_variables)
    judge = _values(parts.discriminator.trainable_variables)
    run = tf.function(
      lambda: parts.step.replica_step('adversarial', batch, tf.constant(0)),
      autograph=False,
    )
    found = [parts.run(batch, kind='initialize+adversarial')]
    found += [run() for _ in range(30)]
    self.assertLess(float(found[-1]['l2']), 0.5 * float(found[0]['l2']))
    self.assertLess(float(found[-1]['loss']), 0.8 * float(found[0]['loss']))
    images = batch['images']
    rebuilt = parts.average(images)['reconstruction']
    self.assertLess(
      tf.reduce_mean((images - rebuilt) ** 2), 0.5 * float(found[0]['l2'])
    )
    for old, new in zip(before, parts.model.trainable_variables, strict=True):
      self.assertNotAllEqual(old, new, new.name)
    self.assertNotAllEqual(judge[0], parts.discriminator.trainable_variables[0])

  @parameterized.parameters('revive', 'adversarial+r1')
  def test_compiles(self, kind):
    """Under XLA to the same result."""
    config = _adversarial(**{'adversarial.loss': 'hinge'})
    block = testing.transformer_config(num_blocks=1)
    config = dataclasses.replace(
      config,
      model=testing.vit_vqgan_config(
        encoder=block, decoder=block, logit_laplace=False
      ),
      data=dataclasses.replace(config.data, image_size=8),
    )
    batch = _batch(8)
    plain, compiled = (_Parts(config, descent=True) for _ in range(2))
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

  @parameterized.parameters('initialize', 'revive', 'adversarial+r1')
  def test_two_replicas_equal_one(self, kind):
    config = _adversarial(
      **{
        'adversarial.discriminator': 'patchgan',
        'adversarial.channel_multiplier': 1 / 32,
        'data.image_size': 32,
        'model.image_size': 32,
        'model.patch_size': 8,
      }
    )
    config = dataclasses.replace(
      config,
      optimizer=OptimizerConfig(learning_rate=1e-3, ema_decay=0.5),
    )
    batch, used = _batch(32), [0, 3, 4, 5, 7]
    one = _Parts(config, average=True)
    strategy = _two_replicas()
    with strategy.scope():
      two = _Parts(config, average=True)
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
  cpu = tf.config.list_physical_devices('CPU')[0]
  tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
  )
  tf.test.main()
