"""The flags that say how codes are drawn and which images are kept.

They are defined by a call, as those of `cli`, so that several binaries can
have them within one process.
"""

from absl import flags, logging

from vim_tf.config import SCHEDULES, ConfigError, SamplingConfig, Stage2Config
from vim_tf.vim import rejection

SAMPLING = (
  'temperature',
  'top_k',
  'top_p',
  'guidance_scale',
  'guidance_schedule',
  'guidance_power',
)
"""Names of the flags of `config`."""

REJECTION = ('acceptance', 'classifier')
"""Names of the flags of rejection sampling."""

PRECISION = 'precision'
"""Name of the flag that says in which numbers codes are drawn."""

ALL = (*SAMPLING, *REJECTION, PRECISION)
"""Names of all flags that `define` defines."""


def define():
  """Defines all of them; the defaults are the paper's sampling (4.1)."""
  default = SamplingConfig()
  flags.DEFINE_float(
    'temperature',
    default.temperature,
    '[sampling] Divides the logits; 0: likeliest (4.1).',
  )
  flags.DEFINE_integer(
    'top_k',
    default.top_k,
    '[sampling] Draw from the k likeliest codes; 0: all (4.1).',
  )
  flags.DEFINE_float(
    'top_p',
    default.top_p,
    '[sampling] Draw from the likeliest codes of this share.',
  )
  flags.DEFINE_float(
    'guidance_scale',
    default.guidance_scale,
    '[sampling] Classifier-free guidance; 1: none, 0: without the class.',
  )
  flags.DEFINE_enum(
    'guidance_schedule',
    default.guidance_schedule,
    list(SCHEDULES),
    '[sampling] How the scale rises from 1 at the first code to '
    '--guidance_scale at the last; constant: it is the same everywhere.',
  )
  flags.DEFINE_float(
    'guidance_power',
    default.guidance_power,
    '[sampling] Exponent of the position in a schedule; above 1: rise later.',
  )
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
    ['float32', 'bfloat16'],
    '[sampling] Numbers to compute in; in float32 an image does not depend on '
    'its batch.',
  )


def config() -> SamplingConfig:
  """How codes are drawn.

  Raises:
    ConfigError: If a value is out of range.
  """
  return SamplingConfig(**{name: flags.FLAGS[name].value for name in SAMPLING})


def warn(scale: float, vim: Stage2Config):
  """Tells of a guidance scale that a model has not learned for."""
  if scale == 1:
    return
  if not vim.model.num_classes:
    logging.warning(
      'guidance_scale is %g, but changes nothing: the model has no classes.',
      scale,
    )
  elif not vim.label_drop:
    logging.warning(
      "guidance_scale is %g, but the model never met 'no class' in its "
      'training, because label_drop was 0: samples may be poor.',
      scale,
    )


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
