"""What of a config's schedule does not fit its number of steps.

`--steps` moves nothing else, so that a run of another length than its preset's
may never come to what its schedule plans.
"""

from absl import logging

from vim_tf.config import Stage1Config, Stage2Config


def warn(config: Stage1Config | Stage2Config):
  """Logs what `notes` finds."""
  for note in notes(config):
    logging.warning('%s', note)


def notes(config: Stage1Config | Stage2Config) -> list[str]:
  """What comes too early or not at all, in one line each."""
  steps, optimizer = config.run.num_steps, config.optimizer
  found = []
  if optimizer.decay != 'constant' and optimizer.decay_end > steps:
    found.append(
      f'The learning rate falls until step {optimizer.decay_end}, but the run '
      f'ends at {steps}: --decay_end={steps} lets it fall to its end.'
    )
  elif optimizer.decay != 'constant' and optimizer.decay_end < steps:
    found.append(
      f'The learning rate is at its lowest from step {optimizer.decay_end} on, '
      f'but the run goes to {steps}: --decay_end={steps} spreads the fall.'
    )
  if not isinstance(config, Stage1Config):
    return found
  for what, flag, start, used in (
    (
      'The perceptual term starts',
      'perceptual_start_step',
      config.perceptual.start_step,
      config.losses.perceptual,
    ),
    (
      'The adversarial term starts',
      'adversarial_start_step',
      config.adversarial.start_step,
      config.losses.adversarial,
    ),
    (
      'The codebook starts',
      'init_step',
      config.codebook.init_step,
      config.codebook.init_from_data,
    ),
  ):
    if used and start >= steps:
      found.append(
        f'{what} at step {start}, but the run ends at {steps}: set --{flag}.'
      )
  return found
