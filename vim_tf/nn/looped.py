"""A stack of equal blocks as one loop over their stacked weights.

For programs that XLA compiles as a whole: two dozen blocks in a row are two
dozen times the program, and half an hour of compilation. The loop holds the
block once in each direction. What is kept between the passes is each block's
input; the backward pass computes the rest again, within its own loop, where no
compiler takes it for what the first one computed.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib

import tensorflow as tf


def run(
  function: Callable[[tf.keras.layers.Layer, tf.Tensor, tf.Tensor], tf.Tensor],
  blocks: Sequence[tf.keras.layers.Layer],
  x: tf.Tensor,
) -> tf.Tensor:
  """Applies blocks one after the other.

  Args:
    function: From a block, its input and its index (int32 scalar) to its
      output, of the input's shape and type. It is traced for the first block,
      which has the weights of another one for as long, as tensors.
    blocks: Built layers of one kind and the same sizes.
    x: Input of the first one.

  Returns:
    The output of the last one.

  Raises:
    ValueError: If a weight of a block is no attribute of a layer within it.
  """
  places = _places(blocks[0])
  weights = [
    tf.stack([_read(*place) for place in row])
    for row in zip(*map(_places, blocks), strict=True)
  ]

  def step(x, weights, index):
    with _standing_in(places, weights):
      return function(blocks[0], x, index)

  return _loop(step, x, weights)


def _loop(step, x, weights):
  """`x = step(x, [w[i] for w in weights], i)` for each i."""
  count = weights[0].shape[0]

  def each(body, start, **kwargs):
    return tf.while_loop(
      lambda i, *_: i < count,
      lambda i, *rest: (i + 1, *body(i, *rest)),
      (tf.constant(0), *start),
      maximum_iterations=count,
      **kwargs,
    )[1:]

  def array(like):
    return tf.TensorArray(like.dtype, count, element_shape=like.shape)

  @tf.custom_gradient
  def call(x, *weights):
    # No tape looks into the loop, though it lies within one: `gradient` tells.
    unseen = [tf.stop_gradient(w) for w in weights]

    def forward(i, x, inputs):
      return step(x, [w[i] for w in unseen], i), inputs.write(i, x)

    y, inputs = each(forward, (tf.stop_gradient(x), array(x)))
    inputs = inputs.stack()

    def gradient(dy):
      def backward(i, dy, *found):
        i = count - 1 - i
        sources = [inputs[i], *(w[i] for w in weights)]
        with tf.GradientTape() as tape:
          tape.watch(sources)
          y = step(sources[0], sources[1:], i)
        dx, *new = tape.gradient(
          y, sources, dy, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return dx, *(a.write(i, g) for a, g in zip(found, new, strict=True))

      arrays = [array(w[0]) for w in weights]
      dx, *found = each(backward, (dy, *arrays))
      return dx, *(a.stack() for a in found)

    return y, gradient

  return call(x, *weights)


def _places(block) -> list[tuple[tf.keras.layers.Layer, str]]:
  """Where the weights of a block are: layers, and names of attributes."""
  found = [
    (layer, name)
    for layer in (block, *block.submodules)
    for name, value in vars(layer).items()
    if isinstance(value, tf.Variable)
  ]
  here = {id(getattr(*place)) for place in found}
  for weight in block.weights:
    if id(weight) not in here:
      raise ValueError(
        f'{weight.name} is no attribute of a layer of {block.name}.'
      )
  return found


def _read(layer, name) -> tf.Tensor:
  """A weight as its layer reads it."""
  weight = getattr(layer, name)
  # Keras casts those variables to the layer's type that have another one.
  cast = hasattr(weight, 'true_dtype')
  return tf.cast(weight, layer.compute_dtype if cast else weight.dtype)


@contextlib.contextmanager
def _standing_in(places, tensors) -> Iterator[None]:
  """Puts tensors where layers have their weights, unseen by Keras."""
  before = [vars(layer)[name] for layer, name in places]
  for (layer, name), tensor in zip(places, tensors, strict=True):
    vars(layer)[name] = tensor
  try:
    yield
  finally:
    for (layer, name), weight in zip(places, before, strict=True):
      vars(layer)[name] = weight
