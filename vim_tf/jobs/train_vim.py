"""Trains a VIM on the codes of a tokenizer: a config in, a directory out."""

from collections.abc import Callable
import dataclasses
import os

from absl import logging
import numpy as np
import tensorflow as tf

from vim_tf.config import STOP, Faults, Stage2Config, check_stages_match
from vim_tf.data import codes as codes_lib
from vim_tf.data import pipeline, sources
from vim_tf.jobs import class_names, pictures, restore, train_tokenizer
from vim_tf.nn import replicas
from vim_tf.training import loop, optimizers, preamble, workers
from vim_tf.training import strategy as strategy_lib
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
  strategy = strategy or strategy_lib.make()  # Before anything is computed.
  for note in train_tokenizer.schedule_notes(config):
    logging.warning('%s', note)
  workdir_lib.check(path, 'vim', config)  # Told before any data are read.
  logging.info(strategy_lib.describe(strategy, config.run.batch_size))
  with strategy.scope():
    tokenizer = restore.tokenizer(config.tokenizer)
  check_stages_match(tokenizer.config.model, config)
  fingerprint = restore.fingerprint(tokenizer.model)
  if config.codes:
    examples = _cached_examples(config, fingerprint)
    strategy_lib.check_input(strategy, True, config.codes)
  else:
    examples = _online_examples(config, faults, strategy)
  preamble.check_batch(config.run.batch_size, examples.splits[0])
  facts = {**examples.facts, 'tokenizer_fingerprint': fingerprint}
  workdir = workdir_lib.Workdir(
    path,
    'vim',
    config,
    facts,
    workers.is_chief(strategy),
    accept_new_data,
  )
  tf.keras.utils.set_random_seed(config.run.seed)
  if config.run.deterministic:
    tf.config.experimental.enable_op_determinism()
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
    names = class_names.of(classes, facts['class_names'], config.model)
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


@dataclasses.dataclass(frozen=True)
class _Examples:
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


def _online_examples(
  config: Stage2Config, faults: Faults, strategy: tf.distribute.Strategy
) -> _Examples:
  """Images, of which each step makes codes, as in the paper (5.2)."""
  source = sources.load(
    config.data, config.data.train_split, faults.on_bad_example
  )
  held_out = sources.load(
    config.data, config.data.eval_split, faults.on_bad_example
  )
  strategy_lib.check_input(strategy, source.random_access, source.name)
  classes = len(source.class_names)
  if config.model.num_classes not in (0, classes):
    raise workdir_lib.WorkdirError(
      f'model.num_classes is {config.model.num_classes}, but {source.name} '
      f'has {classes} classes: set it to {classes}, or to 0 for an '
      'unconditional model.'
    )
  return _Examples(
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


def _cached_examples(config: Stage2Config, fingerprint: str) -> _Examples:
  """Codes of a cache, the held-out ones too: no image is read."""
  cache = codes_lib.Cache(config.codes)
  cache.check_fits(config, fingerprint)
  cache.check_files()
  return _Examples(
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
