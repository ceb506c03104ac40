"""What every exporter can be told, from Python or by flags."""

import dataclasses

from absl import flags

from vim_tf.config import PRECISIONS, check_choice, check_least


def _setting(default, text: str):
  return dataclasses.field(default=default, metadata={'help': text})


@dataclasses.dataclass(frozen=True)
class Settings:
  """What every exporter can be told; `--help` says what each setting is.

  Raises:
    ConfigError: If one is out of range.
  """

  version: int = _setting(0, '[output] Number of the version; 0: the next one.')
  name: str = _setting(
    '', "[output] Name to serve the model under; '': that of the exporter."
  )
  precision: str = _setting(
    'float32',
    '[graph] Compute in float32 or bfloat16; weights stay float32.',
  )
  max_side: int = _setting(
    8192, '[graph] Largest height or width of an image taken, in pixels.'
  )
  max_pixels: int = _setting(
    2**25,  # 33.5 million: photographs have 24 to 26, some phones' 50.
    '[graph] Most pixels of an image taken.',
  )
  max_scans: int = _setting(
    100,  # Encoders write about ten.
    '[graph] Most scans of a JPEG taken: each costs a pass over its pixels.',
  )
  max_batch_size: int = _setting(
    32, '[graph] Most examples of a batch; the server puts no more together.'
  )

  def __post_init__(self):
    check_least(self, 0, 'version')
    check_choice('precision', self.precision, PRECISIONS)
    check_least(
      self, 1, 'max_side', 'max_pixels', 'max_scans', 'max_batch_size'
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
  for field in dataclasses.fields(Settings):
    define = flags.DEFINE_integer if field.type is int else flags.DEFINE_string
    define(field.name, field.default, field.metadata['help'])


def from_flags() -> Settings:
  """The settings that the flags ask for."""
  names = [field.name for field in dataclasses.fields(Settings)]
  return Settings(**{name: flags.FLAGS[name].value for name in names})
