"""Waking codes that nobody uses: help for small data, not in the paper.

Without it a codebook drawn at random collapses on small data sets: a few
codes win at the start, and the others never see a gradient.
"""

import tensorflow as tf

from vim_tf.nn import randomness
from vim_tf.vit_vqgan import quantizer as quantizer_lib

_STREAM = 2_000_000
_NOISE = 0.02  # Share of a vector's norm; parts codes of equal patches.


class UsageCounter(tf.Module):
  """Counts how often each code was used since the last revival.

  Args:
    codebook_size: Number of codes.
  """

  def __init__(self, codebook_size: int):
    super().__init__(name='usage_counter')
    self.counts = tf.Variable(
      tf.zeros([codebook_size]), trainable=False, name='counts'
    )

  def add(self, counts: tf.Tensor) -> tf.Tensor:
    """Adds the counts `[codebook_size]` of this replica and all others.

    Returns:
      The share of the codebook that the global batch uses, a scalar.
    """
    counts = tf.distribute.get_replica_context().all_reduce(
      tf.distribute.ReduceOp.SUM, counts
    )
    self.counts.assign_add(counts)
    return tf.reduce_mean(tf.cast(counts > 0, tf.float32))

  def reset(self):
    """Starts counting anew."""
    self.counts.assign(tf.zeros_like(self.counts))


def count(codes: tf.Tensor, codebook_size: int) -> tf.Tensor:
  """How often each code occurs: ints of any shape to float32 `[size]`."""
  flat = tf.reshape(codes, [-1])
  return tf.math.unsorted_segment_sum(
    tf.ones_like(flat, tf.float32), flat, codebook_size
  )


def replace_codes(
  quantizer: quantizer_lib.Quantizer,
  dead: tf.Tensor,
  features: tf.Tensor,
  seeds: tf.Tensor,
  copies: tuple[tf.Variable, ...] = (),
) -> tf.Tensor:
  """Sets dead codes to encoder outputs, the worst served ones first.

  Outputs are drawn without replacement with probability proportional to
  their squared distance from the nearest code (the rule of k-means++), from
  the batches of all replicas, so that every replica makes the same change.

  Args:
    quantizer: Holds the codebook.
    dead: bool `[codebook_size]`; with all codes dead the draw is uniform.
    features: This replica's encoder outputs `[batch, num_codes, code_dim]`.
    seeds: uint32 `[batch]`.
    copies: Variables that must follow the codebook: its moving average.

  Returns:
    The number of codes replaced, float32.
  """
  found = quantizer(features)
  draws = randomness.uniform(seeds, tuple(features.shape[1:2]), _STREAM)
  # Gumbel noise on the logarithm of a weight draws in proportion to it.
  weight = tf.where(tf.reduce_all(dead), 1.0, found['distance'])
  keys = tf.math.log(weight + 1e-12) + randomness.gumbel(draws)
  jitter = randomness.uniform(seeds, tuple(features.shape[1:]), _STREAM + 1)
  scale = tf.norm(features, axis=-1, keepdims=True) * _NOISE
  vectors = features + scale * (2.0 * jitter - 1.0)
  if quantizer.l2_normalize:
    vectors = tf.math.l2_normalize(vectors, axis=-1)

  context = tf.distribute.get_replica_context()
  if context.num_replicas_in_sync > 1:
    keys = context.all_gather(keys, axis=0)
    vectors = context.all_gather(vectors, axis=0)
  # What was gathered has lost its static size.
  size = features.shape[0] * features.shape[1] * context.num_replicas_in_sync
  keys = tf.reshape(keys, [size])
  vectors = tf.reshape(vectors, [size, quantizer.code_dim])
  candidates = min(size, quantizer.codebook_size)
  best = tf.gather(vectors, tf.math.top_k(keys, k=candidates).indices)
  rank = tf.cumsum(tf.cast(dead, tf.int32)) - 1
  new = tf.gather(best, tf.maximum(rank, 0) % candidates)
  for variable in (quantizer.codebook, *copies):
    variable.assign(tf.where(dead[:, None], new, variable))
  return tf.reduce_sum(tf.cast(dead, tf.float32))
