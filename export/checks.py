"""Refusals inside of a graph: which example is wrong, and why.

What fails here raises INVALID_ARGUMENT on any server that runs the graph. The
checked tensors depend on their checks, so that no op meets a bad value first.
XLA drops assertions: check outside of what it compiles.
"""

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
  inputs: dict[str, tf.Tensor], ranges: dict[str, Range]
) -> dict[str, tf.Tensor]:
  """Checks the inputs of a signature.

  Args:
    inputs: Each `[batch, ...]`, by name.
    ranges: For some of them, what each of its numbers must be.

  Returns:
    The same tensors, which are there only if all is well.

  Raises:
    tf.errors.InvalidArgumentError: If the batch is empty, the inputs' batches
      differ, or a number is out of range.
  """
  first = next(iter(inputs))
  batch = tf.shape(inputs[first])[0]
  done = [
    tf.debugging.Assert(
      batch > 0, [f'{first} is empty, but a batch holds 1 example or more']
    )
  ]
  for name, values in inputs.items():
    size = tf.shape(values)[0]
    done.append(
      tf.debugging.Assert(
        tf.equal(size, batch),
        [
          tf.strings.format(
            f'{name} holds {{}} examples, but {first} holds {{}}',
            [size, batch],
          )
        ],
      )
    )
    if name in ranges:
      done.append(_assert_range(name, values, ranges[name]))
  return after(done, inputs)


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
