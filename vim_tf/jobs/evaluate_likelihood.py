"""How well a VIM predicts held-out codes, beside models that only count."""

import dataclasses
import math

from absl import logging
import numpy as np
from scipy import stats

from vim_tf.config import UserError
from vim_tf.data import codes as codes_lib
from vim_tf.data import pipeline, sources
from vim_tf.jobs import restore
from vim_tf.metrics import baselines
from vim_tf.nn import replicas
from vim_tf.protocols import LikelihoodProtocol
from vim_tf.vim import model as model_lib

_BITS_PER_NAT = 1.4426950408889634
_CHANNELS = 3


def evaluate(
  tokenizer: restore.Restored,
  vim: restore.Restored,
  protocol: LikelihoodProtocol | None = None,
) -> dict:
  """Measures the negative log-likelihood of held-out codes.

  Figures are given per code, per image and per dimension, which is one of the
  image's `image_size**2 * 3` values: the rate at which the codes describe an
  image, not a likelihood of its pixels, which the decoder does not give. A
  class-conditional model is given the true class; if it was trained with
  label drop it is measured without, too ('unconditional_').

  Args:
    tokenizer: Makes the codes.
    vim: The model to measure.
    protocol: What to measure on, and how; None: its defaults.

  Returns:
    Figures and protocol as one JSON object.

  Raises:
    UserError: If there are no images, or they or the codes are of another
      size, tokenizer or data set; or no classes to tell apart.
  """
  protocol = protocol or LikelihoodProtocol()
  if protocol.classify and vim.config.model.num_classes < 2:
    raise UserError(
      '--classify needs a model of two classes or more, but this one has '
      f'{vim.config.model.num_classes}: leave it out.'
    )
  if protocol.data is None:
    protocol = dataclasses.replace(protocol, data=vim.config.data)
  train, held_out, true_labels, facts = _find_codes(tokenizer, vim, protocol)
  sizes = vim.config.model
  classes = sizes.num_classes

  def nats(labels):
    labels = np.broadcast_to(labels, true_labels.shape).astype(np.int32)
    return _nats(score, held_out, labels, protocol.batch_size)

  score = replicas.OnReplicas(
    lambda codes, labels: model_lib.negative_log_likelihood(
      vim.model(codes, labels), codes
    ),
    replicas.of(vim.model),
  )
  figures = _figures(nats(true_labels), protocol.data.image_size)
  if classes and vim.config.label_drop:
    found = _figures(nats(classes), protocol.data.image_size)
    figures.update({f'unconditional_{k}': v for k, v in found.items()})
  if protocol.classify:
    by_class = [nats(i).sum(axis=1) for i in range(classes)]
    right = np.argmin(by_class, axis=0) == true_labels
    figures['classified_top1'] = float(right.mean())
    figures['classified_standard_error'] = float(stats.sem(right))
  logging.info('Fitting the counting models to %d crops.', len(train))
  references = baselines.reference_bits_per_code(
    train, held_out, sizes.codebook_size
  )
  figures.update(
    {
      **references,
      'uniform_bits_per_code': math.log2(sizes.codebook_size),
      'share_of_order1': (
        figures['bits_per_code'] / references['order1_bits_per_code']
      ),
    }
  )
  return {
    'job': 'likelihood',
    'figures': figures,
    'protocol': {
      **facts,
      'images': len(held_out),
      'image_size': protocol.data.image_size,
      'crop': 'center',
      'num_codes': sizes.num_codes,
      'codebook_size': sizes.codebook_size,
      'conditional': bool(classes),
      'label_drop': vim.config.label_drop,
      'train_crop': protocol.data.crop,
      'train_passes': protocol.passes,
      'train_draws': len(train),
      'seed': vim.config.run.seed,
      'precision': vim.config.run.precision,
      'weights': 'average' if vim.config.optimizer.ema_decay else 'last',
      'vim_step': vim.step,
      'tokenizer_fingerprint': restore.fingerprint(tokenizer.model),
      'tokenizer_step': tokenizer.step,
    },
  }


def _figures(nats: np.ndarray, image_size: int) -> dict[str, float]:
  """Figures of the codes' nats, float64 `[images, num_codes]`."""
  num_codes = nats.shape[1]
  per_image = nats.mean(axis=1)
  mean = float(per_image.mean())
  spread = float(per_image.std(ddof=1)) if len(nats) > 1 else math.nan
  dimensions = image_size**2 * _CHANNELS
  figures = {}
  for unit, factor in (('nats', 1.0), ('bits', _BITS_PER_NAT)):
    figures[f'{unit}_per_code'] = mean * factor
    figures[f'{unit}_per_image'] = mean * factor * num_codes
    figures[f'{unit}_per_dimension'] = mean * factor * num_codes / dimensions
  figures['bits_per_code_standard_error'] = (
    spread * _BITS_PER_NAT / math.sqrt(len(nats))
  )
  return figures


def _nats(score, codes, labels, batch_size: int) -> np.ndarray:
  """Negative log-likelihood of each code, float64 `[images, num_codes]`."""
  parts = []
  for start in range(0, len(codes), batch_size):
    # The last batch is filled up, so that all are traced once.
    part = np.arange(start, start + batch_size) % len(codes)
    parts.append(score(codes[part], labels[part]))
  return np.concatenate(parts)[: len(codes)].astype(np.float64)


def _find_codes(
  tokenizer: restore.Restored,
  vim: restore.Restored,
  protocol: LikelihoodProtocol,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict]:
  """The codes of a cache, or of the images, made here.

  Returns:
    Training codes, int32 `[count, num_codes]`; held-out ones, int32
    `[images, num_codes]`, and the class of each; what the protocol says of all.
  """
  data, seed = protocol.data, vim.config.run.seed
  size, most = protocol.batch_size, protocol.max_images
  passes = protocol.passes
  if protocol.codes:
    cache = codes_lib.Cache(protocol.codes)
    cache.check_fits(
      dataclasses.replace(vim.config, data=data),
      restore.fingerprint(tokenizer.model),
    )
    cache.check_files()
    name, train, held_out = data.name, cache.train, cache.evaluation
    origin = f'cache {cache.fingerprint}'
    passes = min(passes, train.crops)
    draws = codes_lib.training_batches(
      cache, batch_size=size, seed=seed, balance_classes=data.balance_classes
    )
    batches = codes_lib.evaluation_batches(
      cache, batch_size=size, max_examples=most
    )

    def codes_of(batch):
      return batch['codes'].numpy()
  else:
    if data.image_size != tokenizer.config.model.image_size:
      raise UserError(
        f'The images are of {data.image_size} pixels, but the tokenizer takes '
        f'{tokenizer.config.model.image_size}.'
      )
    train, held_out = (
      sources.load(data, split, protocol.on_bad_example)
      for split in (data.train_split, data.eval_split)
    )
    name, origin = train.name, 'made from the images'
    draws = pipeline.training_batches(train, data, batch_size=size, seed=seed)
    batches = pipeline.evaluation_batches(
      held_out, data, batch_size=size, max_examples=most
    )
    encode = replicas.OnReplicas(
      tokenizer.model.encode, replicas.of(tokenizer.model)
    )

    def codes_of(batch):
      return encode(batch['images'])

  count = min(
    passes * train.num_examples,
    max(1, protocol.max_train_codes // vim.config.model.num_codes),
  )
  logging.info('The codes of %d training images.', count)
  learned = [codes_of(batch) for batch in draws.take(-(-count // size))]
  codes, labels = [], []
  for batch in batches:
    keep = batch['mask'].numpy() > 0
    codes.append(codes_of(batch)[keep])
    labels.append(batch['labels'].numpy()[keep])
  return (
    np.concatenate(learned)[:count],
    np.concatenate(codes),
    np.concatenate(labels),
    {
      'data': name,
      'split': held_out.split,
      'data_fingerprint': held_out.fingerprint,
      'codes': origin,
      'train_split': train.split,
      'train_data_fingerprint': train.fingerprint,
    },
  )
