"""What every model is made of: its base, dense layers and norms.

The weights of dense layers can be read once for many small products.
"""

from collections.abc import Iterator
import contextlib
import contextvars
import inspect
import math

import tensorflow as tf

from vim_tf import config as config_lib

_NORM_EPSILON = 1e-6

INIT_STDDEV = 0.02
"""Standard deviation of new weights, as in ViT and GPT-2.

Tried once each on an unquantised tokenizer (150 steps, one seed): this and an
output layer that starts near the data's colour gave 16.1 dB together, but
either alone 11.8 and 12.5 dB, and weights of variance 1 / fan-in 11.9 dB.
"""


class _Described:
  """Has as its config every argument of its constructor.

  Each is an attribute of its name; settings become dictionaries.
  """

  def _arguments(self) -> dict:
    found = {}
    for cls in type(self).__mro__:
      if cls in (Layer, SizedModel):
        break
      if '__init__' in vars(cls):
        _, *parameters = inspect.signature(cls.__init__).parameters.values()
        for one in parameters:
          if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            found[one.name] = _plain(getattr(self, one.name))
    return found


def _plain(value):
  """A value as JSON has it."""
  if isinstance(value, config_lib.Config):
    return config_lib.to_dict(value)
  return list(value) if isinstance(value, tuple) else value


class Layer(_Described, tf.keras.layers.Layer):
  """A layer whose constructor's arguments are its attributes, and its config.

  Where one is 'config', it is of the type `config_class`.
  """

  config_class: type = config_lib.TransformerConfig

  def get_config(self):
    return {**self._arguments(), **super().get_config()}

  @classmethod
  def from_config(cls, config):
    if 'config' in config:
      sizes = config_lib.from_dict(cls.config_class, config['config'])
      config = {**config, 'config': sizes}
    return cls(**config)


class SizedModel(_Described, tf.keras.Model):
  """A model whose `build` makes every variable without an input.

  Keras loads the weights of a saved model into what is built, and would build
  this one only if it had been built with the shape of an input. As with
  `Layer`, its constructor's arguments are its attributes.
  """

  def get_config(self):
    dtype = self.dtype_policy.name
    return {**self._arguments(), 'name': self.name, 'dtype': dtype}

  def get_build_config(self):
    return {'input_shape': None}

  def build_from_config(self, config):
    del config
    self.build()


class ConfiguredModel(SizedModel):
  """A model that is made from a config, a dataclass of all its sizes.

  Attributes:
    config: The sizes, of the type `config_class`.
    recompute: Whether Transformers recompute activations, for memory.

  Args:
    config: The sizes.
    recompute: As the attribute.
    **kwargs: Arguments of `tf.keras.Model`.
  """

  config_class: type

  def __init__(self, config, recompute: bool = False, **kwargs):
    super().__init__(**kwargs)
    self.config = config
    self.recompute = recompute

  @classmethod
  def from_config(cls, config, custom_objects=None):
    del custom_objects
    sizes = config_lib.from_dict(cls.config_class, config['config'])
    return cls(**{**config, 'config': sizes})


_DRAWN = contextvars.ContextVar('drawn', default=True)
_HELD = contextvars.ContextVar('held', default=None)


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


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class HeldDense(tf.keras.layers.Dense):
  """Keras's layer without an activation; see `held_weights`."""

  def call(self, inputs):
    held = _HELD.get() or {}
    if self not in held:
      return super().call(inputs)
    kernel, bias = map(tf.convert_to_tensor, held[self])
    # Two dimensions and a bias: what TensorFlow fuses, and then can pack once.
    return tf.nn.bias_add(tf.matmul(inputs, kernel), bias)


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
  """A built Dense layer; `stddev` and `bias` are those of its start."""
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


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class RMSNorm(tf.keras.layers.Layer):
  """Divides by the root mean square (Zhang and Sennrich, 2019), in float32."""

  def build(self, input_shape):
    self.gamma = self.add_weight('gamma', input_shape[-1:], initializer='ones')
    super().build(input_shape)

  def call(self, x: tf.Tensor) -> tf.Tensor:
    """`[..., width]` to the same, in the compute dtype."""
    x = tf.cast(x, tf.float32)
    mean = tf.reduce_mean(tf.square(x), axis=-1, keepdims=True)
    x *= tf.math.rsqrt(mean + _NORM_EPSILON) * tf.cast(self.gamma, tf.float32)
    return tf.cast(x, self.compute_dtype)


@contextlib.contextmanager
def held_weights(
  model: tf.keras.layers.Layer, frozen: bool = False
) -> Iterator[None]:
  """Lets dense layers compute with weights that were read and cast before.

  It is for loops that are traced within it and apply them many times, to a few
  rows `[rows, width]`. Reading the weights is most of the work then.

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
