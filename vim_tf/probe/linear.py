"""One softmax layer on fixed features, for several penalties at once."""

import numpy as np
import tensorflow as tf

from vim_tf.nn import layers, replicas

_SMALLEST_SCALE = 1e-2  # Of the largest standard deviation of a feature.


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class SoftmaxLayer(layers.Layer):
  """Softmax layers of one kind of features, trained side by side.

  Each has its own penalty and takes no notice of the others. They start at
  zero, which is as good as any start, because the problem is convex. They
  compute in float32, whatever the model does.

  Args:
    width: Width of the features.
    num_classes: Number of classes.
    penalties: Of each layer the factor of half its squared weights.
    **kwargs: Arguments of `tf.keras.layers.Layer`.
  """

  def __init__(
    self, width: int, num_classes: int, penalties: tuple[float, ...], **kwargs
  ):
    super().__init__(**{**kwargs, 'dtype': 'float32'})
    self.width = width
    self.num_classes = num_classes
    self.penalties = tuple(penalties)

  def build(self, input_shape=None):
    count = len(self.penalties)
    self.mean = self.add_weight(
      'mean', [self.width], initializer='zeros', trainable=False
    )
    self.scale = self.add_weight(
      'scale', [self.width], initializer='ones', trainable=False
    )
    self.kernel = self.add_weight(
      'kernel', [self.width, count, self.num_classes], initializer='zeros'
    )
    self.bias = self.add_weight(
      'bias', [count, self.num_classes], initializer='zeros'
    )
    super().build(input_shape)

  def standardize(self, mean: np.ndarray, deviation: np.ndarray):
    """Takes the statistics of the training images.

    Features come to mean 0 and variance 1 / width, so that an example has a
    length of about 1 and a penalty means the same for any width. A feature
    that hardly varies is not blown up to the size of the others.

    Args:
      mean: `[width]`.
      deviation: Standard deviations, `[width]`.
    """
    least = max(_SMALLEST_SCALE * float(np.max(deviation)), 1e-12)
    self.mean.assign(mean)
    self.scale.assign(1.0 / (np.maximum(deviation, least) * self.width**0.5))

  def normalize(self, x: tf.Tensor) -> tf.Tensor:
    """Features `[batch, width]` as the kernels take them."""
    return (tf.cast(x, tf.float32) - self.mean) * self.scale

  def call(self, x: tf.Tensor) -> tf.Tensor:
    """Features `[batch, width]` to logits `[batch, penalties, classes]`."""
    flat = tf.reshape(self.kernel, [self.width, -1])
    logits = tf.matmul(self.normalize(x), flat)
    shape = [-1, len(self.penalties), self.num_classes]
    return tf.reshape(logits, shape) + self.bias

  def penalty(self) -> tf.Tensor:
    """The penalty of each layer, `[penalties]`; biases are free."""
    squares = tf.reduce_sum(tf.square(self.kernel), axis=[0, 2])
    return 0.5 * tf.constant(self.penalties) * squares


def statistics(
  features: np.ndarray, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Mean and standard deviation of each feature.

  Args:
    features: `[passes, num_images, width]`.
    chosen: Indices of the images that count, int `[count]`.

  Returns:
    Two arrays float32 `[width]`.
  """
  total = np.zeros(features.shape[-1], np.float64)
  squares = np.zeros_like(total)
  count = 0
  shift = np.asarray(features[0, chosen[0]], np.float64)
  for one_pass in features:
    for start in range(0, len(chosen), 4096):
      x = one_pass[chosen[start : start + 4096]] - shift
      total += x.sum(axis=0)
      squares += np.square(x).sum(axis=0)
      count += len(x)
  mean = total / count
  variance = np.maximum(squares / count - mean**2, 0.0)
  return (
    (mean + shift).astype(np.float32),
    np.sqrt(variance).astype(np.float32),
  )


def accuracies(
  layer: SoftmaxLayer,
  features: np.ndarray,
  labels: np.ndarray,
  strategy: tf.distribute.Strategy | None = None,
) -> dict[str, np.ndarray]:
  """Shares of images whose class is the likeliest, or among five.

  Args:
    layer: The trained layers.
    features: `[num_images, width]`.
    labels: int `[num_images]`.
    strategy: Under whose scope the layer was made; None: none.

  Returns:
    'top1' and 'top5', each `[penalties]`; with five classes or fewer, 'top5'
    counts all but the least likely. 'right', bool `[num_images, penalties]`:
    whether the class of an image is the likeliest.
  """
  ranks = []
  compute = replicas.OnReplicas(
    layer, strategy or tf.distribute.get_strategy(), traced=False
  )
  for start in range(0, len(labels), 4096):
    part = slice(start, start + 4096)
    logits = compute(features[part])
    own = np.take_along_axis(logits, labels[part, None, None], axis=-1)
    # A tie counts against the layer, which says nothing at its start.
    ranks.append(np.sum(logits >= own, axis=-1))
  ranks = np.concatenate(ranks)
  among = min(5, layer.num_classes - 1)
  return {
    'top1': np.mean(ranks <= 1, axis=0),
    'top5': np.mean(ranks <= among, axis=0),
    'right': ranks <= 1,
  }
