"""Refusals inside of a graph: which example is wrong, and why.

What fails here raises INVALID_ARGUMENT on any server that runs the graph. The
checked tensors depend on their checks, so that no op meets a bad value first.
XLA drops assertions: check outside of what it compiles.
"""

from collections.abc import Sequence
import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Range:
  """Numbers that an input may hold.

  Attributes:
    low: The lowest.
    high: The highest; not-a-number is never in range.
    above_low: Whether `low` itself is out of range.
  """

  low: float
  high: float
  above_low: bool = False

  def __str__(self):
    return f'in {"(" if self.above_low else "["}{self.low}, {self.high}]'

  def holds(self, values: tf.Tensor) -> tf.Tensor:
    """Which of `values` are in range: bool of the same shape."""
    low = tf.constant(self.low, values.dtype)
    high = tf.constant(self.high, values.dtype)
    over = values > low if self.above_low else values >= low
    return over & (values <= high)


def checked(
  inputs: dict[str, tf.Tensor],
  specs: Sequence[tf.TensorSpec],
  ranges: dict[str, Range],
  max_batch_size: int,
) -> dict[str, tf.Tensor]:
  """Checks the inputs of a signature.

  Args:
    inputs: By name, as a client sent them: TensorFlow's C++ sessions do not
      look whether a placeholder's shape is what it says.
    specs: What each of them must be, the batch first.
    ranges: For some of them, what each of its numbers must be.
    max_batch_size: Most examples.

  Returns:
    The same tensors, which are there only if all is well.

  Raises:
    tf.errors.InvalidArgumentError: If one is of another shape, the batch is
      empty or too large, the inputs' batches differ, or a number is out of
      range.
  """
  # An optimiser may believe placeholders, and fold what follows from their
  # shapes; of this op's output it knows none.
  inputs = {
    name: tf.raw_ops.PlaceholderWithDefault(input=x, shape=None)
    for name, x in inputs.items()
  }
  done = [_assert_shape(inputs[spec.name], spec) for spec in specs]
  inputs = after(done, inputs)
  inputs = {
    spec.name: tf.ensure_shape(inputs[spec.name], spec.shape) for spec in specs
  }
  inputs = after(_batch_assertions(inputs, max_batch_size), inputs)
  return after(
    [
      _assert_range(name, inputs[name], wanted)
      for name, wanted in ranges.items()
      if name in inputs
    ],
    inputs,
  )


def after(
  done: list[tf.Operation], tensors: dict[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
  """The same tensors, computed only if the assertions hold."""
  with tf.control_dependencies(done):
    return {name: tf.identity(x) for name, x in tensors.items()}


def assert_examples(problems: tf.Tensor) -> tf.Operation:
  """Fails with the first problem of an example.

  Args:
    problems: Strings `[batch]`: what is wrong with each, or ''.
  """
  bad = tf.where(problems != '')[:1, 0]
  message = tf.strings.join(
    ['example ', tf.strings.as_string(bad), ': ', tf.gather(problems, bad)]
  )
  # Joins no or one message: nothing is looked up where there is none.
  return tf.debugging.Assert(
    tf.equal(tf.size(bad), 0), [tf.strings.reduce_join(message)]
  )


def _assert_shape(values: tf.Tensor, spec: tf.TensorSpec) -> tf.Operation:
  found = tf.strings.reduce_join(
    tf.strings.as_string(tf.shape(values)), separator=', '
  )
  sides = [str(side) for side in spec.shape[1:]]
  message = [
    f'{spec.name} has the shape [',
    found,
    f'], but must have [{", ".join(["batch", *sides])}]',
  ]
  if not sides:
    message.append(': each example is one value, not a list of values')
  return tf.debugging.Assert(
    tf.strings.regex_full_match(found, ', '.join([r'\d+', *sides])),
    [tf.strings.join(message)],
  )


def _batch_assertions(
  inputs: dict[str, tf.Tensor], most: int
) -> list[tf.Operation]:
  sizes = {name: tf.shape(values)[0] for name, values in inputs.items()}
  (first, batch), *others = sizes.items()
  text = f'{first} holds {{}} examples, but '
  assertions = [
    tf.debugging.Assert(
      (batch > 0) & (batch <= most),
      [tf.strings.format(f'{text}a batch holds 1 to {most}', batch)],
    )
  ]
  for name, size in others:
    assertions.append(
      tf.debugging.Assert(
        tf.equal(size, batch),
        [tf.strings.format(f'{text}{name} holds {{}}', [batch, size])],
      )
    )
  return assertions


def _assert_range(name: str, values: tf.Tensor, wanted: Range):
  bad = tf.where(~wanted.holds(values))[:1]
  message = tf.strings.join(
    [
      'example ',
      tf.strings.as_string(bad[:, 0]),
      f': {name} is ',
      _text(tf.gather_nd(values, bad)),
      f', but must be {wanted}',
    ]
  )
  return tf.debugging.Assert(
    tf.equal(tf.shape(bad)[0], 0), [tf.strings.reduce_join(message)]
  )


def _text(values):
  if values.dtype.is_floating:
    return tf.strings.as_string(values, shortest=True)
  return tf.strings.as_string(values)
