"""A dense layer whose weights can be read once for many small products."""

from collections.abc import Iterator
import contextlib
import contextvars
import math

import tensorflow as tf

_HELD = contextvars.ContextVar('held', default=None)


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class HeldDense(tf.keras.layers.Dense):
  """Keras's layer without an activation; see `held_weights`."""

  def call(self, inputs):
    held = _HELD.get() or {}
    if self not in held:
      return super().call(inputs)
    kernel, bias = map(tf.convert_to_tensor, held[self])
    # Two dimensions and a bias: what TensorFlow fuses, and then can pack once.
    rows = tf.reshape(inputs, [-1, inputs.shape[-1]])
    rows = tf.nn.bias_add(tf.matmul(rows, kernel), bias)
    return tf.reshape(rows, [-1, *inputs.shape[1:-1], self.units])


@contextlib.contextmanager
def held_weights(
  model: tf.keras.layers.Layer, frozen: bool = False
) -> Iterator[None]:
  """Lets dense layers compute with weights that were read and cast before.

  It is for loops that are traced within it and apply them many times, to few
  rows each. Reading the weights is most of the work then.

  Args:
    model: What has the layers.
    frozen: Whether the graph of the loop holds the weights as constants, as
      they are now. In bfloat16 TensorFlow packs constants once, but tensors at
      each call, which takes longer than a product with few rows. A graph
      cannot exceed 2 GB, and is copied many times while it is made.
  """
  token = _HELD.set(
    {layer: _weights(layer, frozen) for layer in _dense_layers(model)}
  )
  try:
    yield
  finally:
    _HELD.reset(token)


def dense_bytes(model: tf.keras.layers.Layer) -> int:
  """Size of all dense layers' weights in the type of the computation."""
  return sum(
    math.prod(layer.kernel.shape) * tf.as_dtype(layer.compute_dtype).size
    for layer in _dense_layers(model)
  )


def _dense_layers(model):
  return [layer for layer in model.submodules if isinstance(layer, HeldDense)]


def _weights(layer, frozen):
  """Kernel and bias; of frozen ones, the kernel is an array."""
  with tf.init_scope() if frozen else contextlib.nullcontext():
    bias = layer.bias if layer.use_bias else tf.zeros([layer.units])
    kernel, bias = (
      tf.cast(tf.convert_to_tensor(value), layer.compute_dtype)
      for value in (layer.kernel, bias)
    )
    # A bias that was a constant of zeros would be left out, and with it the
    # fusion of product and bias, without which nothing is packed once.
    return (kernel.numpy() if frozen else kernel), bias
