"""The flags that say how codes are drawn and which images are kept.

They are defined by a call, as those of `flags`, so that several binaries can
have them within one process.
"""

from absl import flags

from experiments import flags as flags_lib
from vim_tf.config import (
  INFERENCE_PRECISIONS,
  ConfigError,
  SamplingConfig,
  settings_of,
)
from vim_tf.vim import rejection

_SETTINGS = settings_of(SamplingConfig, group='sampling')

SAMPLING = tuple(one.flag for one in _SETTINGS)
"""Names of the flags of `config`."""

REJECTION = ('acceptance', 'classifier')
"""Names of the flags of rejection sampling."""

PRECISION = 'precision'
"""Name of the flag that says in which numbers codes are drawn."""

ALL = (*SAMPLING, *REJECTION, PRECISION)
"""Names of all flags that `define` defines."""


def define():
  """Defines all of them; the defaults are the paper's sampling (4.1)."""
  for one in _SETTINGS:
    if one.range.choices:
      flags.DEFINE_enum(
        one.flag, one.default, list(one.range.choices), flags_lib.help_of(one)
      )
    else:
      define = {float: flags.DEFINE_float, int: flags.DEFINE_integer}[one.type]
      define(one.flag, one.default, flags_lib.help_of(one))
  flags.DEFINE_float(
    'acceptance',
    1.0,
    '[rejection] Share of the candidates of a class that a classifier keeps, '
    'in (0, 1]; 1: no rejection (Table 6).',
  )
  flags.DEFINE_string(
    'classifier',
    'head:efficientnet_lite2',
    '[rejection] Classifier that keeps them: head:NETWORK (trained on the '
    "model's training images, kept in its directory), resnet101 (ImageNet), "
    'resnet101:PATH (its weights as Keras fetches them) or file:PATH (a Keras '
    'model or SavedModel).',
  )
  flags.DEFINE_enum(
    PRECISION,
    'float32',
    INFERENCE_PRECISIONS,
    '[sampling] Numbers to compute in. In float32 an image does not depend on '
    'its batch; auto: bfloat16 if a product is faster in it here.',
  )


def config() -> SamplingConfig:
  """How codes are drawn.

  Raises:
    ConfigError: If a value is out of range.
  """
  return SamplingConfig(**{name: flags.FLAGS[name].value for name in SAMPLING})


def acceptance() -> float:
  """The acceptance rate.

  Raises:
    ConfigError: If it is out of range, or a classifier was given for nothing.
  """
  rate = flags.FLAGS.acceptance
  rejection.check_acceptance(rate)
  if rate == 1 and flags.FLAGS['classifier'].present:
    raise ConfigError(
      '--classifier was given, but --acceptance is 1, at which nothing is '
      'rejected: set it below 1.'
    )
  return rate
