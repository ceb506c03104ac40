"""From logits to one code an example: temperature, top-k, top-p, guidance.

Every setting is one value an EXAMPLE, and each example brings its own
uniform number, so that what it draws does not depend on who shares its batch.
"""

import dataclasses

import tensorflow as tf

from vim_tf.config import ConfigError


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
  """How codes are drawn; the paper uses the defaults (section 4.1).

  Attributes:
    temperature: Divides the logits; 0 always takes the likeliest code.
    top_k: Draws from the k likeliest codes only; 0: from all.
    top_p: Draws from the fewest codes that hold this share of the
      probability (Holtzman et al., 2020), after top_k; in (0, 1].
    guidance_scale: Classifier-free guidance (Ho & Salimans, 2021): 1 is
      none, 0 ignores the class, above 1 stresses it.
  """

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0
  guidance_scale: float = 1.0

  def __post_init__(self):
    for name, fits, right in (
      ('temperature', self.temperature >= 0, 'at least 0'),
      ('top_k', self.top_k >= 0, 'at least 0'),
      ('top_p', 0 < self.top_p <= 1, 'in (0, 1]'),
      ('guidance_scale', self.guidance_scale >= 0, 'at least 0'),
    ):
      if not fits:
        raise ConfigError(
          f'{name} is {getattr(self, name)}, but must be {right}.'
        )


def guide(
  conditional: tf.Tensor, unconditional: tf.Tensor, scale: tf.Tensor
) -> tf.Tensor:
  """Classifier-free guidance.

  Args:
    conditional: Logits given the class, `[batch, codebook_size]`.
    unconditional: Logits without a class, of the same shape.
    scale: `[batch]`; exactly `conditional` comes back at 1.

  Returns:
    Logits `[batch, codebook_size]`.
  """
  return conditional + (scale[:, None] - 1.0) * (conditional - unconditional)


def draw(
  logits: tf.Tensor,
  uniforms: tf.Tensor,
  temperature: tf.Tensor,
  top_k: tf.Tensor,
  top_p: tf.Tensor,
) -> tf.Tensor:
  """Draws one code an example by inverting the cumulative distribution.

  Args:
    logits: float32 `[batch, codebook_size]`.
    uniforms: float32 `[batch]` in [0, 1).
    temperature: float32 `[batch]`.
    top_k: int32 `[batch]`; 0: no limit.
    top_p: float32 `[batch]`.

  Returns:
    int32 `[batch]`.
  """
  size = logits.shape[-1]
  logits = logits / tf.maximum(temperature, 1e-6)[:, None]
  ordered, order = tf.math.top_k(logits, k=size)
  ranks = tf.range(size)[None]
  k = tf.where(top_k > 0, top_k, size)[:, None]
  probabilities = tf.where(ranks < k, tf.nn.softmax(ordered), 0.0)
  cumulative = tf.cumsum(probabilities, axis=-1)
  # A code stays if those before it hold less than top_p of what top_k left.
  held_before = cumulative - probabilities
  total = cumulative[:, -1:]
  stays = (held_before < top_p[:, None] * total) & (ranks < k)
  probabilities = tf.where(stays, probabilities, 0.0)
  cumulative = tf.cumsum(probabilities, axis=-1)
  target = uniforms[:, None] * cumulative[:, -1:]
  rank = tf.reduce_sum(tf.cast(cumulative <= target, tf.int32), axis=-1)
  # Rounding may push a target past the last code that stays.
  rank = tf.minimum(rank, tf.reduce_sum(tf.cast(stays, tf.int32), -1) - 1)
  rank = tf.where(temperature > 0, rank, 0)
  return tf.gather(order, rank, batch_dims=1)
