"""The softmax layer against scikit-learn, and each of its parts."""

import math

import numpy as np
import sklearn.datasets
import sklearn.linear_model
import tensorflow as tf

from tests import testing
from vim_tf import config as config_lib
from vim_tf.config import OptimizerConfig
from vim_tf.probe import features as features_lib
from vim_tf.probe import linear, step
from vim_tf.training import optimizers
from vim_tf.vim import model as model_lib

# Weaker ones are hardly felt, and their optimum is slow to reach.
_PENALTIES = (1e-4, 1e-3, 1e-2)
_STEPS = 600


def _digits():
  """Pixels of training and held-out digits, and their labels."""
  data = sklearn.datasets.load_digits()
  order = np.random.default_rng(0).permutation(len(data.target))
  x = data.data[order].astype(np.float32)
  y = data.target[order].astype(np.int32)
  return (x[:1300], y[:1300]), (x[1300:], y[1300:])


def _vim_features(x: np.ndarray) -> np.ndarray:
  """Features of a middle block, the grey values of pixels being the codes."""
  model = model_lib.VIM(
    testing.vim_config(
      transformer=config_lib.TransformerConfig(3, 2, 32, 64),
      grid_size=8,
      codebook_size=17,
      num_classes=0,
    )
  )
  model.build()
  testing.randomize(model)
  codes = tf.constant(x, tf.int32)
  return features_lib.block_features(model, codes, 1)['block_1'].numpy()


def _train(layers, features, labels, steps=_STEPS):
  """Trains through the step of the probes, two batches an epoch."""
  optimizer = optimizers.Optimizer(
    OptimizerConfig(
      learning_rate=0.3,
      beta_2=0.999,
      weight_decay=0.0,
      decay='cosine',
      decay_end=steps,
    ),
    step.variables(layers),
  )
  trainer = step.ProbeStep(layers, optimizer)

  @tf.function(autograph=False)
  def update(batch):
    return tf.distribute.get_strategy().run(
      lambda batch: trainer.replica_step('plain', batch, tf.constant(0)),
      args=(batch,),
    )

  rng = np.random.default_rng(0)
  rows = []
  half = len(labels) // 2
  for i in range(steps):
    if i % 2 == 0:
      order = rng.permutation(len(labels))
    chosen = order[i % 2 * half :][:half]
    batch = {name: tf.constant(x[chosen]) for name, x in features.items()}
    rows.append(update({**batch, 'labels': tf.constant(labels[chosen])}))
  return rows


class OptimumTest(tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    (x, y), (shown, cls.held_out_labels) = _digits()
    # Several kinds of features at once, which do not say the same.
    cls.features, cls.held_out = (
      {'pixels': x, 'half': x[:, :32], 'vim': _vim_features(x)}
      for x in (x, shown)
    )
    cls.labels = y
    cls.layers = {
      name: linear.SoftmaxLayer(values.shape[1], 10, _PENALTIES, name=name)
      for name, values in cls.features.items()
    }
    for name, layer in cls.layers.items():
      layer.build()
      everything = np.arange(len(y))
      layer.standardize(
        *linear.statistics(cls.features[name][None], everything)
      )
    cls.rows = _train(cls.layers, cls.features, y)

  def test_is_that_of_scikit_learn(self):
    y = self.held_out_labels
    for name, layer in self.layers.items():
      shown = self.held_out[name]
      found = linear.accuracies(layer, shown, y)
      for i, penalty in enumerate(_PENALTIES):
        # Its objective is half the squares plus C times the SUM of the losses.
        reference = sklearn.linear_model.LogisticRegression(
          C=1.0 / (penalty * len(self.labels)), max_iter=2000
        ).fit(layer.normalize(self.features[name]).numpy(), self.labels)
        expected = reference.score(layer.normalize(shown).numpy(), y)
        self.assertAllClose(found['top1'][i], expected, atol=0.005)
        ours = layer(shown).numpy()[:, i]
        ours -= ours.mean(axis=-1, keepdims=True)
        theirs = reference.decision_function(layer.normalize(shown).numpy())
        theirs -= theirs.mean(axis=-1, keepdims=True)
        error = np.abs(ours - theirs).mean() / np.abs(theirs).mean()
        self.assertLess(error, 0.05, (name, penalty))

  def test_metrics(self):
    first, last = self.rows[0], self.rows[-1]
    # Nobody has trained that VIM; one in ten would be a guess.
    for name, least in (('pixels', 0.8), ('half', 0.8), ('vim', 0.3)):
      self.assertAllClose(first[f'{name}/loss'], math.log(10), atol=1e-4)
      self.assertGreater(last[f'{name}/accuracy'], least)
    means = [last[f'{name}/loss'] for name in self.layers]
    self.assertAllClose(last['loss'], np.mean(means))

  def test_layers_do_not_feel_each_other(self):
    name = 'half'
    x = {name: self.features[name]}

    def one(penalties):
      layer = linear.SoftmaxLayer(32, 10, penalties)
      layer.build()
      _train({name: layer}, x, self.labels, steps=20)
      return layer.kernel.numpy()

    both = one((1e-4, 1e-1))
    self.assertAllClose(one((1e-4,))[:, 0], both[:, 0], atol=1e-3)
    self.assertAllClose(one((1e-1,))[:, 0], both[:, 1], atol=1e-3)


class LayerTest(tf.test.TestCase):
  def test_conformance(self):
    testing.check_layer(
      self,
      lambda **kwargs: linear.SoftmaxLayer(6, 3, (0.1, 0.2), **kwargs),
      (tf.random.stateless_normal([4, 6], [1, 2]),),
    )

  def test_statistics(self):
    rng = np.random.default_rng(0)
    x = rng.normal(1e3, [1.0, 2.0, 0.0], [2, 9000, 3]).astype(np.float32)
    chosen = rng.permutation(9000)[:5000]
    mean, deviation = linear.statistics(x, chosen)
    part = x[:, chosen].reshape(-1, 3).astype(np.float64)
    self.assertAllClose(mean, part.mean(axis=0), rtol=1e-6)
    self.assertAllClose(deviation, part.std(axis=0), rtol=1e-4, atol=1e-6)

  def test_normalized_examples_have_a_length_of_one(self):
    x = np.random.default_rng(0).normal([1, 2, 3], [1, 5, 9], [5000, 3])
    x = np.concatenate([x, np.full([5000, 1], 7.0)], axis=1)  # A constant.
    layer = linear.SoftmaxLayer(4, 2, (0.1,))
    layer.build()
    layer.standardize(*linear.statistics(x[None], np.arange(5000)))
    found = layer.normalize(tf.constant(x)).numpy()
    self.assertAllClose(found.mean(axis=0), np.zeros(4), atol=1e-4)
    self.assertAllClose(found.var(axis=0), [0.25, 0.25, 0.25, 0.0], atol=1e-3)

  def test_penalty(self):
    layer = linear.SoftmaxLayer(2, 3, (0.1, 0.4))
    layer.build()
    layer.kernel.assign(tf.reshape(tf.range(12.0), [2, 2, 3]))
    squares = [0 + 1 + 4 + 36 + 49 + 64, 9 + 16 + 25 + 81 + 100 + 121]
    self.assertAllClose(layer.penalty(), [0.05 * squares[0], 0.2 * squares[1]])

  def test_accuracies(self):
    layer = linear.SoftmaxLayer(8, 8, (0.1,))
    layer.build()
    layer.kernel.assign(tf.eye(8)[:, None])
    x = -np.tile(np.arange(8.0, dtype=np.float32), [4, 1])  # 0 is likeliest.
    found = linear.accuracies(layer, x, np.array([0, 1, 4, 5], np.int32))
    self.assertAllClose(found['top1'], [0.25])
    self.assertAllClose(found['top5'], [0.75])
    self.assertAllEqual(found['right'][:, 0], [True, False, False, False])
    # Without an opinion it is right about nothing.
    found = linear.accuracies(layer, 0 * x, np.array([0, 1, 2, 3], np.int32))
    self.assertAllClose([found['top1'], found['top5']], [[0.0], [0.0]])


if __name__ == '__main__':
  tf.test.main()
