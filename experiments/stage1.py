"""Trains a tokenizer: a config in, a working directory out."""

from absl import logging
import tensorflow as tf

from experiments import pictures
from vim_tf import restore
from vim_tf.config import Stage1Config, UserError, to_dict
from vim_tf.data import pipeline, sources
from vim_tf.metrics import codebook as codebook_metrics
from vim_tf.metrics import reconstruction
from vim_tf.training import loop, optimizers
from vim_tf.training import strategy as strategy_lib
from vim_tf.training import workdir as workdir_lib
from vim_tf.vit_vqgan import lpips
from vim_tf.vit_vqgan import model as model_lib
from vim_tf.vit_vqgan import step as step_lib

_PICTURES = 16
_EVAL_BATCH = 64


def train(
  config: Stage1Config,
  path: str,
  strategy: tf.distribute.Strategy,
  title: str = 'ViT-VQGAN',
):
  """Trains to the last step, or goes on from where a run stopped.

  Args:
    config: Every setting.
    path: The working directory.
    strategy: Where replicas run.
    title: What the progress bar says.

  Raises:
    UserError: Bad data, a directory of another run, a non-finite loss.
  """
  workdir_lib.make_folder(path)  # Told before any data are read.
  logging.info(strategy_lib.describe(strategy, config.run.batch_size))
  source = sources.load(config.data, config.data.train_split)
  held_out = sources.load(config.data, config.data.eval_split)
  facts = {
    'class_names': list(source.class_names),
    'data_fingerprint': source.fingerprint,
    'data_licence': source.licence,
  }
  workdir = workdir_lib.Workdir(path, 'vit_vqgan', config, facts)
  tf.keras.utils.set_random_seed(config.run.seed)
  if config.run.deterministic:
    tf.config.experimental.enable_op_determinism()
  with strategy.scope():
    step, model = _build(config)

  figures = Figures(model)

  def evaluate():
    return figures(
      pipeline.evaluation_batches(
        held_out,
        config.data,
        batch_size=_EVAL_BATCH,
        max_examples=config.run.eval_examples,
      ),
    )

  def draw():
    batches = pipeline.evaluation_batches(
      held_out, config.data, batch_size=_PICTURES
    )
    images = next(iter(batches))['images']
    return {
      'reconstructions': pictures.pairs(
        images, model.decode(model.encode(images))
      )
    }

  loop.train(
    step,
    config.run,
    workdir,
    lambda first: pipeline.training_batches(
      source,
      config.data,
      batch_size=config.run.batch_size,
      seed=config.run.seed,
      start_step=first,
    ),
    strategy,
    evaluate,
    draw,
    title,
  )


def _build(config: Stage1Config):
  """The training step, and the model that is evaluated."""
  dtype = restore.policy(config.run.precision)

  def new_model():
    model = model_lib.ViTVQGAN(
      config.model, recompute=config.run.recompute, dtype=dtype
    )
    model.build()
    return model

  def trained(model):
    if config.finetune_decoder_of:
      return model.decoder_variables
    return model.trainable_variables

  model, average = new_model(), None
  if config.finetune_decoder_of:
    start = restore.tokenizer(config.finetune_decoder_of)
    _check_same_model(config, start.config)
    model.set_weights(start.model.get_weights())
  if config.optimizer.ema_decay:
    average = new_model()
    average.set_weights(model.get_weights())
  optimizer = optimizers.Optimizer(
    config.optimizer,
    trained(model),
    trained(average) if average else None,
  )
  perceptual = None
  if config.losses.perceptual:
    perceptual = lpips.LPIPS(
      config.perceptual.weights_file,
      sha256=config.perceptual.weights_sha256,
      dtype='bfloat16' if config.run.precision == 'bfloat16' else 'float32',
    )
  discriminator = discriminator_optimizer = None
  if config.losses.adversarial:
    from vim_tf.vit_vqgan import discriminators

    discriminator = discriminators.make(
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


def _check_same_model(config: Stage1Config, start: Stage1Config):
  """Refuses to fine-tune the decoder of a tokenizer of other sizes."""
  ours, theirs = to_dict(config.model), to_dict(start.model)
  for name, value in ours.items():
    if value != theirs[name]:
      raise UserError(
        f'model.{name} is {value}, but {theirs[name]} in '
        f'{config.finetune_decoder_of}: start from its config with '
        f'--config={config.finetune_decoder_of}/config.json.'
      )


class Figures:
  """Reconstruction and codebook figures over held-out batches.

  Args:
    model: The tokenizer.
  """

  def __init__(self, model: model_lib.ViTVQGAN):
    self._codebook_size = model.config.codebook_size
    # Kept, so that every evaluation of a run uses the same trace.
    self._measure = tf.function(
      lambda images: _measure(model, images), autograph=False
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
      meter.update(codes.numpy()[keep])
      means.update({name: x.numpy()[keep] for name, x in values.items()})
    return {**reconstruction.summarize(means.result()), **meter.result()}


def _measure(model, images):
  codes = model.encode(images)
  return codes, reconstruction.per_image(images, model.decode(codes))
