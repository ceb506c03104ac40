"""The tokenizer's jobs: encode, decode, the lookup, a training step."""

import dataclasses

import numpy as np
import tensorflow as tf

from experiments.studies.speed import counts
from experiments.studies.speed.sizes import Sizes
from experiments.studies.speed.timing import Job
from vim_tf.config import (
  PRECISIONS,
  Stage1Config,
  check,
  check_choice,
  check_least,
)
from vim_tf.jobs import restore, train_tokenizer
from vim_tf.vit_vqgan import model as model_lib
from vim_tf.vit_vqgan import quantizer


@dataclasses.dataclass(frozen=True)
class Passing:
  """Settings of encoding and decoding.

  Attributes:
    batch: Images at once.
    precision: 'float32' or 'bfloat16'.
    xla: Whether XLA compiles the whole.
  """

  batch: int
  precision: str = 'float32'
  xla: bool = False

  def __post_init__(self):
    check_least(self, 1, 'batch')
    check_choice('precision', self.precision, PRECISIONS)


@dataclasses.dataclass(frozen=True)
class Lookup:
  """Settings of the lookup alone, which is float32 always.

  Attributes:
    batch: Images whose codes are looked up at once.
    xla: Whether XLA compiles it.
  """

  batch: int
  xla: bool = False

  def __post_init__(self):
    check_least(self, 1, 'batch')


@dataclasses.dataclass(frozen=True)
class Stage1Step:
  """Settings of a training step.

  Attributes:
    image_size: Height and width of the images, in pixels.
    batch: Images.
    r1: Whether it is one of the steps with the lazy R1 penalty.
    precision: 'float32' or 'bfloat16'.
    perceptual: Whether LPIPS is in the loss.
    adversarial: Whether the discriminator is there.
    recompute: Whether the blocks recompute their activations.
    xla: Whether XLA compiles the whole.
  """

  image_size: int
  batch: int
  r1: bool = False
  precision: str = 'float32'
  perceptual: bool = True
  adversarial: bool = True
  recompute: bool = False
  xla: bool = False

  def __post_init__(self):
    check_least(self, 1, 'image_size', 'batch')
    check_choice('precision', self.precision, PRECISIONS)
    check(
      self.adversarial or not self.r1,
      'r1 is true, but adversarial is false: R1 needs the discriminator.',
    )


def encode(sizes: Sizes, settings: Passing) -> Job:
  """Images to codes."""
  model = _model(sizes, settings)
  config = model.config
  images = _images(settings.batch, config.image_size)
  run = _compiled(model.encode, settings.xla)
  weights = sum(_size(x) for x in model.encoder.trainable_variables)
  work = counts.Work(
    settings.batch * counts.encode(config),
    settings.precision,
    counts.weight_bytes(weights, settings.precision),
  )
  return Job(lambda: _finish(run(images)), work, 'image', settings.batch)


def decode(sizes: Sizes, settings: Passing) -> Job:
  """Codes to images."""
  model = _model(sizes, settings)
  config = model.config
  shape = [settings.batch, config.num_codes]
  codes = np.random.default_rng(0).integers(0, config.codebook_size, shape)
  codes = tf.constant(codes, tf.int32)
  run = _compiled(model.decode, settings.xla)
  weights = sum(_size(x) for x in model.decoder_variables)
  work = counts.Work(
    settings.batch * counts.decode(config),
    settings.precision,
    counts.weight_bytes(weights, settings.precision),
  )
  return Job(lambda: _finish(run(codes)), work, 'image', settings.batch)


def lookup(sizes: Sizes, settings: Lookup) -> Job:
  """Encoder outputs to the nearest codes."""
  config = sizes.stage1.model
  layer = quantizer.Quantizer(
    config.codebook_size, config.code_dim, config.l2_normalize
  )
  layer.build()
  shape = [settings.batch, config.num_codes, config.code_dim]
  vectors = tf.random.stateless_normal(shape, [0, 0])
  run = _compiled(layer.nearest, settings.xla)
  count = settings.batch * config.num_codes
  work = counts.Work(
    counts.lookup(count, config.codebook_size, config.code_dim),
    bytes=4 * config.code_dim * (count + config.codebook_size),
  )
  return Job(lambda: _finish(run(vectors)), work, 'code', count)


def stage1_step(sizes: Sizes, settings: Stage1Step) -> Job:
  """One update of the tokenizer, and of the discriminator."""
  config = step_config(sizes.stage1, settings)
  update, batch = updating(config, settings)
  run = _compiled(update, settings.xla)
  flops = counts.stage1_step(
    config,
    perceptual=settings.perceptual,
    adversarial=settings.adversarial,
    r1=settings.r1,
  )
  work = counts.Work(settings.batch * flops, settings.precision)
  return Job(lambda: _finish(run(batch)), work, 'image', settings.batch)


def updating(config: Stage1Config, settings: Stage1Step):
  """The update itself, as a function of a batch, and such a batch."""
  perceptual = train_tokenizer.load_perceptual(config)
  step, _ = train_tokenizer.build(config, None, perceptual)
  kind = '+'.join(
    name
    for name in ('perceptual', 'adversarial', 'r1')
    if getattr(settings, name)
  )
  batch = {
    'images': _images(settings.batch, settings.image_size),
    'seeds': tf.cast(tf.range(settings.batch), tf.uint32),
  }

  def update(batch):
    return step.replica_step(kind or 'plain', batch, tf.constant(0, tf.int64))

  return update, batch


def step_config(config: Stage1Config, settings: Stage1Step) -> Stage1Config:
  """A run's settings, with those of a row."""
  for name in ('perceptual', 'adversarial'):
    check(
      getattr(config.losses, name) > 0 or not getattr(settings, name),
      f'{name} is true, but stage1.losses.{name} is 0.',
    )
  return dataclasses.replace(
    config,
    model=dataclasses.replace(config.model, image_size=settings.image_size),
    data=dataclasses.replace(config.data, image_size=settings.image_size),
    losses=dataclasses.replace(
      config.losses,
      perceptual=config.losses.perceptual if settings.perceptual else 0.0,
      adversarial=config.losses.adversarial if settings.adversarial else 0.0,
    ),
    run=dataclasses.replace(
      config.run,
      precision=settings.precision,
      recompute=settings.recompute,
    ),
  )


def _model(sizes: Sizes, settings: Passing) -> model_lib.ViTVQGAN:
  model = model_lib.ViTVQGAN(
    sizes.stage1.model, dtype=restore.policy(settings.precision)
  )
  model.build()
  return model


def _images(batch: int, size: int) -> tf.Tensor:
  return tf.random.stateless_uniform([batch, size, size, 3], [0, 0])


def _compiled(function, xla: bool):
  return tf.function(function, jit_compile=xla, autograph=False)


def _size(variable: tf.Variable) -> int:
  return variable.shape.num_elements()


def _finish(outputs):
  """Waits until everything is computed."""
  tf.nest.map_structure(lambda x: x.numpy(), outputs)
