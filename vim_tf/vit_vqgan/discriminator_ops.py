"""What the discriminators share: their activation, a check of the images."""

import tensorflow as tf

_LEAKINESS = 0.2


def leaky_relu(x: tf.Tensor) -> tf.Tensor:
  """Leaky ReLU of slope 0.2."""
  # Not tf.nn.leaky_relu: Grappler fuses it with the convolution although its
  # gradient needs what lies between, fails, and drops all other fusions of the
  # graph. This form also has the faster gradient in bfloat16.
  return _LEAKINESS * x + (1.0 - _LEAKINESS) * tf.nn.relu(x)


def check_images(images: tf.Tensor, image_size: int):
  """Raises a `ValueError` if images are not `[batch, size, size, 3]`."""
  if tuple(images.shape[1:]) != (image_size, image_size, 3):
    raise ValueError(
      f'The discriminator is made for images of {image_size}x{image_size}x3, '
      f'but got {"x".join(str(n) for n in images.shape[1:])}.'
    )
