"""The codebook: nearest code, straight-through gradient, both VQ losses."""

import tensorflow as tf

from vim_tf.nn import layers
from vim_tf.vit_vqgan import losses


def commitment_loss(z: tf.Tensor, e: tf.Tensor) -> tf.Tensor:
  """Mean of (z - sg[e])^2 (paper 3.2): draws the encoder to its codes.

  Args:
    z: Encoder outputs as they are compared, `[batch, num_codes, code_dim]`.
    e: The code vectors chosen for them, shaped like `z`.

  Returns:
    `[batch]`; its gradient reaches `z` only. Not yet scaled by beta.
  """
  return losses.per_example(tf.math.squared_difference(z, tf.stop_gradient(e)))


def codebook_loss(z: tf.Tensor, e: tf.Tensor) -> tf.Tensor:
  """Mean of (sg[z] - e)^2 (paper 3.2): draws the codes to the encoder.

  Args:
    z: As of `commitment_loss`.
    e: Likewise.

  Returns:
    `[batch]`; its gradient reaches `e` only.
  """
  return losses.per_example(tf.math.squared_difference(tf.stop_gradient(z), e))


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class Quantizer(layers.Layer):
  """Vector quantisation with an optionally l2-normalised lookup (paper 3.2).

  With normalisation both the encoder's outputs and the code vectors are put
  on the unit sphere, so that the nearest code is that of the largest cosine.
  Everything here is float32, whatever the model computes in: distances of
  bfloat16 vectors would tie and ruin the use of the codebook.

  Args:
    codebook_size: Number of codes.
    code_dim: Width of a code vector.
    l2_normalize: Whether to compare normalised vectors.
    **kwargs: Arguments of `tf.keras.layers.Layer`.
  """

  def __init__(
    self, codebook_size: int, code_dim: int, l2_normalize: bool = True, **kwargs
  ):
    super().__init__(**{**kwargs, 'dtype': 'float32'})
    self.codebook_size = codebook_size
    self.code_dim = code_dim
    self.l2_normalize = l2_normalize

  def build(self, input_shape=None):
    self.codebook = self.add_weight(
      'codebook',
      [self.codebook_size, self.code_dim],
      initializer=tf.keras.initializers.RandomNormal(stddev=1.0),
    )
    super().build(input_shape)

  def vectors(self) -> tf.Tensor:
    """The code vectors as they are compared, `[codebook_size, code_dim]`."""
    return self._normalize(self.codebook)

  def nearest(self, z: tf.Tensor) -> tf.Tensor:
    """Index of the nearest code.

    Args:
      z: Encoder outputs `[batch, num_codes, code_dim]`.

    Returns:
      int32 `[batch, num_codes]`.
    """
    return self._nearest(self._normalize(z), self.vectors())

  def lookup(self, codes: tf.Tensor) -> tf.Tensor:
    """Code vectors of indices: `[...]` to `[..., code_dim]`, float32."""
    return tf.gather(self.vectors(), codes)

  def call(self, z: tf.Tensor, quantize: bool = True) -> dict[str, tf.Tensor]:
    """Quantises encoder outputs.

    Args:
      z: `[batch, num_codes, code_dim]`.
      quantize: False passes the (normalised) outputs on as they are and makes
        both losses 0, for a start without a codebook.

    Returns:
      A dictionary of: 'codes' int32 `[batch, num_codes]`; 'quantized'
      `[batch, num_codes, code_dim]`, whose gradient goes straight to `z`;
      'commitment' and 'codebook' `[batch]`, the losses that move the encoder
      towards its codes and the codes towards the encoder (van den Oord et
      al., 2017); 'distance' `[batch, num_codes]`, the squared distance.
    """
    z = self._normalize(tf.cast(z, tf.float32))
    vectors = self.vectors()
    codes = self._nearest(z, vectors)
    e = tf.gather(vectors, codes)
    if not quantize:
      zeros = tf.zeros_like(z[:, 0, 0])
      return {
        'codes': codes,
        'quantized': z,
        'commitment': zeros,
        'codebook': zeros,
        'distance': tf.zeros_like(z[..., 0]),
      }
    return {
      'codes': codes,
      'quantized': z + tf.stop_gradient(e - z),
      'commitment': commitment_loss(z, e),
      'codebook': codebook_loss(z, e),
      'distance': tf.stop_gradient(tf.reduce_sum(tf.square(z - e), axis=-1)),
    }

  def _normalize(self, x):
    x = tf.cast(x, tf.float32)
    # The epsilon keeps the gradient finite where an output is all zeros.
    return tf.math.l2_normalize(x, -1, 1e-12) if self.l2_normalize else x

  def _nearest(self, z, vectors):
    z, vectors = tf.stop_gradient(z), tf.stop_gradient(vectors)
    # |z - e|^2 is smallest where z.e - |e|^2 / 2 is largest.
    similarity = tf.matmul(z, vectors[None], transpose_b=True)
    if not self.l2_normalize:
      similarity -= 0.5 * tf.reduce_sum(tf.square(vectors), axis=-1)
    return tf.argmax(similarity, axis=-1, output_type=tf.int32)
