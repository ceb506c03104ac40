"""Programs of the paper's sizes, without memory for their weights.

Inside `no_weights` every variable is of its shape and type, and all of it is
pages that the system has promised but never given, because nobody reads them.
A function over such variables can be traced and lowered by XLA, which looks at
shapes alone. Running it would ask for the memory.
"""

from collections.abc import Callable
import contextlib
import mmap

import numpy as np
import tensorflow as tf

_MAP_NORESERVE = 0x4000  # Of Linux; the module `mmap` has it from 3.13 on.


@contextlib.contextmanager
def no_weights():
  """Variables made inside take no memory."""
  with tf.variable_creator_scope(_promise):
    yield


def _promise(next_creator, **kwargs):
  """Makes a variable of zeros that take no memory."""
  initial_value, shape = kwargs['initial_value'], kwargs.get('shape')
  dtype = kwargs.get('dtype')
  if shape is None or dtype is None:
    value = initial_value() if callable(initial_value) else initial_value
    value = tf.convert_to_tensor(value, dtype)
    shape, dtype = value.shape, value.dtype
  shape, dtype = tf.TensorShape(shape).as_list(), tf.as_dtype(dtype)
  count = int(np.prod(shape, dtype=np.int64))
  pages = mmap.mmap(
    -1,
    max(1, count * dtype.size),
    flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE,
  )
  zeros = np.frombuffer(pages, dtype.as_numpy_dtype, count).reshape(shape)
  # DLPack takes an array as it is, where TensorFlow would copy it.
  return next_creator(
    **{
      **kwargs,
      'initial_value': tf.experimental.dlpack.from_dlpack(zeros.__dlpack__()),
      'shape': None,
      'dtype': None,
    }
  )


def lower(function: Callable, specs: tuple) -> str:
  """A function's program in XLA's language, for given shapes.

  Args:
    function: What a replica runs.
    specs: `tf.TensorSpec`s of its arguments, in any structure.
  """

  def flat(*arguments):
    return function(*tf.nest.pack_sequence_as(specs, arguments))

  compiled = tf.function(flat, jit_compile=True, autograph=False)
  return compiled.experimental_get_compiler_ir(*tf.nest.flatten(specs))(
    stage='hlo'
  )
