"""Tests of the optimizer: rates, decay, its rules by NumPy, averages."""

import collections
import dataclasses
import importlib.util
import math
import sys
from unittest import mock

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import testing
from vim_tf import presets
from vim_tf.config import AdversarialConfig, ConfigError, OptimizerConfig
from vim_tf.training import optimizers
from vim_tf.vim import model as vim_model
from vim_tf.vit_vqgan import model as vit_vqgan_model
from vim_tf.vit_vqgan import step as step_lib

_HAS_LAMB = importlib.util.find_spec('tensorflow_addons') is not None


def _rate(config, step):
  return float(optimizers.Schedule(config)(tf.constant(step, tf.int64)))


class ScheduleTest(parameterized.TestCase, tf.test.TestCase):
  def _check(self, config, expected):
    for step, rate in expected.items():
      self.assertAllClose(
        _rate(config, step), rate, rtol=1e-5, atol=0.0, msg=f'step {step}'
      )

  def test_constant_without_warmup(self):
    self._check(OptimizerConfig(learning_rate=0.3), {0: 0.3, 10**6: 0.3})

  @parameterized.parameters(('constant', 0), ('cosine', 100))
  def test_warmup_is_linear_and_ends_at_the_peak(self, decay, end):
    config = OptimizerConfig(
      learning_rate=0.8, warmup_steps=4, decay=decay, decay_end=end
    )
    self._check(config, {0: 0.2, 1: 0.4, 2: 0.6, 3: 0.8, 4: 0.8})

  def test_cosine(self):
    config = OptimizerConfig(
      learning_rate=1.0,
      warmup_steps=10,
      decay='cosine',
      decay_start=20,
      decay_end=60,
      final_learning_rate=0.2,
    )
    fall = {
      20 + i: 0.2 + 0.8 * (1 + math.cos(math.pi * i / 40)) / 2
      for i in range(0, 41, 5)
    }
    self._check(config, {4: 0.5, 9: 1.0, 15: 1.0, **fall, 61: 0.2, 999: 0.2})

  def test_exponential(self):
    config = OptimizerConfig(
      learning_rate=1.0,
      warmup_steps=2,
      decay='exponential',
      decay_start=10,
      decay_end=20,
      final_learning_rate=0.01,
    )
    fall = {10 + i: 10.0 ** (-2 * i / 10) for i in range(11)}
    self._check(config, {0: 0.5, 1: 1.0, 9: 1.0, **fall, 21: 0.01, 99: 0.01})

  def test_decay_waits_for_warmup(self):
    config = OptimizerConfig(
      learning_rate=1.0, warmup_steps=10, decay='cosine', decay_end=20
    )
    self._check(config, {9: 1.0, 10: 1.0, 15: 0.5})
    self.assertLess(_rate(config, 20), 1e-6)

  def test_the_same_in_a_graph(self):
    config = presets.stage1('vit_vqgan_ss').optimizer
    compiled = tf.function(optimizers.Schedule(config))
    for step in (0, 60_000, 499_999):
      self.assertAllClose(
        compiled(tf.constant(step, tf.int64)), _rate(config, step), rtol=1e-6
      )


class DecaysTest(tf.test.TestCase):
  def _split(self, model):
    """How many variables of each name decay, and how many do not."""
    yes, no = collections.Counter(), collections.Counter()
    for variable in model.trainable_variables:
      name = variable.name.split(':')[0].rsplit('/', 1)[-1]
      (yes if optimizers.decays(variable) else no)[name] += 1
    return yes, no

  def test_tokenizer(self):
    model = vit_vqgan_model.ViTVQGAN(presets.stage1('tiny').model)
    model.build()
    yes, no = self._split(model)
    # Two blocks a stack, each with qkv, output and two of the MLP; a stack's
    # MLP of two; patches in and out; to and from the codes.
    self.assertEqual(yes, {'kernel': 2 * (2 * 4 + 2) + 2 + 2})
    self.assertEqual(
      set(no), {'bias', 'gamma', 'beta', 'embedding', 'codebook'}
    )
    self.assertEqual((no['embedding'], no['codebook']), (2, 1))
    self.assertFalse(optimizers.decays(model.quantizer.codebook))
    self.assertTrue(optimizers.decays(model.to_code.kernel))
    self.assertTrue(optimizers.decays(model.decoder.last_layer))

  def test_discriminators(self):
    for name, others in (
      ('stylegan2', {'bias'}),
      ('patchgan', {'bias', 'gamma', 'beta'}),
    ):
      config = AdversarialConfig(discriminator=name, channel_multiplier=1 / 128)
      yes, no = self._split(step_lib.make_discriminator(config, image_size=24))
      self.assertEqual(set(yes), {'kernel'})
      self.assertEqual(set(no), others)

  def test_vim(self):
    model = vim_model.VIM(presets.stage2('tiny').model)
    model.build()
    yes, no = self._split(model)
    self.assertEqual(yes, {'kernel': 2 * 4 + 1})
    self.assertEqual(
      set(no),
      {
        'bias',
        'gamma',
        'beta',
        'embeddings',
        'row_embedding',
        'column_embedding',
      },
    )
    self.assertEqual(no['embeddings'], 2)
    self.assertFalse(optimizers.decays(model.code_embedding.embeddings))
    self.assertTrue(optimizers.decays(model.head.kernel))


class RuleTest(parameterized.TestCase, tf.test.TestCase):
  """What moves weights along gradients, within all that surrounds it."""

  _SHAPES = {'kernel': [3, 2], 'bias': [2], 'codebook': [4, 3]}
  _CONFIG = OptimizerConfig(
    learning_rate=0.1,
    beta_2=0.96,
    weight_decay=0.5,
    warmup_steps=2,
    clip_norm=3.0,
    ema_decay=0.2,  # Reached by the third update.
  )

  def _make(self, name, strategy):
    if name == 'lamb' and not _HAS_LAMB:
      self.skipTest("today's TensorFlow has no tensorflow-addons")
    config = dataclasses.replace(self._CONFIG, name=name)
    rng = np.random.default_rng(0)
    with strategy.scope():
      variables, averages = (
        [
          tf.Variable(rng.normal(size=s).astype(np.float32), name=f'a/{kind}')
          for kind, s in self._SHAPES.items()
        ]
        for _ in range(2)
      )
      optimizer = optimizers.Optimizer(config, variables, averages)
    return optimizer, variables, averages

  def _run(self, optimizer, strategy, gradients, **kwargs):
    """The figures of each update; replicas have equal shares of gradients."""
    share = 1.0 / strategy.num_replicas_in_sync

    @tf.function(autograph=False, **kwargs)
    def step(values):
      return strategy.run(optimizer.apply, args=(values,))

    return [
      step(
        [
          strategy.experimental_distribute_values_from_function(
            lambda _, g=g: tf.constant(share * g)
          )
          for g in values
        ]
      )
      for values in gradients
    ]

  def _gradients(self):
    """Some are clipped, and some are not."""
    rng = np.random.default_rng(1)
    return [
      [
        (size * rng.normal(size=s)).astype(np.float32)
        for s in self._SHAPES.values()
      ]
      for size in (1.0, 0.1, 2.0, 0.3, 1.0)
    ]

  def _expected(self, name, weights, averages, gradients):
    """Yields weights, averages, rate and norm of each update, in float64."""
    config = self._CONFIG
    weights, averages = (
      [w.astype(np.float64) for w in values] for values in (weights, averages)
    )
    m, v = ([np.zeros_like(w) for w in weights] for _ in range(2))
    update = {'adam': self._adamw, 'lamb': self._lamb, 'muon': self._muon}[name]
    for t, step in enumerate(gradients, 1):
      rate = config.learning_rate * min(1, t / config.warmup_steps)
      norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in step))
      keep = min(config.ema_decay, t / (t + 9))
      for i, (kind, g) in enumerate(zip(self._SHAPES, step, strict=True)):
        g = g / max(1, norm / config.clip_norm)
        m[i] = config.beta_1 * m[i] + (1 - config.beta_1) * g
        v[i] = config.beta_2 * v[i] + (1 - config.beta_2) * g**2
        weights[i] = weights[i] - rate * update(
          kind, t, weights[i], g, m[i], v[i]
        )
        averages[i] = keep * averages[i] + (1 - keep) * weights[i]
      yield [*weights], [*averages], rate, norm

  def _adamw(self, kind, t, weights, gradient, m, v):
    """Loshchilov and Hutter, 2019."""
    decay = self._CONFIG.weight_decay if kind == 'kernel' else 0.0
    return self._adam(t, m, v, 1e-7) + decay * weights

  def _lamb(self, kind, t, weights, gradient, m, v):
    """You et al., 2020, algorithm 2."""
    update = self._adam(t, m, v, 1e-6)
    if kind == 'kernel':
      update = update + self._CONFIG.weight_decay * weights
    if kind == 'bias':
      return update
    return np.linalg.norm(weights) / np.linalg.norm(update) * update

  def _muon(self, kind, t, weights, gradient, m, v):
    """Newton-Schulz is a polynomial of each singular value."""
    if kind != 'kernel':
      return self._adam(t, m, v, 1e-7)
    momentum = gradient + self._CONFIG.beta_1 * (m - gradient)
    left, s, right = np.linalg.svd(momentum, full_matrices=False)
    s = s / np.linalg.norm(s)
    for _ in range(5):
      s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    update = 0.2 * np.sqrt(max(weights.shape)) * (left * s) @ right
    return update + self._CONFIG.weight_decay * weights

  def _adam(self, t, m, v, epsilon):
    config = self._CONFIG
    m, v = m / (1 - config.beta_1**t), v / (1 - config.beta_2**t)
    return m / (np.sqrt(v) + epsilon)

  @parameterized.product(
    name=['adam', 'lamb', 'muon'], jit_compile=[False, True]
  )
  def test_equals_the_rule_by_numpy(self, name, jit_compile):
    strategy = tf.distribute.OneDeviceStrategy('/cpu:0')
    optimizer, variables, averages = self._make(name, strategy)
    starts = ([v.numpy() for v in values] for values in (variables, averages))
    *_, (weights, means, *_) = expected = list(
      self._expected(name, *starts, self._gradients())
    )
    found = self._run(
      optimizer, strategy, self._gradients(), jit_compile=jit_compile or None
    )
    for figures, (_, _, rate, norm) in zip(found, expected, strict=True):
      self.assertAllClose(figures['learning_rate'], rate, rtol=1e-5)
      self.assertAllClose(figures['gradient_norm'], norm, rtol=1e-5)
    for one, other in zip(
      [*variables, *averages], [*weights, *means], strict=True
    ):
      # Muon's matrices are computed in bfloat16.
      loose = name == 'muon' and 'kernel' in one.name
      self.assertAllClose(one, other, rtol=1e-4, atol=5e-3 if loose else 1e-5)
    self.assertEqual(int(optimizer.iterations), 5)

  @parameterized.parameters('adam', 'lamb', 'muon')
  def test_replicas_and_resumed(self, name):
    """Two replicas, saved after two steps and read by another optimizer."""
    gradients = self._gradients()
    strategy = tf.distribute.OneDeviceStrategy('/cpu:0')
    whole, expected, _ = self._make(name, strategy)
    self._run(whole, strategy, gradients)
    # Without collectives, whose numbers other tests of the process share.
    strategy = tf.distribute.MirroredStrategy(
      ['cpu:0', 'cpu:1'], tf.distribute.ReductionToOneDevice()
    )
    first, variables, _ = self._make(name, strategy)
    self._run(first, strategy, gradients[:2])
    path = self.create_tempfile('ckpt').full_path
    path = tf.train.Checkpoint(optimizer=first, variables=variables).write(path)
    again, variables, _ = self._make(name, strategy)
    checkpoint = tf.train.Checkpoint(optimizer=again, variables=variables)
    checkpoint.read(path).assert_consumed()
    self._run(again, strategy, gradients[2:])
    self.assertEqual(int(again.iterations.numpy()), 5)
    for variable, one in zip(variables, expected, strict=True):
      for copy in strategy.experimental_local_results(variable):
        self.assertAllClose(copy, one, rtol=1e-5, atol=1e-6)

  def test_without_the_package(self):
    with mock.patch.dict(sys.modules, {'tensorflow_addons': None}):
      with mock.patch.dict(sys.modules):
        sys.modules.pop('tensorflow_addons.optimizers', None)
        with self.assertRaisesRegex(
          ConfigError, 'lamb.*tensorflow-addons'
        ) as e:
          self._make('lamb', tf.distribute.get_strategy())
    self.assertNotIn('\n', str(e.exception))


if __name__ == '__main__':
  testing.main()
