"""How well a tokenizer reconstructs held-out images, with the protocol."""

from collections.abc import Callable

from absl import logging
import numpy as np
import tensorflow as tf

from vim_tf.config import UserError
from vim_tf.data import pipeline, sources
from vim_tf.jobs import pictures, restore
from vim_tf.metrics import (
  codebook,
  feature_networks,
  generation,
  reconstruction,
)
from vim_tf.nn import replicas
from vim_tf.protocols import ReconstructionProtocol
from vim_tf.vit_vqgan import losses, lpips
from vim_tf.vit_vqgan import model as model_lib

_SHOWN = 8  # Images each of the best, the median and the worst.


def evaluate(
  tokenizer: restore.Restored, protocol: ReconstructionProtocol | None = None
) -> tuple[dict, np.ndarray]:
  """Measures reconstructions.

  Args:
    tokenizer: The trained model.
    protocol: What to measure on, and how; None: its defaults.

  Returns:
    Figures and protocol as one JSON object, and a uint8 picture with rows of
    the best, the median and the worst reconstructions (by PSNR), each row of
    originals above that of its reconstructions.

  Raises:
    UserError: If there are no images, or they are of another size.
  """
  protocol = protocol or ReconstructionProtocol()
  data = protocol.data or tokenizer.config.data
  if data.image_size != tokenizer.config.model.image_size:
    raise UserError(
      f'The images are of {data.image_size} pixels, but the tokenizer takes '
      f'{tokenizer.config.model.image_size}.'
    )
  source = sources.load(data, data.eval_split, protocol.on_bad_example)

  def batches():
    return pipeline.evaluation_batches(
      source,
      data,
      batch_size=protocol.batch_size,
      max_examples=protocol.max_images,
    )

  form = tokenizer.config.losses.logit_laplace_form
  with replicas.of(tokenizer.model).scope():
    measure = replicas.OnReplicas(
      measure_function(tokenizer.model, protocol.perceptual, form),
      replicas.of(tokenizer.model),
    )
    network = None
    if protocol.network:
      network = feature_networks.load(protocol.network)
  meter = codebook.CodebookMeter(tokenizer.config.model.codebook_size)
  means = reconstruction.MeanAccumulator()
  psnr, real, rebuilt = [], [], []
  for batch in batches():
    keep = batch['mask'].numpy() > 0
    codes, images, values = measure(batch['images'])
    meter.update(codes[keep])
    means.update({name: x[keep] for name, x in values.items()})
    psnr.append(values['psnr'][keep])
    if network is not None:
      real.append(network(batch['images'])[0][keep])
      rebuilt.append(network(images)[0][keep])
    logging.info('%d images are measured.', sum(map(len, psnr)))
  if not psnr:
    raise UserError(f'{source.name} {source.split} holds no images.')
  psnr = np.concatenate(psnr)
  figures = {**reconstruction.summarize(means.result()), **meter.result()}
  if network is not None:
    real, rebuilt = np.concatenate(real), np.concatenate(rebuilt)
    scores = generation.compare(real, rebuilt, network.name)
    # Reconstruction distances must not be taken for those of samples.
    figures.update({f'r{name}': value for name, value in scores.items()})
    figures.update(generation.floor(real, network.name))
  if protocol.precisions:
    figures.update(_compare_precisions(tokenizer.model, batches()))
  return {
    'job': 'reconstruction',
    'figures': figures,
    'protocol': {
      'data': source.name,
      'split': source.split,
      'data_fingerprint': source.fingerprint,
      'images': len(psnr),
      'image_size': data.image_size,
      'crop': 'center',
      'network': protocol.network,
      'network_source': network.source if network is not None else '',
      'tokenizer_fingerprint': restore.fingerprint(tokenizer.model),
      'tokenizer_step': tokenizer.step,
    },
  }, _picture(tokenizer.model, batches(), psnr)


def measure_function(
  model: model_lib.ViTVQGAN, with_lpips: bool, form: str
) -> Callable:
  """What a replica measures of its images.

  Args:
    model: The tokenizer.
    with_lpips: Whether LPIPS is measured.
    form: As `LossConfig.logit_laplace_form`.

  Returns:
    A function from images to codes, reconstructions and figures by name.
  """
  perceptual = lpips.LPIPS() if with_lpips else None

  def measure(images):
    out = model(images)
    rebuilt = tf.clip_by_value(out['reconstruction'], 0.0, 1.0)
    values = reconstruction.per_image(images, rebuilt)
    if perceptual is not None:
      values['lpips_vgg'] = perceptual(images, rebuilt)
    if model.config.logit_laplace:
      nll = losses.logit_laplace_nll(
        images, out['mu'], out['log_scale'], form=form
      )
      # In the paper's units, whatever was trained on.
      if form == 'binned':
        nll = losses.binned_to_density(nll)
      values['logit_laplace_nll'] = nll
    return out['codes'], rebuilt, values

  return measure


def _compare_precisions(model, batches) -> dict[str, float]:
  """Share of codes that bfloat16 leaves as they are, and the use of both."""
  encoders, meters = [], []
  strategy = replicas.of(model)
  for policy in ('float32', 'mixed_bfloat16'):
    with strategy.scope():
      copy = model_lib.ViTVQGAN(model.config, dtype=policy)
      copy.build()
    copy.set_weights(model.get_weights())
    encoders.append(replicas.OnReplicas(copy.encode, strategy))
    meters.append(codebook.CodebookMeter(model.config.codebook_size))
  same = count = 0
  for batch in batches:
    keep = batch['mask'].numpy() > 0
    found = [encode(batch['images'])[keep] for encode in encoders]
    for meter, codes in zip(meters, found, strict=True):
      meter.update(codes)
    same += np.sum(found[0] == found[1])
    count += found[0].size
  usages = [meter.result()['usage'] for meter in meters]
  return {
    'same_codes_bfloat16': float(same / count),
    'usage_float32': usages[0],
    'usage_bfloat16': usages[1],
  }


def _picture(model, batches, psnr: np.ndarray) -> np.ndarray:
  """Best, median and worst in three pairs of rows."""
  order = np.argsort(-psnr)
  count = min(_SHOWN, len(order))
  middle = (len(order) - count) // 2
  chosen = np.concatenate(
    [order[:count], order[middle : middle + count], order[-count:]]
  )
  found, position = {}, 0
  for batch in batches:
    for image in batch['images'][batch['mask'] > 0]:
      if position in chosen:
        found[position] = image
      position += 1
  images = np.stack([found[place] for place in chosen])
  rebuild = replicas.OnReplicas(model.reconstruct, replicas.of(model))
  return pictures.pairs(images, rebuild(images), count)
