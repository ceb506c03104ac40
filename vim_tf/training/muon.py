"""Muon: AdamW whose updates of matrices are made orthogonal."""

import tensorflow as tf

# Of the quintic iteration of Jordan (2024): it brings singular values of 1e-3
# and more near 1 (0.7 to 1.2) in five steps, rather than exactly to 1 in more.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5
_RMS = 0.2  # Of an update by Adam, about; a learning rate serves both.


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class Muon(tf.keras.optimizers.AdamW):
  """AdamW, but a matrix moves along its orthogonalised momentum.

  The momentum is Nesterov's, of decay `beta_1` (Jordan, 2024). The update is
  scaled to the root mean square that Adam's has (Liu et al., 2025), so that
  learning rate and weight decay mean the same for matrices and for the rest.
  Dense kernels are matrices; embeddings, norms, biases and filters are not.
  """

  def update_step(self, gradient: tf.Tensor, variable: tf.Variable):
    """Updates one variable and its momentum.

    Args:
      gradient: Of the variable's shape.
      variable: One that the optimizer was built with.
    """
    if variable.shape.rank != 2 or 'kernel' not in variable.name:
      super().update_step(gradient, variable)
      return
    momentum = self._momentums[self._index_dict[self._var_key(variable)]]
    momentum.assign_add((gradient - momentum) * (1.0 - self.beta_1))
    update = gradient + (momentum - gradient) * self.beta_1
    scale = _RMS * max(variable.shape) ** 0.5
    rate = tf.cast(self.learning_rate, variable.dtype)
    variable.assign_sub(rate * scale * orthogonalized(update))


def orthogonalized(matrix: tf.Tensor) -> tf.Tensor:
  """The nearest (semi-)orthogonal matrix, roughly, by Newton-Schulz steps.

  Args:
    matrix: `[rows, columns]`.

  Returns:
    float32 of the same shape and singular vectors, whose singular values are
    about 1; those of a matrix of zeros stay 0. It is computed in bfloat16, as
    Jordan's is.
  """
  rows, columns = matrix.shape
  x = matrix / (tf.norm(matrix) + 1e-7)
  x = tf.cast(tf.transpose(x) if rows > columns else x, tf.bfloat16)
  for _ in range(_ITERATIONS):
    gram = tf.matmul(x, x, transpose_b=True)
    x = _A * x + tf.matmul(_B * gram + _C * tf.matmul(gram, gram), x)
  x = tf.cast(x, tf.float32)
  return tf.transpose(x) if rows > columns else x
