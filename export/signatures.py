"""What the exported modules share: functions of named inputs and outputs."""

from collections.abc import Callable, Mapping
import types

import tensorflow as tf

from export import checks
from export.settings import DEFAULTS, Settings

SERVE = 'serving_default'
"""The signature of a request that names none."""


class SignatureModule(tf.Module):
  """Functions of fixed signatures with the weights that they use.

  Its graph holds TensorFlow's own ops alone, and each weight once, however
  many functions use it. All inputs are checked before a function gets them.

  Args:
    name: The module's name.
    settings: Those of the export.
    ranges: What numbers may be, by the names of the inputs.
    **models: Built Keras models by the names that `self.parts` shall give
      them.
  """

  def __init__(
    self,
    name: str,
    settings: Settings = DEFAULTS,
    ranges: Mapping[str, checks.Range] = types.MappingProxyType({}),
    **models: tf.keras.Model,
  ):
    super().__init__(name=name)
    # A namespace, into which TensorFlow does not look for what to save: Keras
    # models would bring functions of their own into the export.
    self.parts = types.SimpleNamespace(
      **models, settings=settings, ranges=ranges, functions={}, used=set()
    )
    self.weights = []

  @property
  def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
    """The functions by the names of their signatures."""
    return dict(self.parts.functions)

  def add(self, name: str, function: Callable, *inputs: tf.TensorSpec):
    """Adds a signature and the weights that it uses.

    Args:
      name: Its name.
      function: From tensors named as `inputs` to a dictionary of outputs.
      *inputs: Shape, type and name of each input; the batch is None.
    """

    def served(**sent: tf.Tensor):
      parts = self.parts
      most = parts.settings.max_batch_size
      return function(**checks.checked(sent, inputs, parts.ranges, most))

    served.__name__ = name  # Which an error tells.
    # Concrete, so that saving does not trace it again.
    function = tf.function(served, autograph=False).get_concrete_function(
      **{spec.name: spec for spec in inputs}
    )
    self.parts.functions[name] = function
    for variable in function.variables:
      if variable.ref() not in self.parts.used:
        self.parts.used.add(variable.ref())
        self.weights.append(variable)


def example(dtype: tf.DType, name: str, *shape: int) -> tf.TensorSpec:
  """An input of one value, or of one tensor of `shape`, for each example."""
  return tf.TensorSpec([None, *shape], dtype, name)
