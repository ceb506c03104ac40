"""Tests of FactoredAdam: AdamW with both savings off, and what each costs."""

import json
import math
import os

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import testing
from vim_tf.config import OptimizerConfig
from vim_tf.training import adafactor, optimizers

_SHAPES = {'kernel': [6, 8], 'filter': [2, 5, 7], 'bias': [8]}
_SWITCHES = [(False, False), (False, True), (True, False), (True, True)]


def _variables(shapes=None, seed=0):
  rng = np.random.default_rng(seed)
  return [
    tf.Variable(rng.normal(size=shape).astype(np.float32), name=name)
    for name, shape in (shapes or _SHAPES).items()
  ]


def _gradients(count, shapes=None, seed=1):
  """`count` times one gradient a variable; columns of very different sizes."""
  rng = np.random.default_rng(seed)
  shapes = list((shapes or _SHAPES).values())
  sizes = [10.0 ** rng.uniform(-3, 1, s[-1:]) for s in shapes]
  return [
    [
      (size * rng.normal(size=s)).astype(np.float32)
      for s, size in zip(shapes, sizes)
    ]
    for _ in range(count)
  ]


def _make(variables, learning_rate=0.01, **kwargs):
  """With matrices of any size large, unless told otherwise."""
  kwargs = {'min_size': 2, **kwargs}
  optimizer = adafactor.FactoredAdam(learning_rate, **kwargs)
  optimizer.build(variables)
  return optimizer


def _apply(optimizer, variables, gradients):
  gradients = [
    g if isinstance(g, tf.IndexedSlices) else tf.constant(g) for g in gradients
  ]
  optimizer.apply_gradients(zip(gradients, variables))


def _state_bytes(optimizer) -> int:
  return sum(
    variable.shape.num_elements() * variable.dtype.size
    for variable in optimizer.variables
  )


def _second_moment(optimizer, variable):
  """The moving average of squared gradients, as it is held."""
  slots = optimizer._slots[optimizer._index_dict[optimizer._var_key(variable)]]
  return tf.square(math.prod(optimizer._roots(slots)))


def _first_moment(optimizer, variable):
  """The moving average of gradients, as it is held."""
  slots = optimizer._slots[optimizer._index_dict[optimizer._var_key(variable)]]
  if 'm' in slots:
    return tf.convert_to_tensor(slots['m'])
  update = tf.cast(slots['codes'], tf.float32) * slots['scale']
  return update * (math.prod(optimizer._roots(slots)) + optimizer.epsilon)


def _moments(gradients, beta_1=0.9, beta_2=0.96):
  """Both moments after a variable's gradients, in float64, by definition."""
  m = v = 0.0
  for gradient in gradients:
    gradient = gradient.astype(np.float64)
    m = beta_1 * m + (1 - beta_1) * gradient
    v = beta_2 * v + (1 - beta_2) * gradient**2
  return m, v


class AdamTest(tf.test.TestCase):
  """With both savings off."""

  def test_equals_adamw(self):
    schedule = tf.keras.optimizers.schedules.CosineDecay(
      0.0, 20, warmup_target=0.05, warmup_steps=5
    )
    settings = {'beta_1': 0.9, 'beta_2': 0.96, 'weight_decay': 0.3}
    ours, theirs = _variables(), _variables()
    start = [v.numpy() for v in ours]
    optimizer = adafactor.FactoredAdam(
      schedule, factored=False, low_precision=False, min_size=1, **settings
    )
    adamw = tf.keras.optimizers.AdamW(schedule, jit_compile=False, **settings)
    optimizer.exclude_from_weight_decay(var_list=ours[2:])
    adamw.exclude_from_weight_decay(var_list=theirs[2:])
    optimizer.build(ours)
    adamw.build(theirs)
    for gradients in _gradients(20):
      # Rows of an embedding, one of them looked up twice.
      gradients[0] = tf.IndexedSlices(
        tf.constant(gradients[0][:3]), tf.constant([4, 1, 4]), [6, 8]
      )
      _apply(optimizer, ours, gradients)
      _apply(adamw, theirs, gradients)
      for one, other in zip(ours, theirs):
        self.assertAllClose(one, other, rtol=1e-6, atol=1e-6)
    for one, before in zip(ours, start):
      self.assertGreater(np.abs(one.numpy() - before).max(), 0.1)


class FactoredTest(tf.test.TestCase):
  """The second moment of large matrices."""

  def test_by_numpy(self):
    """Moments and weights are those of the formulas, in float64."""
    variables, steps = _variables(), _gradients(6)
    weights = [v.numpy().astype(np.float64) for v in variables]
    optimizer = _make(variables, 0.01, low_precision=False)
    for count, gradients in enumerate(steps, 1):
      _apply(optimizer, variables, gradients)
      for i, variable in enumerate(variables):
        m, v = _moments([g[i] for g in steps[:count]])
        if v.ndim > 1:
          rows, columns = v.mean(-1, keepdims=True), v.mean(-2, keepdims=True)
          v = rows * columns / rows.mean(-2, keepdims=True)
        self.assertAllClose(_first_moment(optimizer, variable), m, rtol=1e-5)
        self.assertAllClose(_second_moment(optimizer, variable), v, rtol=1e-5)
        weights[i] -= (
          0.01 * (m / (1 - 0.9**count)) / (np.sqrt(v / (1 - 0.96**count)))
        )
        self.assertAllClose(variable, weights[i], rtol=1e-4, atol=1e-4)

  def test_small_matrices_are_kept_whole(self):
    shapes = {'large': [8, 9], 'flat': [7, 9], 'thin': [9, 7], 'bias': [64]}
    optimizer = _make(_variables(shapes), min_size=8)
    found = [(v.shape.as_list(), v.dtype) for v in optimizer.variables[1:]]
    expected = [
      ([8, 9], tf.int8),
      ([8, 1], tf.float32),
      ([8], tf.float32),
      ([9], tf.float32),
    ]
    for name in ('flat', 'thin', 'bias'):
      expected += [(shapes[name], tf.float32)] * 2
    self.assertEqual(found, expected)

  def test_zero_gradients(self):
    """Rows, columns and whole matrices that get none stay where they are."""
    variables = _variables()
    before = [v.numpy() for v in variables]
    optimizer = _make(variables)
    gradients = [np.zeros(s, np.float32) for s in _SHAPES.values()]
    gradients[0][:3, 2:] = 1.0
    for _ in range(3):
      _apply(optimizer, variables, gradients)
    self.assertAllEqual(variables[1], before[1])
    self.assertAllEqual(variables[0][3:], before[0][3:])
    self.assertAllEqual(variables[0][:, :2], before[0][:, :2])
    self.assertAllClose(variables[0][:3, 2:], before[0][:3, 2:] - 0.03)


class LowPrecisionTest(parameterized.TestCase, tf.test.TestCase):
  """The first moment of large matrices."""

  @parameterized.parameters(False, True)
  def test_rounding_error(self, factored):
    """Within 1/127 of the row's largest update, in units of updates."""
    variables = _variables()
    optimizer = _make(variables, factored=factored)
    last = [np.zeros(s) for s in _SHAPES.values()]
    for gradients in _gradients(20):
      _apply(optimizer, variables, gradients)
      for i, variable in enumerate(variables):
        exact = 0.9 * last[i] + 0.1 * gradients[i]
        last[i] = _first_moment(optimizer, variable).numpy().astype(np.float64)
        unit = np.sqrt(_second_moment(optimizer, variable)) + 1e-7
        error = np.abs(last[i] - exact) / unit
        largest = np.abs(exact / unit).max(-1, keepdims=True)
        bound = 1.001 / 127 if exact.ndim > 1 else 1e-6
        self.assertAllLess(error / largest, bound)
        if exact.ndim > 1:
          self.assertGreater((error / largest).max(), 0.5 / 127)

  def test_rounding_is_right_on_average(self):
    """The mean of rows that get the same gradients, against float64."""
    shapes = {'kernel': [2000, 6]}
    variables = _variables(shapes)
    optimizer = _make(variables)
    rows = [g[0][:1] for g in _gradients(30, shapes)]
    run = tf.function(lambda g: optimizer.apply_gradients([(g, variables[0])]))
    for row in rows:
      run(tf.constant(np.repeat(row, 2000, 0)))
    expected, _ = _moments(rows)
    found = _first_moment(optimizer, variables[0]).numpy()
    unit = np.sqrt(_second_moment(optimizer, variables[0])) + 1e-7
    code = np.abs(expected / unit).max() / 127
    errors = (found - expected) / unit / code  # In codes.
    self.assertAllLess(np.abs(errors.mean(0)), 0.2)
    # One row's error is some code's; their mean would be too, were it biased.
    self.assertAllGreater(errors.std(0), 0.4)
    self.assertAllLess(errors.std(0), 4.0)


class OptimizerTest(parameterized.TestCase, tf.test.TestCase):
  """What every optimizer must do."""

  def test_bytes(self):
    """A byte a weight and a little more, of Adam's eight."""

    def measure(optimizer):
      # In a graph, which allocates nothing.
      with tf.Graph().as_default():
        optimizer.build([tf.Variable(tf.zeros([1536, 6144]), name='kernel')])
        return _state_bytes(optimizer) / (1536 * 6144)

    make = adafactor.FactoredAdam
    self.assertAllClose(measure(tf.keras.optimizers.AdamW()), 8.0)
    self.assertAllClose(measure(make(factored=False, low_precision=False)), 8.0)
    self.assertBetween(measure(make(low_precision=False)), 4.0, 4.01)
    self.assertBetween(measure(make(factored=False)), 5.0, 5.01)
    self.assertBetween(measure(make()), 1.0, 1.01)

  @parameterized.parameters(*_SWITCHES)
  def test_checkpoint(self, factored, low_precision):
    """A run that is resumed goes on to the same bits."""
    switches = {'factored': factored, 'low_precision': low_precision}
    path = os.path.join(self.create_tempdir(), 'checkpoint')
    steps = _gradients(6)

    def make(seed):
      variables = _variables(seed=seed)
      optimizer = _make(variables, **switches)
      checkpoint = tf.train.Checkpoint(variables=variables, optimizer=optimizer)
      return variables, optimizer, checkpoint

    variables, optimizer, checkpoint = make(0)
    for gradients in steps[:3]:
      _apply(optimizer, variables, gradients)
    checkpoint.write(path)
    saved = [v.numpy() for v in optimizer.variables]
    again, resumed, checkpoint = make(5)
    checkpoint.read(path).assert_consumed()
    for one, other in zip(resumed.variables, saved):
      self.assertEqual(one.dtype, other.dtype)
      self.assertAllEqual(one, other)
    for gradients in steps[3:]:
      _apply(optimizer, variables, gradients)
      _apply(resumed, again, gradients)
    for one, other in zip(
      [*again, *resumed.variables], [*variables, *optimizer.variables]
    ):
      self.assertAllEqual(one, other)

  @parameterized.parameters(_SWITCHES[0], _SWITCHES[-1])
  def test_compiled(self, factored, low_precision):
    """A graph, and one under XLA, do what is done eagerly."""
    switches = {'factored': factored, 'low_precision': low_precision}
    results = []
    for wrap in (
      lambda f: f,
      tf.function,
      tf.function(jit_compile=True),
    ):
      variables = _variables()
      optimizer = _make(variables, weight_decay=0.1, **switches)

      def step(*gradients, optimizer=optimizer, variables=variables):
        optimizer.apply_gradients(zip(gradients, variables))

      step = wrap(step)
      for gradients in _gradients(6):
        step(*[tf.constant(g) for g in gradients])
      results.append([v.numpy() for v in variables])
    for result in results[1:]:
      for one, other in zip(result, results[0]):
        # Another order of sums rounds one value in very many the other way.
        self.assertAllClose(one, other, rtol=1e-5, atol=1e-5)

  def test_config(self):
    optimizer = _make(
      _variables(), 0.5, weight_decay=0.1, factored=False, clipnorm=2.0
    )
    config = optimizer.get_config()
    config['learning_rate'] = float(config['learning_rate'])
    copy = adafactor.FactoredAdam.from_config(json.loads(json.dumps(config)))
    self.assertEqual(copy.get_config(), config)
    self.assertFalse(copy.factored)


class ProjectTest(tf.test.TestCase):
  """As the training loop uses it: by name, inside a strategy."""

  def _train(self, strategy):
    """Gives each of two examples' gradients to a replica, or to one both."""
    config = OptimizerConfig(
      name='adafactor',
      learning_rate=0.01,
      beta_2=0.96,
      weight_decay=0.1,
      warmup_steps=2,
      clip_norm=4.0,
      ema_decay=0.5,
    )
    shapes = {'kernel': [128, 130], 'bias': [130]}
    halves = _gradients(4, shapes), _gradients(4, shapes, seed=2)
    with strategy.scope():
      variables, averages = _variables(shapes), _variables(shapes)
      optimizer = optimizers.Optimizer(config, variables, averages)
    replicas = strategy.num_replicas_in_sync

    @tf.function
    def step(values):
      return strategy.run(optimizer.apply, args=(values,))

    for first, second in zip(*halves):
      if replicas == 1:
        values = [tf.constant(a + b) for a, b in zip(first, second)]
      else:
        values = [
          strategy.experimental_distribute_values_from_function(
            lambda context, pair=pair: tf.constant(
              pair[context.replica_id_in_sync_group]
            )
          )
          for pair in zip(first, second)
        ]
      step(values)
    self.assertEqual(optimizer.iterations.numpy(), 4)
    for variable in [*variables, *optimizer._adam.variables]:
      copies = strategy.experimental_local_results(variable)
      self.assertLen(copies, replicas)
      for copy in copies:
        self.assertAllEqual(copy, copies[0])
    # The matrix saves room, the bias is as with Adam, and the counter.
    self.assertEqual(
      _state_bytes(optimizer._adam),
      128 * 130 + 4 * (128 + 128 + 130) + 8 * 130 + 8,
    )
    return [v.numpy() for v in [*variables, *averages]]

  def test_two_replicas_equal_one(self):
    one = self._train(tf.distribute.OneDeviceStrategy('/cpu:0'))
    # Without collectives, whose numbers other tests of the process share.
    two = self._train(
      tf.distribute.MirroredStrategy(
        ['cpu:0', 'cpu:1'], tf.distribute.ReductionToOneDevice()
      )
    )
    start = _variables({'kernel': [128, 130]})[0]
    self.assertGreater(np.abs(one[0] - start.numpy()).max(), 0.01)
    for a, b in zip(one, two):
      self.assertAllClose(a, b, atol=2e-4)
      self.assertLess(np.mean(np.abs(a - b) > 1e-5), 0.01)


if __name__ == '__main__':
  testing.main()
