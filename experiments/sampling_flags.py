"""The flags that say how codes are drawn and which images are kept."""

from absl import flags

from experiments import flags as flags_lib
from vim_tf.config import (
  INFERENCE_PRECISIONS,
  ConfigError,
  SamplingConfig,
  SelectionConfig,
)

PRECISION = 'precision'
"""Name of the flag that says in which numbers codes are drawn."""


def define() -> tuple[str, ...]:
  """Defines all of them; the defaults are the paper's sampling (4.1).

  Returns:
    Their names.
  """
  names = (
    *flags_lib.define(SamplingConfig, 'sampling'),
    *flags_lib.define(SelectionConfig, 'rejection'),
  )
  flags.DEFINE_enum(
    PRECISION,
    'float32',
    INFERENCE_PRECISIONS,
    '[sampling] Numbers to compute in. In float32 an image does not depend on '
    'its batch; auto: bfloat16 if a product is faster in it here.',
  )
  return (*names, PRECISION)


def selection() -> SelectionConfig:
  """Which samples are kept.

  Raises:
    ConfigError: If the rate is out of range, or a classifier was given for
      nothing.
  """
  found = flags_lib.read(SelectionConfig)
  if found.acceptance == 1 and flags.FLAGS['classifier'].present:
    raise ConfigError(
      '--classifier was given, but --acceptance is 1, at which nothing is '
      'rejected: set it below 1.'
    )
  return found
