"""Trains a tokenizer: a config in, a working directory out."""

import os

from absl import logging
import tensorflow as tf

from vim_tf.config import STOP, Faults, Stage1Config, UserError, to_dict
from vim_tf.jobs import pictures, restore, runs
from vim_tf.metrics import codebook as codebook_metrics
from vim_tf.metrics import reconstruction
from vim_tf.nn import replicas
from vim_tf.training import loop, optimizers, preamble
from vim_tf.training import workdir as workdir_lib
from vim_tf.vit_vqgan import lpips
from vim_tf.vit_vqgan import model as model_lib
from vim_tf.vit_vqgan import step as step_lib

_PICTURES = 16


def train(
  config: Stage1Config,
  path: str | os.PathLike,
  strategy: tf.distribute.Strategy | None = None,
  title: str = 'ViT-VQGAN',
  faults: Faults = STOP,
  accept_new_data: bool = False,
):
  """Trains to the last step, or goes on from where a run stopped.

  Args:
    config: Every setting.
    path: The working directory.
    strategy: Where replicas run; None: 'auto' of `strategy.make`.
    title: What the progress bar says.
    faults: What to do about bad examples and a loss that is not finite.
    accept_new_data: Whether a run may go on with other data than it began with.

  Raises:
    UserError: Bad data, a directory of another run, a non-finite loss.
  """
  strategy = runs.begin(config, path, 'vit_vqgan', strategy)
  start = _start(config)
  with strategy.scope():
    perceptual = load_perceptual(config)
  examples = runs.of_images(config, faults, strategy)
  facts = {}
  if start is not None:
    facts['start_fingerprint'] = restore.fingerprint(start)
  workdir = runs.open_workdir(
    config, path, 'vit_vqgan', strategy, examples, facts, accept_new_data
  )
  with strategy.scope():
    step, model = build(config, start, perceptual)
  parameters = {
    name: part.count_params()
    for name, part in step.checkpoint_contents().items()
    if name in ('model', 'discriminator')
  }
  for line in preamble.describe(
    title, config.run, *examples.splits, parameters, path
  ):
    logging.info(line)

  figures = Figures(model)

  def evaluate():
    return figures(examples.held_out(figures.batch_size))

  rebuild = replicas.OnReplicas(model.reconstruct, strategy)

  def draw():
    batch = next(iter(examples.held_out(_PICTURES)))
    images = tf.boolean_mask(batch['images'], batch['mask'] > 0)
    return {'reconstructions': pictures.pairs(images, rebuild(images))}

  loop.train(
    step,
    config.run,
    workdir,
    examples.training,
    strategy,
    evaluate,
    draw,
    title,
    faults,
  )


def _start(config: Stage1Config) -> model_lib.ViTVQGAN | None:
  """The tokenizer whose decoder is fine-tuned, if one is."""
  folder = config.finetune_decoder_of
  if not folder:
    return None
  start = restore.tokenizer(folder)
  theirs = workdir_lib.flat(to_dict(start.config.model))
  for name, value in workdir_lib.flat(to_dict(config.model)).items():
    if value != theirs[name]:
      raise UserError(
        f'model.{name} is {value}, but {theirs[name]} in {folder}, whose '
        'decoder is to be fine-tuned: leave that setting (and --preset and '
        '--config) out to have its sizes.'
      )
  return start.model


def load_perceptual(config: Stage1Config) -> lpips.LPIPS | None:
  """LPIPS, if the loss has it."""
  if not config.losses.perceptual:
    return None
  return lpips.LPIPS(
    config.perceptual.weights_file,
    sha256=config.perceptual.weights_sha256,
    dtype='bfloat16' if config.run.precision == 'bfloat16' else 'float32',
  )


def build(
  config: Stage1Config,
  start: model_lib.ViTVQGAN | None,
  perceptual: lpips.LPIPS | None,
):
  """The training step, and the model that is evaluated.

  Args:
    config: Every setting.
    start: The tokenizer whose decoder is fine-tuned; None: a new one is
      trained whole.
    perceptual: What `load_perceptual` gave.
  """
  dtype = restore.policy(config.run.precision)

  def new_model():
    model = model_lib.ViTVQGAN(
      config.model, recompute=config.run.recompute, dtype=dtype
    )
    model.build()
    return model

  def trained(model):
    if start is not None:
      return model.decoder_variables
    return model.trainable_variables

  model, average = new_model(), None
  if start is not None:
    model.set_weights(start.get_weights())
  if config.optimizer.ema_decay:
    average = new_model()
    average.set_weights(model.get_weights())
  optimizer = optimizers.Optimizer(
    config.optimizer, trained(model), trained(average) if average else None
  )
  discriminator = discriminator_optimizer = None
  if config.losses.adversarial:
    discriminator = step_lib.make_discriminator(
      config.adversarial, config.model.image_size, dtype
    )
    discriminator_optimizer = optimizers.Optimizer(
      config.discriminator_optimizer, discriminator.trainable_variables
    )
  step = step_lib.TokenizerStep(
    config,
    model,
    optimizer,
    average,
    perceptual,
    discriminator,
    discriminator_optimizer,
    trained(model),
  )
  return step, average or model


class Figures:
  """Reconstruction and codebook figures over held-out batches.

  Args:
    model: The tokenizer; what it was made under measures.

  Attributes:
    batch_size: Images to give at once; another number changes no figure.
  """

  def __init__(self, model: model_lib.ViTVQGAN):
    self._codebook_size = model.config.codebook_size
    self.batch_size = replicas.batch_size(replicas.of(model))
    # Kept, so that every evaluation of a run uses the same trace.
    self._measure = replicas.OnReplicas(
      lambda images: _measure(model, images), replicas.of(model)
    )

  def __call__(self, batches: tf.data.Dataset) -> dict[str, float]:
    """Measures.

    Args:
      batches: 'images' and 'mask', as `pipeline.evaluation_batches` gives
        them.

    Returns:
      What `reconstruction.summarize` and `codebook.CodebookMeter` give.
    """
    meter = codebook_metrics.CodebookMeter(self._codebook_size)
    means = reconstruction.MeanAccumulator()
    for batch in batches:
      keep = batch['mask'].numpy() > 0
      codes, values = self._measure(batch['images'])
      meter.update(codes[keep])
      means.update({name: x[keep] for name, x in values.items()})
    return {**reconstruction.summarize(means.result()), **meter.result()}


def _measure(model, images):
  codes = model.encode(images)
  return codes, reconstruction.per_image(images, model.decode(codes))
