"""Trains a VIM on the codes of a tokenizer: a config in, a directory out."""

from collections.abc import Callable
import os

from absl import logging
import numpy as np
import tensorflow as tf

from vim_tf.config import STOP, Faults, Stage2Config, check_stages_match
from vim_tf.jobs import class_names, pictures, restore, runs
from vim_tf.nn import replicas
from vim_tf.training import loop, optimizers, preamble
from vim_tf.training import workdir as workdir_lib
from vim_tf.vim import decoding, sampling
from vim_tf.vim import model as model_lib
from vim_tf.vim import step as step_lib
from vim_tf.vit_vqgan import model as vit_vqgan_model

_PICTURES = 18
_BITS_PER_NAT = 1.4426950408889634


def train(
  config: Stage2Config,
  path: str | os.PathLike,
  strategy: tf.distribute.Strategy | None = None,
  title: str = 'VIM',
  faults: Faults = STOP,
  accept_new_data: bool = False,
):
  """Trains to the last step, or goes on from where a run stopped.

  For the arguments see `train_tokenizer.train`; `config.tokenizer` names the
  stage-1 run.

  Raises:
    UserError: As there, and of a tokenizer of other sizes.
  """
  strategy = runs.begin(config, path, 'vim', strategy)
  with strategy.scope():
    tokenizer = restore.tokenizer(config.tokenizer)
  check_stages_match(tokenizer.config.model, config)
  fingerprint = restore.fingerprint(tokenizer.model)
  if config.codes:
    examples = runs.of_codes(config, fingerprint, strategy)
  else:  # Images, of which each step makes codes, as in the paper (5.2).
    examples = runs.of_images(config, faults, strategy)
    _check_classes(config, examples)
  facts = {'tokenizer_fingerprint': fingerprint}
  workdir = runs.open_workdir(
    config, path, 'vim', strategy, examples, facts, accept_new_data
  )
  with strategy.scope():
    step, model = build(config, tokenizer.model.encode)
  parameters = {'model': model.count_params()}
  for line in preamble.describe(
    title, config.run, *examples.splits, parameters, path
  ):
    logging.info(line)
  decoder = decoding.Decoder(model)
  to_images = replicas.OnReplicas(tokenizer.model.decode, strategy)
  figures = Figures(model, tokenizer.model)

  def evaluate():
    return figures(examples.held_out(figures.batch_size))

  def draw():
    classes = np.arange(_PICTURES) * config.model.num_classes // _PICTURES
    codes = decoder(classes, np.arange(_PICTURES), sampling.SamplingConfig())
    names = class_names.of(classes, examples.facts['class_names'], config.model)
    return {'samples': pictures.grid(to_images(codes), 6, names)}

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


def build(config: Stage2Config, encode: Callable | None):
  """The training step, and the model that is evaluated.

  Args:
    config: Every setting.
    encode: See `step_lib.VIMStep`.
  """
  dtype = restore.policy(config.run.precision)

  def new_model():
    model = model_lib.VIM(
      config.model, recompute=config.run.recompute, dtype=dtype
    )
    model.build()
    return model

  model, average = new_model(), None
  if config.optimizer.ema_decay:
    average = new_model()
    average.set_weights(model.get_weights())
  optimizer = optimizers.Optimizer(
    config.optimizer,
    model.trainable_variables,
    average.trainable_variables if average else None,
  )
  step = step_lib.VIMStep(config, model, optimizer, encode, average)
  return step, average or model


def _check_classes(config: Stage2Config, examples: runs.Examples):
  """Refuses a model of another number of classes than the data have."""
  classes = len(examples.facts['class_names'])
  if config.model.num_classes not in (0, classes):
    raise workdir_lib.WorkdirError(
      f'model.num_classes is {config.model.num_classes}, but '
      f'{config.data.name} has {classes} classes: set it to {classes}, or to 0 '
      'for an unconditional model.'
    )


class Figures:
  """Negative log-likelihood of held-out images' codes.

  Args:
    model: The VIM; what it was made under measures.
    tokenizer: Makes the codes of batches that hold images.

  Attributes:
    batch_size: Examples to give at once; another number changes no figure.
  """

  def __init__(self, model: model_lib.VIM, tokenizer: vit_vqgan_model.ViTVQGAN):
    def nats(batch):
      codes = batch.get('codes')
      if codes is None:
        codes = tokenizer.encode(batch['images'])
      logits = model(codes, batch['labels'])
      found = model_lib.negative_log_likelihood(logits, codes)
      return tf.reduce_mean(found, axis=1)

    self.batch_size = replicas.batch_size(replicas.of(model))
    # Kept, so that every evaluation of a run uses the same trace.
    self._nats = replicas.OnReplicas(nats, replicas.of(model))

  def __call__(self, batches: tf.data.Dataset) -> dict[str, float]:
    """Measures.

    Args:
      batches: 'codes' or 'images', 'labels' and 'mask'.

    Returns:
      'nats_per_code', 'bits_per_code' and 'images'.
    """
    values = []
    for batch in batches:
      keep = batch['mask'].numpy() > 0
      used = {k: x for k, x in batch.items() if k not in ('mask', 'indices')}
      values.append(self._nats(used)[keep])
    values = np.concatenate(values)
    mean = float(values.mean())
    return {
      'nats_per_code': mean,
      'bits_per_code': mean * _BITS_PER_NAT,
      'images': len(values),
    }
