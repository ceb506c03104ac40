"""What every exporter can be told, from Python or by flags."""

import dataclasses

from absl import flags

from experiments import flags as flags_lib
from vim_tf.config import PRECISIONS
from vim_tf.settings import Config, setting


@dataclasses.dataclass(frozen=True)
class Settings(Config):
  """What every exporter can be told.

  Raises:
    ConfigError: If one is out of range.
  """

  version: int = setting('Number of the version; 0: the next one.', 0, least=0)
  name: str = setting(
    "Name to serve the model under; '': that of the exporter.", ''
  )
  precision: str = setting(
    'What to compute in; weights stay float32.', 'float32', choices=PRECISIONS
  )
  max_side: int = setting(
    'Largest height or width of an image taken, in pixels.', 8192, least=1
  )
  max_pixels: int = setting(
    'Most pixels of an image taken.',
    2**25,  # 33.5 million: photographs have 24 to 26, some phones' 50.
    least=1,
  )
  max_scans: int = setting(
    'Most scans of a JPEG taken: each costs a pass over its pixels.',
    100,  # Encoders write about ten.
    least=1,
  )
  max_batch_size: int = setting(
    'Most examples of a batch; the server puts no more together.', 32, least=1
  )


DEFAULTS = Settings()


def define_flags():
  """Defines --base, the folder of the versions, and a flag for each setting."""
  flags.DEFINE_string(
    'base',
    None,
    '[output] Folder of the versions, BASE/<version>/; may be gs://BUCKET/PATH.',
    required=True,
  )
  flags_lib.define(Settings, 'export')


def from_flags() -> Settings:
  """The settings that the flags ask for."""
  return flags_lib.read(Settings)
