"""Chains of elementwise operations as one pass over the memory, both ways.

On a CPU TensorFlow goes over the memory once for every small operation, which
in training costs about as much as all matrix products. XLA makes one loop of
such a chain; its products, however, are slower than TensorFlow's, so that
nothing but elementwise work is given to it. Within a program that XLA compiles
as a whole, as on a TPU, nothing is compiled by itself: XLA fuses the chain, and
a TPU's program shall hold no other.
"""

from collections.abc import Callable

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla
from tensorflow.python.ops import control_flow_util

from vim_tf import compat


def inside_xla() -> bool:
  """Whether what is being traced is part of a program that XLA compiles.

  So is what `tf.function(jit_compile=True)` compiles, and what `TPUStrategy`
  runs on its replicas. TensorFlow has no public name for that question.
  """
  graph = tf.compat.v1.get_default_graph()
  return control_flow_util.GraphOrParentsInXlaContext(graph)


def barrier(*tensors: tf.Tensor) -> list[tf.Tensor]:
  """The same tensors, of which XLA knows nothing; only `inside_xla`.

  Nothing that hangs on them is computed beforehand, or taken for a computation
  that is there already; and none of them is there before all are.
  """
  return list(xla.optimization_barrier(*tensors))


def places(count: int) -> tf.Tensor:
  """int32 from 0 to `count` - 1, to make tables of while the program runs.

  In a compiled program every table that is known beforehand is a constant, of
  its full size, once for each place that uses it.
  """
  found = tf.range(count)
  return barrier(found)[0] if inside_xla() else found


def compiled(function: Callable) -> Callable:
  """Compiles a chain of elementwise operations to one pass.

  It is left as it is within a program that XLA compiles, and where the host
  has no XLA.

  Args:
    function: From tensors, and numbers that are the same at each call, to
      tensors; without a gradient.
  """
  if not compat.HAS_HOST_XLA:
    return function
  alone = tf.function(function, jit_compile=True, autograph=False)
  return lambda *args: (function if inside_xla() else alone)(*args)


def fused(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
  """Compiles an elementwise function, and its gradient, to one pass each.

  The gradient computes what it needs of the function again instead of keeping
  it: only the inputs stay in memory between the two passes.

  Args:
    function: From `x` and further tensors, which get no gradient, to a tensor.
      It is computed in float32 whatever the dtype of `x`, and rounded once.

  Returns:
    A function of the same arguments, whose result has the dtype of `x`.
  """

  def in_float32(x, *others):
    return tf.cast(function(tf.cast(x, tf.float32), *others), x.dtype)

  def in_float32_gradient(gradient, x, *others):
    with tf.GradientTape() as tape:
      tape.watch(x)
      y = in_float32(x, *others)
    return tape.gradient(y, x, gradient)

  forward, backward = map(compiled, (in_float32, in_float32_gradient))

  @tf.custom_gradient
  def call(x, *others):
    def gradient(dy):
      return backward(dy, x, *others), *[None] * len(others)

    return forward(x, *others), gradient

  return call
