"""Learning rates, and one update of the weights by them.

An update is: reduce, clip, step, average.
"""

from collections.abc import Sequence
import math
from typing import Any

import tensorflow as tf

from vim_tf.config import OptimizerConfig
from vim_tf.training import muon

_VECTORS = ('bias', 'gamma', 'beta')
_NO_DECAY = (*_VECTORS, 'embedding', 'embeddings', 'codebook')


class Schedule(tf.keras.optimizers.schedules.LearningRateSchedule):
  """Learning rates by step: warm-up, plateau, then a decay (5.1, 5.2)."""

  def __init__(self, config: OptimizerConfig):
    self.config = config

  def __call__(self, step: tf.Tensor) -> tf.Tensor:
    """The learning rate of a step, float32; steps count from 0."""
    config = self.config
    step = tf.cast(step, tf.float32)
    peak = config.learning_rate
    rate = tf.constant(peak, tf.float32)
    if config.decay != 'constant':
      start = max(config.decay_start, config.warmup_steps)
      progress = (step - start) / (config.decay_end - start)
      progress = tf.clip_by_value(progress, 0.0, 1.0)
      final = config.final_learning_rate
      if config.decay == 'cosine':
        share = 0.5 * (1.0 + tf.cos(math.pi * progress))
        rate = final + (peak - final) * share
      else:
        rate = peak * tf.exp(progress * math.log(final / peak))
    if config.warmup_steps:
      # The first update already moves: step 0 gets 1 / warmup_steps.
      rate *= tf.minimum(1.0, (step + 1.0) / config.warmup_steps)
    return rate

  def get_config(self):
    return {'config': self.config}


def decays(variable: tf.Variable) -> bool:
  """Whether decoupled weight decay applies to a variable.

  It applies to matrices and filters; not to biases, norms, embeddings,
  positions and the codebook, which have no scale to keep small.
  """
  name = variable.name.split(':')[0].rsplit('/', 1)[-1]
  return not any(name.endswith(ending) for ending in _NO_DECAY)


class Optimizer(tf.Module):
  """Adam or its kin on fixed variables, with what surrounds an update.

  Gradients are summed over replicas, so a replica's loss is its examples' sum
  divided by the GLOBAL batch size. Clipping is of the reduced gradient.

  Args:
    config: Every setting.
    variables: The variables to train.
    averages: Variables of the same shapes that hold the moving average of the
      weights; needed when `config.ema_decay` is above 0.
  """

  def __init__(
    self,
    config: OptimizerConfig,
    variables: Sequence[tf.Variable],
    averages: Sequence[tf.Variable] | None = None,
  ):
    super().__init__(name='optimizer')
    self.config = config
    self.schedule = Schedule(config)
    self._variables = list(variables)
    self._averages = list(averages or [])
    self._adam = _make(config, self.schedule, self._variables)

  @property
  def iterations(self) -> tf.Variable:
    """Updates so far, int64."""
    return self._adam.iterations

  def apply(self, gradients: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
    """Updates the variables; call it in replica context.

    Args:
      gradients: This replica's gradients, in the order of the variables.

    Returns:
      'gradient_norm' before clipping and 'learning_rate', scalars that are
      the same on every replica.
    """
    context = tf.distribute.get_replica_context()
    gradients = [tf.convert_to_tensor(g) for g in gradients]
    gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
    norm = tf.linalg.global_norm(gradients)
    if self.config.clip_norm:
      gradients, _ = tf.clip_by_global_norm(
        gradients, self.config.clip_norm, use_norm=norm
      )
    step = self._adam.iterations
    rate = self.schedule(step)
    self._adam.apply_gradients(
      zip(gradients, self._variables, strict=True),
      experimental_aggregate_gradients=False,  # Is the older name, too.
    )
    if self.config.ema_decay:
      self._average(step)
    return {'gradient_norm': norm, 'learning_rate': rate}

  def _average(self, step):
    # Early on the average follows faster, as 1 / (number of updates).
    step = tf.cast(step, tf.float32)
    decay = tf.minimum(self.config.ema_decay, step / (step + 9.0))
    for average, variable in zip(self._averages, self._variables, strict=True):
      average.assign_sub((1.0 - decay) * (average - variable))


def _make(
  config: OptimizerConfig, schedule: Schedule, variables: Sequence[tf.Variable]
) -> Any:
  """AdamW, Muon, FactoredAdam or LAMB, with all of its state there."""
  if config.name == 'lamb':
    from vim_tf.training import addons  # Large batches alone.

    return addons.lamb(config, schedule, variables, _NO_DECAY, _VECTORS)
  betas = {'beta_1': config.beta_1, 'beta_2': config.beta_2}
  if config.name == 'adafactor':
    from vim_tf.training import adafactor  # The paper's stage 2 alone.

    optimizer = adafactor.FactoredAdam(
      schedule, weight_decay=config.weight_decay or None, **betas
    )
  else:
    make = muon.Muon if config.name == 'muon' else tf.keras.optimizers.AdamW
    optimizer = make(
      schedule, weight_decay=config.weight_decay, jit_compile=False, **betas
    )
  optimizer.exclude_from_weight_decay(
    var_list=[v for v in variables if not decays(v)]
  )
  optimizer.build(variables)
  return optimizer
