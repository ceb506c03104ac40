"""Adam that keeps about one byte a weight where Keras's keeps eight.

The paper trains stage 2 with Adam in the form of Adafactor: a factored second
moment and an 8-bit first moment (section 5.2). The rest of Adafactor (steps
relative to the weights' size, clipped updates, a decay that changes) is not
said to be used, and is not here: with both switches off this is AdamW.
"""

from collections.abc import Sequence
import math

import tensorflow as tf

from vim_tf.nn import fusion, randomness

_LARGEST = 127.0  # Of int8, symmetric: -128 is not used.


class FactoredAdam(tf.keras.optimizers.Optimizer):
  """Adam with decoupled weight decay and small state.

  Both savings are for large matrices: variables of rank 2 or more whose last
  two dimensions are each at least `min_size`. What remains, biases and norms
  above all, keeps two float32 moments, which take little room.

  The second moment v of a matrix [..., rows, columns] is held as the moving
  averages of the squared gradient's means over columns, r [..., rows], and
  over rows, c [..., columns]. It is read as v = r c / mean(r), exact where
  the squared gradient has rank one (Shazeer and Stern, 2018, section 3).

  The first moment m is held as int8 with one float32 scale a row. What is
  rounded is m / (sqrt(v) + epsilon), the update itself but for the step size:
  rounding m would drown columns whose gradients are much smaller than the
  row's largest. So rounding errs by less than 1/127 of the row's largest
  update, and the update of the same step is made before it. The rounding is
  up or down at random, right on average: rounding to the nearest code would
  forget every gradient that moves m by less than half a code, and m would
  stall. The random numbers depend on the step and the variable's place in the
  list alone: replicas, and a run that is resumed, round alike, compiled or
  not.

  State is float32 or int8, whatever the variables' type.

  Args:
    learning_rate: A float or a schedule.
    beta_1: Decay of the first moment, in [0, 1).
    beta_2: Decay of the second moment, in [0, 1).
    epsilon: Added to the root of the second moment, as in Keras's Adam.
    weight_decay: Decoupled decay (Loshchilov and Hutter, 2019), multiplied by
      the learning rate; none if `None`. `exclude_from_weight_decay` applies.
    factored: Whether the second moment of large matrices is factored.
    low_precision: Whether the first moment of large matrices is int8.
    min_size: Smallest of the last two dimensions of a large matrix.
    jit_compile: Whether each variable's update is compiled by itself; off, as
      whoever compiles the whole step has it compiled already.
    name: The optimizer's name.
    **kwargs: Of `tf.keras.optimizers.Optimizer`, such as `clipnorm`.
  """

  def __init__(
    self,
    learning_rate=1e-3,
    beta_1: float = 0.9,
    beta_2: float = 0.96,
    epsilon: float = 1e-7,
    weight_decay: float | None = None,
    factored: bool = True,
    low_precision: bool = True,
    min_size: int = 128,
    jit_compile: bool = False,
    name: str = 'FactoredAdam',
    **kwargs,
  ):
    super().__init__(
      name=name, weight_decay=weight_decay, jit_compile=jit_compile, **kwargs
    )
    self._learning_rate = self._build_learning_rate(learning_rate)
    self.beta_1 = beta_1
    self.beta_2 = beta_2
    self.epsilon = epsilon
    self.factored = factored
    self.low_precision = low_precision
    self.min_size = min_size

  def build(self, var_list: Sequence[tf.Variable]):
    super().build(var_list)
    if getattr(self, '_built', False):
      return
    self._built = True
    # By variable: 'm', or 'codes' and 'scale'; 'v', or 'rows' and 'columns'.
    self._slots = []
    for variable in var_list:
      shape = variable.shape
      large = shape.rank >= 2 and min(shape[-2:]) >= self.min_size
      slots = {}
      if large and self.low_precision:
        slots['codes'] = self._add_slot(variable, 'codes', shape, tf.int8)
        slots['scale'] = self._add_slot(variable, 'scale', [*shape[:-1], 1])
      else:
        slots['m'] = self._add_slot(variable, 'm', shape)
      if large and self.factored:
        slots['rows'] = self._add_slot(variable, 'rows', shape[:-1])
        slots['columns'] = self._add_slot(
          variable, 'columns', [*shape[:-2], shape[-1]]
        )
      else:
        slots['v'] = self._add_slot(variable, 'v', shape)
      self._slots.append(slots)

  def update_step(self, gradient: tf.Tensor, variable: tf.Variable):
    """Updates one variable and its moments.

    Args:
      gradient: Of the variable's shape, dense or `tf.IndexedSlices`.
      variable: One that the optimizer was built with.
    """
    index = self._index_dict[self._var_key(variable)]
    slots = self._slots[index]
    gradient = tf.cast(tf.convert_to_tensor(gradient), tf.float32)
    # Read before the second moment moves: the codes are in units of its root.
    before = self._roots(slots)
    self._update_second_moment(slots, tf.square(gradient))
    after = self._roots(slots)
    if 'codes' in slots:
      update = _updates(
        gradient,
        tf.convert_to_tensor(slots['codes']),
        tf.convert_to_tensor(slots['scale']),
        before,
        after,
        self.beta_1,
        self.epsilon,
      )
      scale = tf.reduce_max(tf.abs(update), axis=-1, keepdims=True) / _LARGEST
      step = tf.convert_to_tensor(self.iterations)
      codes = _rounded(update, scale, step, tf.constant(index, tf.uint32))
      slots['codes'].assign(codes)
      slots['scale'].assign(scale)
    else:
      m = tf.convert_to_tensor(slots['m'])
      m += (gradient - m) * (1 - self.beta_1)
      slots['m'].assign(m)
      update = m / _unit(after, self.epsilon)
    # Both moments start at zero; this is Adam's correction for it.
    step = tf.cast(self.iterations + 1, tf.float32)
    correction = tf.sqrt(1 - tf.pow(self.beta_2, step))
    correction /= 1 - tf.pow(self.beta_1, step)
    rate = tf.cast(self.learning_rate, tf.float32) * correction
    variable.assign_sub(tf.cast(rate * update, variable.dtype))

  def get_config(self):
    return {
      **super().get_config(),
      'learning_rate': self._serialize_hyperparameter(self._learning_rate),
      'beta_1': self.beta_1,
      'beta_2': self.beta_2,
      'epsilon': self.epsilon,
      'factored': self.factored,
      'low_precision': self.low_precision,
      'min_size': self.min_size,
    }

  def _add_slot(self, variable, name, shape, dtype=tf.float32):
    # `add_variable_from_reference` knows the variable's own type only.
    strategy = tf.distribute.get_strategy()
    with strategy.extended.colocate_vars_with(variable):
      slot = tf.Variable(
        tf.zeros(shape, dtype),
        trainable=False,
        name=f'{name}/{variable._shared_name}',
      )
    self._variables.append(slot)
    return slot

  def _roots(self, slots) -> list[tf.Tensor]:
    """Factors of the second moment's root: its own, or of rows and columns."""
    if 'v' in slots:
      return [tf.sqrt(slots['v'])]
    rows = tf.convert_to_tensor(slots['rows'])
    mean = tf.reduce_mean(rows, axis=-1, keepdims=True)
    # Zero as long as no gradient came.
    rows = tf.sqrt(tf.math.divide_no_nan(rows, mean))
    columns = tf.sqrt(slots['columns'])
    return [rows[..., :, tf.newaxis], columns[..., tf.newaxis, :]]

  def _update_second_moment(self, slots, squared):
    if 'v' in slots:
      means = {'v': squared}
    else:
      means = {
        'rows': tf.reduce_mean(squared, axis=-1),
        'columns': tf.reduce_mean(squared, axis=-2),
      }
    for name, mean in means.items():
      slots[name].assign_add((mean - slots[name]) * (1 - self.beta_2))


def _unit(roots, epsilon):
  """What a first moment is divided by, before the bias correction."""
  return math.prod(roots) + epsilon


@fusion.compiled
def _updates(gradient, codes, scale, before, after, beta_1, epsilon):
  """What the first moment becomes, over the root of the second.

  Args:
    gradient: [..., rows, columns] float32.
    codes: int8, with `scale` the first moment so far.
    scale: [..., rows, 1] float32.
    before: Factors of the second moment's root, of which the codes are.
    after: The same, with the gradient in it.
    beta_1: Decay of the first moment.
    epsilon: Added to the roots.
  """
  m = tf.cast(codes, tf.float32) * scale * _unit(before, epsilon)
  m += (gradient - m) * (1 - beta_1)
  return m / _unit(after, epsilon)


@fusion.compiled
def _rounded(values, scale, step, index):
  """Rounds rows to 255 levels, up or down at random, right on average.

  Args:
    values: [..., columns] float32.
    scale: [..., 1] float32, the size of a level.
    step: int64 scalar, with `index` what the random numbers depend on.
    index: uint32 scalar.

  Returns:
    [..., columns] int8 codes, whose products with the scale are less than one
    scale away from the values.
  """
  seeds = tf.cast(step, tf.uint32)[tf.newaxis]
  bits = randomness.bits(seeds, tuple(values.shape), index)[0]
  # Of 16 bits, or a sum with the largest would round up to the next code.
  bits = tf.bitwise.right_shift(bits, tf.constant(16, tf.uint32))
  noise = tf.cast(bits, tf.float32) * 2.0**-16
  codes = tf.floor(tf.math.divide_no_nan(values, scale) + noise)
  return tf.cast(tf.clip_by_value(codes, -_LARGEST, _LARGEST), tf.int8)
