"""What tensorflow-addons has and neither Keras nor TensorFlow: LAMB.

The package is at its end of life, so that nothing else imports it, and this
only where LAMB is asked for.
"""

from collections.abc import Sequence
import warnings

import tensorflow as tf

from vim_tf.config import ConfigError, OptimizerConfig, first_line


def lamb(
  config: OptimizerConfig,
  schedule: tf.keras.optimizers.schedules.LearningRateSchedule,
  variables: Sequence[tf.Variable],
  no_decay: Sequence[str],
  no_adaptation: Sequence[str],
) -> 'tf.keras.optimizers.legacy.Optimizer':
  """LAMB, for large batches (You et al., 2020): AdamW's update times a ratio.

  The ratio, that of a variable's norm to its update's, makes every layer's
  step the same share of its weights, at learning rates about ten times those
  of Adam.

  Args:
    config: Decays of the moments and of the weights.
    schedule: The learning rate by step.
    variables: What will be trained; its moments are made at once.
    no_decay: Endings of the names of variables that do not decay.
    no_adaptation: Endings of the names of variables whose ratio is 1.

  Returns:
    An optimizer with `apply_gradients` and `iterations`.

  Raises:
    ConfigError: If the package cannot be imported.
  """
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # A page about its end of life.
      from tensorflow_addons.optimizers import LAMB
  except ImportError as error:
    raise ConfigError(
      "optimizer.name is 'lamb', which needs the package tensorflow-addons "
      f'({first_line(error)}): install it, or take adam or adafactor.'
    ) from error
  optimizer = LAMB(
    schedule,
    beta_1=config.beta_1,
    beta_2=config.beta_2,
    weight_decay=config.weight_decay,
    exclude_from_weight_decay=[_ending(no_decay)],
    exclude_from_layer_adaptation=[_ending(no_adaptation)],
  )
  # A checkpoint is read into what is there, before the first update.
  optimizer._create_all_weights(variables)
  return optimizer


def _ending(names):
  # The copies of a variable on further replicas have names of their own.
  return rf'({"|".join(names)})(/replica_\d+)?(:\d+)?$'
