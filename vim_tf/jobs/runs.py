"""What trainings share: where examples come from, and how a run begins."""

from collections.abc import Callable
import dataclasses
import os

from absl import logging
import tensorflow as tf

from vim_tf.config import ConfigError, Faults, Stage1Config, Stage2Config
from vim_tf.data import codes as codes_lib
from vim_tf.data import pipeline, sources
from vim_tf.training import preamble, workers
from vim_tf.training import strategy as strategy_lib
from vim_tf.training import workdir as workdir_lib


@dataclasses.dataclass(frozen=True)
class Examples:
  """Where the batches of a run come from.

  Attributes:
    facts: What `config.json` says of them.
    training: From a step and an input pipeline to its share of the endless
      batches from that step on.
    held_out: From a batch's size to one pass over held-out examples.
    splits: What both are.
  """

  facts: dict
  training: Callable[[int, tf.distribute.InputContext], tf.data.Dataset]
  held_out: Callable[[int], tf.data.Dataset]
  splits: tuple[preamble.Split, preamble.Split]


def of_images(
  config: Stage1Config | Stage2Config,
  faults: Faults,
  strategy: tf.distribute.Strategy,
) -> Examples:
  """The images that a config names."""
  source, held_out = (
    sources.load(config.data, split, faults.on_bad_example)
    for split in (config.data.train_split, config.data.eval_split)
  )
  strategy_lib.check_input(strategy, source.random_access, source.name)
  return Examples(
    {
      'class_names': list(source.class_names),
      'data_fingerprint': source.fingerprint,
      'data_images': {
        'train': source.num_examples,
        'held_out': held_out.num_examples,
      },
      'data_licence': source.licence,
    },
    lambda first, context: pipeline.training_batches(
      source,
      config.data,
      batch_size=config.run.batch_size,
      seed=config.run.seed,
      start_step=first,
      input_context=context,
    ),
    lambda size: pipeline.evaluation_batches(
      held_out,
      config.data,
      batch_size=size,
      max_examples=config.run.eval_examples,
    ),
    (preamble.Split.of(source), preamble.Split.of(held_out)),
  )


def of_codes(
  config: Stage2Config, fingerprint: str, strategy: tf.distribute.Strategy
) -> Examples:
  """Codes of a cache, the held-out ones too: no image is read."""
  cache = codes_lib.Cache(config.codes)
  cache.check_fits(config, fingerprint)
  cache.check_files()
  strategy_lib.check_input(strategy, True, config.codes)
  return Examples(
    {
      'class_names': list(cache.description.class_names),
      'data_fingerprint': cache.train.fingerprint,
      'data_images': {
        'train': cache.train.num_examples,
        'held_out': cache.evaluation.num_examples,
      },
      'data_licence': cache.description.licence,
      'codes_fingerprint': cache.fingerprint,
    },
    lambda first, context: codes_lib.training_batches(
      cache,
      batch_size=config.run.batch_size,
      seed=config.run.seed,
      start_step=first,
      input_context=context,
      balance_classes=config.data.balance_classes,
    ),
    lambda size: codes_lib.evaluation_batches(
      cache, batch_size=size, max_examples=config.run.eval_examples
    ),
    tuple(
      preamble.Split(
        f'{config.codes} ({part.split})',
        part.num_examples,
        cache.description.class_names,
        crops=part.crops,
      )
      for part in (cache.train, cache.evaluation)
    ),
  )


def begin(
  config: Stage1Config | Stage2Config,
  path: str | os.PathLike,
  kind: str,
  strategy: tf.distribute.Strategy | None,
) -> tf.distribute.Strategy:
  """Refuses what can be refused before data are read or anything is written.

  Returns:
    Where replicas run; made first, before TensorFlow computes anything.
  """
  strategy = strategy or strategy_lib.make()
  for note in schedule_notes(config):
    logging.warning('%s', note)
  workdir_lib.check(path, kind, config)
  logging.info(strategy_lib.describe(strategy, config.run.batch_size))
  size = config.run.batch_size // strategy.num_replicas_in_sync
  if size % config.optimizer.accumulate:
    raise ConfigError(
      f'A replica has {size} images a step, which do not divide into '
      f'accumulate={config.optimizer.accumulate} micro-batches.'
    )
  return strategy


def open_workdir(
  config: Stage1Config | Stage2Config,
  path: str | os.PathLike,
  kind: str,
  strategy: tf.distribute.Strategy,
  examples: Examples,
  facts: dict,
  accept_new_data: bool,
) -> workdir_lib.Workdir:
  """Opens the working directory, and seeds what the run will draw."""
  preamble.check_batch(config.run.batch_size, examples.splits[0])
  workdir = workdir_lib.Workdir(
    path,
    kind,
    config,
    {**examples.facts, **facts},
    workers.is_chief(strategy),
    accept_new_data,
  )
  tf.keras.utils.set_random_seed(config.run.seed)
  if config.run.deterministic:
    tf.config.experimental.enable_op_determinism()
  return workdir


def schedule_notes(config: Stage1Config | Stage2Config) -> list[str]:
  """What of a schedule comes too early or not at all, in one line each.

  The number of steps moves nothing else, so that a run of another length than
  its preset's may never come to what its schedule plans.
  """
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
  losses, codebook = config.losses, config.codebook
  for what, flag, start, used in (
    (
      'The perceptual term starts',
      'perceptual_start_step',
      config.perceptual.start_step,
      losses.perceptual,
    ),
    (
      'The adversarial term starts',
      'adversarial_start_step',
      config.adversarial.start_step,
      losses.adversarial,
    ),
    (
      'The codebook starts',
      'init_step',
      codebook.init_step,
      codebook.init_from_data,
    ),
  ):
    if used and start >= steps:
      found.append(
        f'{what} at step {start}, but the run ends at {steps}: set --{flag}.'
      )
  return found
