"""What every model is made of: its base, dense layers and norms."""

from collections.abc import Iterator
import contextlib
import contextvars

import tensorflow as tf

from vim_tf.nn.held_dense import HeldDense

_NORM_EPSILON = 1e-6

INIT_STDDEV = 0.02
"""Standard deviation of new weights, as in ViT and GPT-2.

Tried once each on an unquantised tokenizer (150 steps, one seed): this and an
output layer that starts near the data's colour gave 16.1 dB together, but
either alone 11.8 and 12.5 dB, and weights of variance 1 / fan-in 11.9 dB.
"""


class SizedModel(tf.keras.Model):
  """A model whose `build` makes every variable without an input.

  Keras loads the weights of a saved model into what is built, and would build
  this one only if it had been built with the shape of an input.
  """

  def get_build_config(self):
    return {'input_shape': None}

  def build_from_config(self, config):
    del config
    self.build()


_DRAWN = contextvars.ContextVar('drawn', default=True)


@contextlib.contextmanager
def undrawn_weights() -> Iterator[None]:
  """Dense layers that are built within it start at zero.

  It is for models whose weights are read right afterwards: to draw those of a
  large one takes longer than to read them.
  """
  token = _DRAWN.set(False)
  try:
    yield
  finally:
    _DRAWN.reset(token)


def dense(
  out_width: int,
  in_width: int,
  dtype,
  name: str,
  *,
  use_bias: bool = True,
  stddev: float = INIT_STDDEV,
  bias: float = 0.0,
) -> HeldDense:
  """A built Dense layer.

  Args:
    out_width: Width of the output.
    in_width: Width of the input.
    dtype: Policy of the layer.
    name: Name of the layer.
    use_bias: Whether it has a bias.
    stddev: Standard deviation of the weights at the start.
    bias: Value of the bias at the start.
  """
  drawn = tf.keras.initializers.TruncatedNormal(stddev=stddev)
  layer = HeldDense(
    out_width,
    use_bias=use_bias,
    kernel_initializer=drawn if _DRAWN.get() else 'zeros',
    bias_initializer=tf.keras.initializers.Constant(bias),
    dtype=dtype,
    name=name,
  )
  layer.build([None, in_width])
  return layer


def layer_norm(dtype, name: str) -> tf.keras.layers.LayerNormalization:
  """A LayerNorm; Keras computes its statistics in float32."""
  return tf.keras.layers.LayerNormalization(
    epsilon=_NORM_EPSILON, dtype=dtype, name=name
  )
