"""How large the images are that an export decodes."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
  """The largest images that are decoded.

  Attributes:
    side: Height or width, in pixels.
    pixels: Height times width.
  """

  side: int = 8192
  pixels: int = 4096**2
