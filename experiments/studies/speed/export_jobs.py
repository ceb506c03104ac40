"""Jobs of what is served: a request to a warm export."""

import dataclasses
import pathlib

import numpy as np

from experiments.studies.speed import counts
from experiments.studies.speed.sizes import Sizes
from experiments.studies.speed.timing import Job
from export import sampler, saved_model, tokenizer, warmup
from export import settings as settings_lib
from export.try_it import servables
from vim_tf.config import PRECISIONS, check_choice, check_least
from vim_tf.jobs import restore
from vim_tf.vim import model as vim_model
from vim_tf.vit_vqgan import model as vit_vqgan_model


@dataclasses.dataclass(frozen=True)
class Exported:
  """Settings of an exported tokenizer.

  Attributes:
    batch: Images of a request.
    precision: 'float32' or 'bfloat16'.
  """

  batch: int
  precision: str = 'float32'

  def __post_init__(self):
    check_least(self, 1, 'batch')
    check_choice('precision', self.precision, PRECISIONS)


@dataclasses.dataclass(frozen=True)
class ExportedSampler(Exported):
  """Settings of an exported sampler.

  Attributes:
    guidance_scale: 1 is none; else every image runs twice.
    xla: Whether XLA compiles the loop.
    frozen: Whether the weights are constants of the loop where they can be.
    window: Codes of an image that are guessed at once; see `vim_jobs.Sampling`.
  """

  guidance_scale: float = 1.0
  xla: bool = False
  frozen: bool = True
  window: int = 1


def request_codes(
  sizes: Sizes, settings: Exported, folder: pathlib.Path
) -> Job:
  """Sends images to a warm tokenizer and gets their codes."""
  config = sizes.stage1.model
  servable = servables.Servable(
    'tokenizer', _write_tokenizer(sizes, settings, folder)
  )
  shape = [settings.batch, config.image_size, config.image_size, 3]
  inputs = {'images': np.random.default_rng(0).random(shape, np.float32)}
  work = counts.Work(settings.batch * counts.encode(config), settings.precision)
  return Job(
    _request(servable, 'encode_images', inputs), work, 'image', settings.batch
  )


def request_images(
  sizes: Sizes, settings: ExportedSampler, folder: pathlib.Path
) -> Job:
  """Asks a warm sampler for images."""
  config = sizes.stage2.model
  servable = servables.Servable(
    'sampler', _write_sampler(sizes, settings, folder)
  )
  inputs = warmup.sampling_settings(settings.batch)
  inputs['guidance_scale'][:] = settings.guidance_scale
  rows = settings.batch * (1 if settings.guidance_scale == 1.0 else 2)
  drawn = counts.sampling(config, rows, settings.precision)
  decoded = settings.batch * counts.decode(sizes.joined_stage1.model)
  work = dataclasses.replace(drawn, flops=drawn.flops + decoded)
  return Job(
    _request(servable, 'sample_images', inputs),
    work,
    'code',
    settings.batch * config.num_codes,
  )


def _request(servable: servables.Servable, signature: str, inputs: dict):
  def call():
    servable.predict(signature, inputs)

  return call


def _write_tokenizer(sizes, settings, folder) -> pathlib.Path:
  model = vit_vqgan_model.ViTVQGAN(
    sizes.stage1.model, dtype=restore.policy(settings.precision)
  )
  model.build()
  served = settings_lib.Settings(max_batch_size=settings.batch)
  module = tokenizer.Tokenizer(model, served).module
  return pathlib.Path(saved_model.write(saved_model.Export(module), folder))


def _write_sampler(sizes, settings, folder) -> pathlib.Path:
  dtype = restore.policy(settings.precision)
  vim = vim_model.VIM(sizes.stage2.model, dtype=dtype)
  decoder = vit_vqgan_model.ViTVQGAN(sizes.joined_stage1.model, dtype=dtype)
  for model in (vim, decoder):
    model.build()
  served = settings_lib.Settings(max_batch_size=settings.batch)
  module = sampler.Sampler(
    vim, decoder, served, settings.xla, settings.frozen, settings.window
  ).module
  return pathlib.Path(saved_model.write(saved_model.Export(module), folder))
