"""From logits to one code an example: temperature, top-k, top-p, guidance.

Every setting is one value an EXAMPLE, and each example brings its own
uniform numbers, so that what it draws does not depend on who shares its batch.
"""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from vim_tf.config import ConfigError
from vim_tf.nn import randomness

SCHEDULES = ('constant', 'linear', 'cosine')


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
    guidance_schedule: How the scale goes over the positions of an image:
      'constant'; or from 1 at the first code to `guidance_scale` at the last,
      'linear' (Chang et al., 2023) or as a 'cosine' (Gao et al., 2023; Yu et
      al., 2024), which rises late.
    guidance_power: Exponent of the position within 'linear' and 'cosine':
      above 1 they rise later, below 1 sooner.
  """

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0
  guidance_scale: float = 1.0
  guidance_schedule: str = 'constant'
  guidance_power: float = 1.0

  def __post_init__(self):
    for name, fits, right in (
      ('temperature', 0 <= self.temperature < math.inf, 'finite, at least 0'),
      ('top_k', self.top_k >= 0, 'at least 0'),
      ('top_p', 0 < self.top_p <= 1, 'in (0, 1]'),
      (
        'guidance_scale',
        0 <= self.guidance_scale < math.inf,
        'finite, at least 0',
      ),
      (
        'guidance_schedule',
        self.guidance_schedule in SCHEDULES,
        f'one of {", ".join(SCHEDULES)}',
      ),
      (
        'guidance_power',
        0 < self.guidance_power < math.inf,
        'finite, above 0',
      ),
    ):
      if not fits:
        raise ConfigError(
          f'{name} is {getattr(self, name)}, but must be {right}.'
        )

  def guidance_scales(self, num_codes: int) -> np.ndarray:
    """The guidance scale of each code, float32 `[num_codes]`.

    A scale of 1 is exactly 1 at every position, whatever the schedule.
    """
    progress = np.linspace(0.0, 1.0, num_codes) ** self.guidance_power
    share = {
      'constant': np.ones([num_codes]),
      'linear': progress,
      'cosine': (1.0 - np.cos(np.pi * progress)) / 2.0,
    }[self.guidance_schedule]
    return np.float32(1.0 + (self.guidance_scale - 1.0) * share)


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
