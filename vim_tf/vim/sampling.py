"""From logits to one code an example: temperature, top-k, top-p, guidance.

Every setting is one value an EXAMPLE, and each example brings its own
uniform numbers, so that what it draws does not depend on who shares its batch.
"""

import numpy as np
import tensorflow as tf

from vim_tf.config import SCHEDULES as SCHEDULES
from vim_tf.config import SamplingConfig as SamplingConfig
from vim_tf.nn import randomness


def guide(
  conditional: tf.Tensor, unconditional: tf.Tensor, scale: tf.Tensor
) -> tf.Tensor:
  """Classifier-free guidance.

  Args:
    conditional: Logits given the class, `[batch, codebook_size]`.
    unconditional: Logits without a class, of the same shape.
    scale: `[batch]`; exactly `conditional` comes back at 1, and exactly
      `unconditional` at 0.

  Returns:
    Logits `[batch, codebook_size]`.
  """
  scale = scale[:, None]
  guided = conditional + (scale - 1.0) * (conditional - unconditional)
  return tf.where(scale == 0.0, unconditional, guided)


def restrict(
  logits: tf.Tensor, top_k: tf.Tensor, top_p: tf.Tensor
) -> tf.Tensor:
  """Leaves only the likeliest codes of each example.

  Args:
    logits: float32 `[batch, codebook_size]`.
    top_k: int32 `[batch]`: how many codes stay; 0: no limit.
    top_p: float32 `[batch]`: of these, the fewest that hold this share of
      their probability, at least one; 1: no limit.

  Returns:
    The logits, minus infinity where a code is left out. Codes that tie with
    the last one to stay do stay.
  """
  size = logits.shape[-1]
  ordered = tf.math.top_k(logits, k=size).values
  k = tf.where(top_k > 0, tf.minimum(top_k, size), size)[:, None]
  within_k = tf.range(size)[None] < k
  probabilities = tf.nn.softmax(tf.where(within_k, ordered, -np.inf))
  # A code stays if those before it hold less than top_p. What they hold may
  # round to 1, and the smallest top_p to 0.
  held_before = tf.cumsum(probabilities, axis=-1, exclusive=True)
  top_p = top_p[:, None]
  stays = ((held_before < top_p) | (top_p >= 1.0)) & within_k
  last = tf.reduce_sum(tf.cast(stays, tf.int32), axis=-1, keepdims=True) - 1
  lowest = tf.gather(ordered, tf.maximum(last, 0), batch_dims=1)
  return tf.where(logits >= lowest, logits, -np.inf)


def draw(
  logits: tf.Tensor,
  uniforms: tf.Tensor,
  temperature: tf.Tensor,
  top_k: tf.Tensor,
  top_p: tf.Tensor,
) -> tf.Tensor:
  """Draws one code an example: the largest of logits plus Gumbel noise.

  Rounding errors of the logits, as another batch size or a compiler makes
  them, move a draw only where two codes are as good as tied. (Inverting the
  cumulative distribution has such a place at each of its boundaries.)

  Args:
    logits: float32 `[batch, codebook_size]`.
    uniforms: float32 `[batch, codebook_size]` in [0, 1).
    temperature: float32 `[batch]`.
    top_k: int32 `[batch]`.
    top_p: float32 `[batch]`.

  Returns:
    int32 `[batch]`.
  """
  logits = logits / tf.maximum(temperature, 1e-6)[:, None]
  logits = tf.cond(
    tf.reduce_any((top_k > 0) | (top_p < 1.0)),
    lambda: restrict(logits, top_k, top_p),  # It sorts: not without need.
    lambda: logits,
  )
  share = tf.where(temperature > 0, 1.0, 0.0)[:, None]
  noisy = logits + share * randomness.gumbel(uniforms)
  return tf.argmax(noisy, axis=-1, output_type=tf.int32)
