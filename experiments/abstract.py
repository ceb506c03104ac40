"""Programs of the paper's sizes, without memory for their weights.

Inside `no_weights` every variable is a handle that knows its shape and type and
holds nothing. A function over such variables can be traced and lowered by XLA,
which needs no more, but not be run.
"""

from collections.abc import Callable
import contextlib

import tensorflow as tf
from tensorflow.python.ops import resource_variable_ops


@contextlib.contextmanager
def no_weights():
  """Variables made inside hold nothing."""
  with tf.variable_creator_scope(_make_handle):
    yield


def _make_handle(next_creator, **kwargs):
  del next_creator
  initial_value, shape = kwargs['initial_value'], kwargs.get('shape')
  dtype = kwargs.get('dtype')
  if shape is None or dtype is None:
    value = initial_value() if callable(initial_value) else initial_value
    value = tf.convert_to_tensor(value, dtype)
    shape, dtype = value.shape, value.dtype
  return resource_variable_ops.UninitializedVariable(
    trainable=kwargs.get('trainable', True),
    name=kwargs.get('name'),
    shape=shape,
    dtype=dtype,
    synchronization=kwargs.get(
      'synchronization', tf.VariableSynchronization.AUTO
    ),
    aggregation=kwargs.get('aggregation', tf.VariableAggregation.NONE),
  )


def lower(function: Callable, specs: tuple) -> str:
  """A function's program in XLA's language, for given shapes.

  Args:
    function: What a replica runs.
    specs: `tf.TensorSpec`s of its arguments, in any structure.
  """
  compiled = tf.function(function, jit_compile=True, autograph=False)
  return compiled.experimental_get_compiler_ir(*specs)(stage='hlo')
