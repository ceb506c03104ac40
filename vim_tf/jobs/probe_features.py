"""What a linear probe looks at: VIM's blocks, and what they must beat.

An extractor makes of images features by name; names of blocks end with their
index. `feature_batches` are what the probe is trained on.
"""

from collections.abc import Callable
import re

from absl import logging
import numpy as np
import tensorflow as tf

from vim_tf.config import ProbeConfig, Stage1Config, UserError
from vim_tf.data import pipeline
from vim_tf.jobs import restore
from vim_tf.nn import replicas
from vim_tf.probe import features as features_lib
from vim_tf.training import workdir as workdir_lib
from vim_tf.vim import model as vim_model
from vim_tf.vit_vqgan import model as vit_vqgan_model

BATCH = 64
"""Images at once; changes no feature."""

BLOCK, UNTRAINED = 'block_', 'untrained_block_'
PIXELS, CODE_VECTORS, CODE_COUNTS = 'pixels', 'code_vectors', 'code_counts'
NETWORK = 'network'

_MOST_PIXELS = 64  # Side of an image whose pixels are a baseline.

Extractor = Callable[[tf.Tensor], dict[str, np.ndarray]]


def block_index(name: str) -> int | None:
  """Index of the block that features are of; None if of none."""
  found = re.fullmatch(f'({BLOCK}|{UNTRAINED})([0-9]+)', name)
  return int(found[2]) if found else None


def check_block(vim: vim_model.VIM, block: int | None):
  """Raises a `UserError` if a VIM has no such block."""
  count = vim.config.transformer.num_blocks
  if block is not None and block >= count:
    raise UserError(
      f'There is no block {block}: the VIM has the blocks 0 to {count - 1}.'
    )


def warn(tokenizer: restore.Restored, vim: restore.Restored):
  """Says in words what keeps the features from being those of the paper."""
  if uses_labels(tokenizer):
    logging.warning(
      'The tokenizer was trained with the perceptual loss, whose VGG16 has '
      'seen the labels of ImageNet: what a probe finds here was not learned '
      'without labels. The paper probes a tokenizer that was trained with '
      '--perceptual_weight=0 (3.3).'
    )
  if vim.config.model.num_classes:
    logging.warning(
      'The VIM is class-conditional: it learned with labels, and is now fed '
      "'no class'. The paper probes an unconditional VIM (--num_classes=0)."
    )
    if not vim.config.label_drop:
      logging.warning(
        "The VIM never met 'no class' in its training, because label_drop "
        'was 0: its features may be poor.'
      )


def uses_labels(tokenizer: restore.Restored) -> bool:
  """Whether a network trained with labels has shaped the codes."""
  config = tokenizer.config
  while config.finetune_decoder_of:  # The codes are those of that run.
    try:
      config = workdir_lib.read_config(
        config.finetune_decoder_of, 'vit_vqgan', Stage1Config
      )
    except UserError:
      logging.warning(
        'The codes are those of %s, which cannot be read: nobody knows '
        'whether the perceptual loss has shaped them.',
        config.finetune_decoder_of,
      )
      return False
  return config.losses.perceptual > 0


def extractor(
  tokenizer: restore.Restored, vim: restore.Restored, config: ProbeConfig
) -> Extractor:
  """Of the VIM, its codes, the pixels and an ImageNet network."""
  compute = features_function(
    tokenizer.model, vim.model, config.fixed_block, config.baselines
  )
  network = None
  if config.network:
    from vim_tf.metrics import feature_networks  # Brings TF-GAN.

    with replicas.of(vim.model).scope():
      network = feature_networks.load(config.network)

  on_replicas = replicas.OnReplicas(compute, replicas.of(vim.model))

  def with_network(images):
    return {**on_replicas(images), NETWORK: network(images)[0]}

  return with_network if network else on_replicas


def features_function(
  tokenizer: vit_vqgan_model.ViTVQGAN,
  vim: vim_model.VIM,
  block: int | None,
  baselines: bool,
) -> Callable:
  """What a replica computes of its images: all but the network's features."""

  def compute(images):
    codes = tokenizer.encode(images)
    found = _blocks(vim, codes, block)
    if baselines:
      vectors = tokenizer.quantizer.lookup(codes)
      found[PIXELS] = pixels(images)
      found[CODE_VECTORS] = tf.reduce_mean(vectors, axis=1)
      found[CODE_COUNTS] = tf.reduce_mean(
        tf.one_hot(codes, tokenizer.config.codebook_size), axis=1
      )
    return found

  return compute


def untrained_extractor(
  tokenizer: restore.Restored,
  vim: restore.Restored,
  config: ProbeConfig,
  seed: int,
) -> Extractor:
  """Of a VIM of the same sizes with random weights, on the same codes."""
  tf.keras.utils.set_random_seed(seed)
  with replicas.of(vim.model).scope():
    model = vim_model.VIM(
      vim.config.model, dtype=vim.model.dtype_policy.name, name='untrained'
    )
    model.build()

  def compute(images):
    codes = tokenizer.model.encode(images)
    found = _blocks(model, codes, config.fixed_block)
    return {f'untrained_{name}': value for name, value in found.items()}

  return replicas.OnReplicas(compute, replicas.of(model))


def pixels(images: tf.Tensor) -> tf.Tensor:
  """Raw pixels, `[batch, num_values]`; large images are made smaller."""
  if images.shape[1] > _MOST_PIXELS:
    shares = tf.constant(_shares(images.shape[1], _MOST_PIXELS))
    images = tf.einsum('ih,jw,bhwc->bijc', shares, shares, images)
  return tf.reshape(images, [-1, images.shape[1] * images.shape[2] * 3])


def _shares(size: int, smaller: int) -> np.ndarray:
  """The part of each pixel in the mean that a larger one is, along one side.

  As `tf.image.resize` does it by 'area', which no TPU runs.

  Returns:
    float32 `[smaller, size]`.
  """
  edges = np.arange(smaller + 1) * size / smaller
  first, last = np.arange(size), np.arange(size) + 1
  overlap = np.minimum(edges[1:, None], last) - np.maximum(
    edges[:-1, None], first
  )
  return np.float32(np.maximum(overlap, 0.0) * smaller / size)


def _blocks(model, codes, block: int | None) -> dict[str, tf.Tensor]:
  found = features_lib.block_features(model, codes, block)
  if block is None:
    return found
  return {features_lib.block_name(block): found[features_lib.block_name(block)]}


@tf.autograph.experimental.do_not_convert
def feature_batches(
  table: features_lib.Table,
  images: np.ndarray,
  batch_size: int,
  seed: int,
  start_step: int,
  input_context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
  """Endless batches of features; each crop of each image is an example.

  Args:
    table: The features.
    images: Indices of the images to draw from.
    batch_size: Examples of one step.
    seed: The order is a function of it.
    start_step: Step of the first batch.
    input_context: Of `tf.distribute`: each input pipeline gives its
      contiguous share of every batch.

  Returns:
    Dictionaries: float32 `[batch, width]` by the name of the features;
    'labels', int32 `[batch]`. `batch` is `batch_size` divided by the number
    of input pipelines.
  """
  size, share = pipeline.own_share(batch_size, input_context)
  count = table.num_passes * len(images)
  start = start_step * batch_size
  draws = pipeline.draw_examples(count, None, seed=seed, epoch=start // count)
  names = list(table.features)

  def read(index):
    crop, place = np.divmod(index, len(images))
    image = images[place]
    return [
      *(table.features[name][crop, image] for name in names),
      table.labels[image],
    ]

  def gather(drawn):
    drawn = share(drawn)
    values = tf.numpy_function(
      read, [drawn['index']], [tf.float32] * len(names) + [tf.int32]
    )
    batch = dict(zip([*names, 'labels'], values))
    for name in names:
      batch[name].set_shape([size, table.features[name].shape[-1]])
    batch['labels'].set_shape([size])
    return batch

  data = draws.skip(start % count).batch(batch_size, drop_remainder=True)
  return data.map(gather).prefetch(2).with_options(pipeline.options())
