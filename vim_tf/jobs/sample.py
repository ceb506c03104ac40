"""Drawing images with both stages together."""

import numpy as np
import tensorflow as tf

from vim_tf.data import images as images_lib
from vim_tf.jobs import pictures
from vim_tf.metrics import classifiers
from vim_tf.vim import decoding, rejection, sampling


class Sampler:
  """Draws codes and turns them into images.

  Args:
    tokenizer: Turns codes into images.
    vim: Draws the codes, with the weights of the first call.
  """

  def __init__(self, tokenizer, vim):
    self._decoder = decoding.Decoder(vim, frozen=True)
    self._decode = decoder(tokenizer)

  def __call__(
    self,
    ids,
    seeds,
    config: sampling.SamplingConfig,
    prefix: np.ndarray | None = None,
    prefix_length: int = 0,
  ) -> tuple[np.ndarray, np.ndarray]:
    """Draws one batch.

    Args:
      ids: Class of each image.
      seeds: Seed of each image.
      config: How to draw.
      prefix: Optional codes `[num_codes]` that every image starts from.
      prefix_length: How many codes of it are kept.

    Returns:
      Codes int32 `[batch, num_codes]` and uint8 images.
    """
    codes = self.codes(ids, seeds, config, prefix, prefix_length)
    return codes, self._decode(codes)

  def codes(
    self, ids, seeds, config, prefix=None, prefix_length=0
  ) -> np.ndarray:
    """The codes alone; see `__call__`."""
    if prefix is not None:
      prefix = np.tile(prefix, [len(ids), 1])
    return self._decoder(ids, seeds, config, prefix, prefix_length)

  def keep_best(
    self,
    ids,
    seed: int,
    config: sampling.SamplingConfig,
    *,
    acceptance: float,
    classifier: classifiers.Classifier | None,
    batch_size: int,
    **prefix,
  ) -> rejection.Kept:
    """Draws with rejection; at acceptance 1 without, and without classifier.

    Args:
      ids: Class of each wanted image.
      seed: Seed of the first one; see `rejection.candidates`.
      config: How to draw.
      acceptance: Share of the candidates that is kept.
      classifier: Ranks them.
      batch_size: Candidates at once.
      **prefix: As of `__call__`.
    """
    return rejection.sample(
      lambda some, seeds: self(some, seeds, config, **prefix),
      lambda images: classifier(images_lib.from_uint8(images)),
      ids,
      seed=seed,
      acceptance=acceptance,
      batch_size=batch_size,
    )


def decoder(tokenizer):
  """A function from codes `[batch, num_codes]` to uint8 images."""
  to_images = tf.function(tokenizer.decode, autograph=False)
  return lambda codes: pictures.to_bytes(to_images(tf.constant(codes)))


def reconstructor(tokenizer):
  """A function from images to their reconstructions, clamped to [0, 1]."""

  @tf.function(autograph=False)
  def reconstruct(images):
    rebuilt = tokenizer.decode(tokenizer.encode(images))
    return tf.clip_by_value(rebuilt, 0.0, 1.0)

  return reconstruct


def draw(
  tokenizer, vim, ids, seeds, config: sampling.SamplingConfig, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Draws images in batches of one size, so that the loop compiles once.

  Args:
    tokenizer: Turns codes into images.
    vim: Draws the codes.
    ids: Class of each image.
    seeds: Seed of each image.
    config: How to draw.
    batch_size: Images at once.

  Returns:
    Codes int32 `[count, num_codes]` and uint8 images.
  """
  sampler = Sampler(tokenizer, vim)
  codes, images = [], []
  for start in range(0, len(ids), batch_size):
    part = np.arange(start, start + batch_size) % len(ids)
    found = sampler(np.asarray(ids)[part], np.asarray(seeds)[part], config)
    codes.append(found[0])
    images.append(found[1])
  return np.concatenate(codes)[: len(ids)], np.concatenate(images)[: len(ids)]
