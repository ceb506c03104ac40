"""Drawing images with both stages together."""

import numpy as np
import tensorflow as tf

from experiments import pictures
from vim_tf.vim import decoding, sampling


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
  decoder = decoding.Decoder(vim)
  to_images = tf.function(tokenizer.decode, autograph=False)
  codes, images = [], []
  for start in range(0, len(ids), batch_size):
    part = np.arange(start, start + batch_size) % len(ids)
    found = decoder(np.asarray(ids)[part], np.asarray(seeds)[part], config)
    codes.append(found)
    images.append(pictures.to_bytes(to_images(tf.constant(found))))
  return np.concatenate(codes)[: len(ids)], np.concatenate(images)[: len(ids)]
