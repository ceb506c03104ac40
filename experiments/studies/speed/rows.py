"""The rows of the benchmark: what is timed, at which sizes and settings."""

from collections.abc import Callable
import dataclasses
import functools
import re

import tensorflow as tf

from experiments.studies.speed import counts
from experiments.studies.speed.counts import Work
from experiments.studies.speed.timing import Job
from vim_tf import presets
from vim_tf.config import (
  PRECISIONS,
  ConfigError,
  SamplingConfig,
  Stage1Config,
  Stage2Config,
  TransformerConfig,
  VIMConfig,
  check,
  replace,
)
from vim_tf.jobs import replica_functions, restore, train_tokenizer
from vim_tf.nn import replicas
from vim_tf.settings import Config, group, setting
from vim_tf.vim import decoding
from vim_tf.vim import model as vim_model
from vim_tf.vit_vqgan import quantizer

_KIND = 'perceptual+adversarial'


@dataclasses.dataclass(frozen=True)
class Sizes(Config):
  """Sizes of all rows; the defaults are those of `--sizes=paper`."""

  stage1: Stage1Config = group('stage1')
  stage2: Stage2Config = group('stage2')
  batch: int = setting('Images of a pass, and of a step of VIM.', 4, least=1)
  small_image: int = setting('Pixels a side, small stage-1 step.', 64, least=1)
  small_batch: int = setting('Images of its batch.', 8, least=1)
  large_image: int = setting('Pixels a side, large stage-1 step.', 256, least=1)
  few: int = setting('Images of the smallest batch of sampling.', 1, least=1)
  some: int = setting('Images of a middle one.', 4, least=1)
  many: int = setting('Images of the largest.', 16, least=1)
  matmul: int = setting('Rows of the matrices of the ceiling.', 2048, least=1)
  memory: int = setting(
    'Bytes that are read to measure the memory; several times the cache.',
    2**28,
    least=4,
  )


def paper() -> Sizes:
  """The tokenizer of the paper's small-small; a VIM that a CPU can train."""
  transformer = TransformerConfig(12, 12, 768, 3072, dropout=0.1)
  stage2 = dataclasses.replace(
    presets.stage2('vim_base'),
    model=VIMConfig(transformer, 16, 8192, num_classes=1000),
  )
  return Sizes(presets.stage1('vit_vqgan_ss'), stage2)


def tiny() -> Sizes:
  """Runs in seconds; for tests."""
  losses = {'losses.perceptual': '0.1', 'losses.adversarial': '0.1'}
  return Sizes(
    replace(presets.stage1('tiny'), losses),
    presets.stage2('tiny'),
    batch=2,
    small_image=16,
    small_batch=2,
    large_image=32,
    some=2,
    many=3,
    matmul=64,
    memory=2**16,
  )


SIZES = {'paper': paper, 'tiny': tiny}


@dataclasses.dataclass(frozen=True)
class Settings(Config):
  """What can be set of a row; each row has some of them."""

  batch: int = setting('Images at once.', 1, least=1)
  precision: str = setting(
    'Numbers to compute in.', 'float32', choices=PRECISIONS
  )
  xla: bool = setting('Whether XLA compiles the whole.', False)
  image_size: int = setting('Height and width of images.', 256, least=1)
  kind: str = setting('Terms of the stage-1 loss, as of a `step_kind`.', _KIND)
  recompute: bool = setting('Whether blocks recompute activations.', False)
  guidance_scale: float = setting('1: none; else rows run twice.', 1.0)
  top_k: int = setting('As of `SamplingConfig`.', 0)
  top_p: float = setting('As of `SamplingConfig`.', 1.0)
  frozen: bool = setting('Whether the loop holds weights as constants.', True)
  window: int = setting(
    'Codes guessed at once, 0: what suits the batch. More than 1 tells nothing '
    'of a model that was not trained: nearly every guess is right.',
    1,
    least=0,
  )

  def check(self):
    terms = self.kind.split('+')
    check(
      'r1' not in terms or 'adversarial' in terms,
      f'kind is {self.kind}: R1 needs the adversarial term.',
    )


_PASS = ('batch', 'precision', 'xla')
_DRAW = (*_PASS, 'guidance_scale', 'top_k', 'top_p', 'frozen', 'window')


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of the table.

  Attributes:
    name: How it is called.
    what: What one call does.
    prepare: Makes the job from sizes and settings.
    uses: Names of the settings that it has.
    settings: Their values.
  """

  name: str
  what: str
  prepare: Callable[[Sizes, Settings], Job]
  uses: tuple[str, ...]
  settings: Settings

  def values(self) -> dict:
    """The settings that it has."""
    return {name: getattr(self.settings, name) for name in self.uses}


def rows(sizes: Sizes) -> list[Row]:
  """All rows, in the order of the table."""
  found = []

  def add(name, what, prepare, uses, **settings):
    found.append(Row(name, what, prepare, uses, Settings(**settings)))

  for name, what in (
    ('encode', 'images to codes'),
    ('decode', 'codes to images'),
  ):
    for precision in PRECISIONS:
      add(
        f'{name}_{precision}',
        what,
        functools.partial(_pass, name=name),
        _PASS,
        batch=sizes.batch,
        precision=precision,
      )
  add(
    'lookup',
    'the nearest codes of vectors',
    _lookup,
    ('batch', 'xla'),
    batch=sizes.batch,
  )
  for size, batch in (
    (sizes.small_image, sizes.small_batch),
    (sizes.large_image, 1),
  ):
    for r1 in ('', '_r1'):
      add(
        f'stage1_step_{size}px{r1}',
        'an update of tokenizer and discriminator' + ', with R1' * bool(r1),
        _stage1_step,
        (*_PASS, 'image_size', 'kind', 'recompute'),
        batch=batch,
        image_size=size,
        kind=_KIND + r1.replace('_', '+'),
      )
  for precision in PRECISIONS:
    add(
      f'stage2_step_{precision}',
      'an update of VIM',
      _stage2_step,
      (*_PASS, 'recompute'),
      batch=sizes.batch,
      precision=precision,
    )
  scales = (1.0, 2.0) if sizes.stage2.model.num_classes else (1.0,)
  for precision in PRECISIONS:
    for scale in scales:
      for batch in (sizes.few, sizes.some, sizes.many):
        guided = scale != 1.0
        add(
          f'sampling_{batch}_{precision}' + '_guided' * guided,
          'all codes of images' + ', with guidance' * guided,
          _sampling,
          _DRAW,
          batch=batch,
          precision=precision,
          guidance_scale=scale,
        )
  return found


def chosen(sizes: Sizes, pattern: str) -> list[Row]:
  """The rows whose names a regular expression matches somewhere.

  Raises:
    ConfigError: If it is no regular expression, or there is none.
  """
  every = rows(sizes)
  try:
    found = [row for row in every if re.search(pattern, row.name)]
  except re.error as error:
    raise ConfigError(
      f'--rows={pattern} is not a regular expression: {error}.'
    ) from error
  names = ', '.join(row.name for row in every)
  check(bool(found), f'--rows={pattern} matches none of {names}.')
  return found


# ---------------------------------------------------------------------- jobs


def stage1_config(config: Stage1Config, settings: Settings) -> Stage1Config:
  """A run's settings, with those of a row."""
  terms = settings.kind.split('+')
  for name in ('perceptual', 'adversarial'):
    check(
      getattr(config.losses, name) > 0 or name not in terms,
      f'kind is {settings.kind}, but stage1.losses.{name} is 0.',
    )
  return replace(
    config,
    {
      'model.image_size': str(settings.image_size),
      'data.image_size': str(settings.image_size),
      **_of_run(settings),
    },
  )


def _of_run(settings: Settings) -> dict[str, str]:
  return {
    'run.precision': settings.precision,
    'run.recompute': str(settings.recompute).lower(),
  }


def _pass(sizes, settings, name: str) -> Job:
  """'encode' or 'decode'."""
  config = replace(sizes.stage1, _of_run(settings))
  parts = min(settings.batch, replicas.streams(tf.distribute.get_strategy()))
  batch = settings.batch // parts
  function = replica_functions.tokenizer(config, batch)[name]
  count = {'encode': counts.encode, 'decode': counts.decode}[name]
  work = Work(parts * batch * count(config.model), settings.precision)
  return _job(function, settings.xla, work, parts * batch, parts=parts)


def _stage1_step(sizes, settings) -> Job:
  """One update of the tokenizer, and of the discriminator."""
  config, kind = stage1_config(sizes.stage1, settings), settings.kind
  function = replica_functions.stage1_steps(
    config, settings.batch, (kind,), train_tokenizer.load_perceptual(config)
  )[kind]
  flops = settings.batch * counts.stage1_step(config, kind)
  work = Work(flops, settings.precision)
  return _job(function, settings.xla, work, settings.batch)


def _stage2_step(sizes, settings) -> Job:
  """One update of VIM on codes that are there."""
  config = replace(sizes.stage2, _of_run(settings))
  function = replica_functions.stage2_step(config, settings.batch)
  flops = settings.batch * counts.stage2_step(config.model)
  work = Work(flops, settings.precision)
  return _job(function, settings.xla, work, settings.batch)


def _lookup(sizes, settings) -> Job:
  """The quantizer alone, which is float32 always."""
  config = sizes.stage1.model
  layer = quantizer.Quantizer(
    config.codebook_size, config.code_dim, config.l2_normalize
  )
  layer.build()
  count = settings.batch * config.num_codes
  shape = [settings.batch, config.num_codes, config.code_dim]
  work = Work(
    counts.lookup(count, config.codebook_size, config.code_dim),
    bytes=4 * config.code_dim * (count + config.codebook_size),
  )
  function = replica_functions.ReplicaFunction(
    layer.nearest, (tf.TensorSpec(shape),)
  )
  return _job(function, settings.xla, work, count, 'code')


def _job(
  function, xla: bool, work: Work, units: int, unit='image', parts=1
) -> Job:
  """A call of what a replica runs, to its end; of `parts` calls at once."""
  run = tf.function(function.run, jit_compile=xla, autograph=False)
  inputs = tf.nest.map_structure(example, function.specs)

  def call(_):
    tf.nest.map_structure(lambda x: x.numpy(), run(*inputs))

  return Job(lambda: replicas.at_once(call, range(parts)), work, unit, units)


def example(spec: tf.TensorSpec) -> tf.Tensor:
  """Values of a spec: floats in [0, 1), or zeros and ones."""
  if spec.dtype.is_floating:
    return tf.random.stateless_uniform(spec.shape, [0, 0], dtype=spec.dtype)
  count = tf.range(spec.shape.num_elements()) % 2
  return tf.cast(tf.reshape(count, spec.shape), spec.dtype)


def _sampling(sizes, settings) -> Job:
  """All codes of a batch of images, one after the other."""
  config = sizes.stage2.model
  check(
    config.num_classes > 0 or settings.guidance_scale == 1.0,
    f'guidance_scale is {settings.guidance_scale}, but the VIM is '
    'unconditional: give stage2.model.num_classes.',
  )
  parameters = SamplingConfig(
    top_k=settings.top_k,
    top_p=settings.top_p,
    guidance_scale=settings.guidance_scale,
  )
  model = vim_model.VIM(config, dtype=restore.policy(settings.precision))
  model.build()
  decoder = decoding.Decoder(model, settings.xla, settings.frozen)
  ids, seeds = [0] * settings.batch, range(settings.batch)
  sequences = settings.batch * (1 if settings.guidance_scale == 1.0 else 2)
  return Job(
    lambda: decoder(ids, seeds, parameters, window=settings.window),
    counts.sampling(config, sequences, settings.precision),
    'code',
    settings.batch * config.num_codes,
  )
