"""VIM's jobs: a training step, and sampling."""

import dataclasses

import numpy as np
import tensorflow as tf

from experiments.studies.speed import counts
from experiments.studies.speed.sizes import Sizes
from experiments.studies.speed.timing import Job
from vim_tf.config import (
  PRECISIONS,
  Stage2Config,
  VIMConfig,
  check,
  check_choice,
  check_least,
)
from vim_tf.jobs import restore, train_vim
from vim_tf.vim import decoding, sampling
from vim_tf.vim import model as model_lib


@dataclasses.dataclass(frozen=True)
class Stage2Step:
  """Settings of a training step.

  Attributes:
    batch: Images.
    precision: 'float32' or 'bfloat16'.
    recompute: Whether the blocks recompute their activations.
    dropout: Its rate.
    xla: Whether XLA compiles the whole.
  """

  batch: int
  precision: str = 'float32'
  recompute: bool = False
  dropout: float = 0.1
  xla: bool = False

  def __post_init__(self):
    check_least(self, 1, 'batch')
    check_choice('precision', self.precision, PRECISIONS)


@dataclasses.dataclass(frozen=True)
class Sampling:
  """Settings of sampling.

  Attributes:
    batch: Images at once.
    grid_size: Rows of codes of an image.
    guidance_scale: 1 is none; else every image runs twice.
    top_k: Draws from so many codes; 0: from all.
    top_p: Draws from this share of the probability.
    precision: 'float32' or 'bfloat16'.
    xla: Whether XLA compiles the loop.
    frozen: Whether the loop holds the weights as constants.
    window: Codes of an image that are guessed at once, 0: what suits the batch.
      More than 1 tells nothing of a model that was not trained: its codes
      hardly hang on each other, and nearly every guess is right.
  """

  batch: int
  grid_size: int
  guidance_scale: float = 1.0
  top_k: int = 0
  top_p: float = 1.0
  precision: str = 'float32'
  xla: bool = False
  frozen: bool = True
  window: int = 1

  def __post_init__(self):
    check_least(self, 1, 'batch', 'grid_size')
    check_choice('precision', self.precision, PRECISIONS)
    self.parameters()

  def parameters(self) -> sampling.SamplingConfig:
    """How codes are drawn."""
    return sampling.SamplingConfig(
      top_k=self.top_k, top_p=self.top_p, guidance_scale=self.guidance_scale
    )

  @property
  def rows(self) -> int:
    """Sequences that run at once."""
    return self.batch * (1 if self.guidance_scale == 1.0 else 2)


def stage2_step(sizes: Sizes, settings: Stage2Step) -> Job:
  """One update of VIM on codes that are there."""
  config = step_config(sizes.stage2, settings)
  update, batch = updating(config, settings.batch)
  run = tf.function(update, jit_compile=settings.xla, autograph=False)

  def call():
    tf.nest.map_structure(lambda x: x.numpy(), run(batch))

  flops = settings.batch * counts.stage2_step(config.model)
  work = counts.Work(flops, settings.precision)
  return Job(call, work, 'image', settings.batch)


def step_config(config: Stage2Config, settings: Stage2Step) -> Stage2Config:
  """A run's settings, with those of a row."""
  transformer = dataclasses.replace(
    config.model.transformer, dropout=settings.dropout
  )
  return dataclasses.replace(
    config,
    model=dataclasses.replace(config.model, transformer=transformer),
    run=dataclasses.replace(
      config.run,
      precision=settings.precision,
      recompute=settings.recompute,
    ),
  )


def updating(config: Stage2Config, batch_size: int):
  """The update itself, as a function of a batch, and such a batch."""
  step, _ = train_vim.build(config, None)
  batch = {
    'codes': _codes(config.model, batch_size),
    'labels': tf.zeros([batch_size], tf.int32),
    'seeds': tf.cast(tf.range(batch_size), tf.uint32),
  }

  def update(batch):
    return step.replica_step('plain', batch, tf.constant(0, tf.int64))

  return update, batch


def sample(sizes: Sizes, settings: Sampling) -> Job:
  """All codes of a batch of images, one after the other."""
  config = dataclasses.replace(sizes.stage2.model, grid_size=settings.grid_size)
  check(
    config.num_classes > 0 or settings.guidance_scale == 1.0,
    f'guidance_scale is {settings.guidance_scale}, but the VIM is '
    'unconditional: give stage2.model.num_classes.',
  )
  model = model_lib.VIM(config, dtype=restore.policy(settings.precision))
  model.build()
  decoder = decoding.Decoder(model, settings.xla, settings.frozen)
  seeds = range(settings.batch)

  def call():
    decoder(
      [0] * settings.batch,
      seeds,
      settings.parameters(),
      window=settings.window,
    )

  work = counts.sampling(config, settings.rows, settings.precision)
  return Job(call, work, 'code', settings.batch * config.num_codes)


def _codes(config: VIMConfig, batch: int) -> tf.Tensor:
  shape = [batch, config.num_codes]
  codes = np.random.default_rng(0).integers(0, config.codebook_size, shape)
  return tf.constant(codes, tf.int32)
