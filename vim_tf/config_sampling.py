"""How codes are drawn, in numbers."""

import dataclasses
import math

import numpy as np

from vim_tf.config_checks import ConfigError

SCHEDULES = ('constant', 'linear', 'cosine')
CLASS_MIXES = ('data', 'equal')


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
