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
  """Counts how often each code was used since the last revival."""

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
  kmeans: int = 0,
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
    kmeans: Iterations of k-means, for a start with all codes dead: outputs are
      drawn one by one, each in proportion to its squared distance from those
      drawn before (k-means++: Arthur and Vassilvitskii, 2007), and so often
      replaced by the means of the outputs nearest to them.

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

  own = tf.reshape(vectors, [-1, quantizer.code_dim])
  context = tf.distribute.get_replica_context()
  if context.num_replicas_in_sync > 1:
    keys = context.all_gather(keys, axis=0)
    vectors = context.all_gather(vectors, axis=0)
    if kmeans:
      seeds = context.all_gather(tf.bitcast(seeds, tf.int32), axis=0)
      seeds = tf.bitcast(seeds, tf.uint32)
  # What was gathered has lost its static size.
  size = features.shape[0] * features.shape[1] * context.num_replicas_in_sync
  keys = tf.reshape(keys, [size])
  vectors = tf.reshape(vectors, [size, quantizer.code_dim])
  candidates = min(size, quantizer.codebook_size)
  if kmeans:
    seeds = tf.reshape(seeds, [size // features.shape[1]])
    best = _spread(vectors, seeds, candidates)
  else:
    best = tf.gather(vectors, tf.math.top_k(keys, k=candidates).indices)
  rank = tf.cumsum(tf.cast(dead, tf.int32)) - 1
  new = tf.gather(best, tf.maximum(rank, 0) % candidates)
  for variable in (quantizer.codebook, *copies):
    variable.assign(tf.where(dead[:, None], new, variable))
  for _ in range(kmeans):
    centres = _centres(quantizer, own)
    for variable in (quantizer.codebook, *copies):
      variable.assign(centres)
  return tf.reduce_sum(tf.cast(dead, tf.float32))


def _spread(vectors, seeds, number: int):
  """Draws `[number, code_dim]` of all images' vectors, as k-means++ does."""
  size = vectors.shape[0]

  def draw(i, chosen, distance):
    noise = randomness.uniform(
      seeds, (size // seeds.shape[0],), _STREAM + 2 + i
    )
    noise = randomness.gumbel(tf.reshape(noise, [size]))
    best = tf.argmax(tf.math.log(distance + 1e-12) + noise)
    vector = tf.gather(vectors, best)  # By an index XLA would compile anew.
    chosen = tf.tensor_scatter_nd_update(chosen, [[i]], vector[None])
    new = tf.reduce_sum(tf.math.squared_difference(vectors, vector), axis=-1)
    return i + 1, chosen, tf.minimum(distance, new)

  _, chosen, _ = tf.while_loop(
    lambda i, *_: i < number,
    draw,
    (
      tf.constant(0),
      tf.zeros([number, vectors.shape[1]]),
      tf.fill([size], 1e30),  # The first draw is uniform.
    ),
    maximum_iterations=number,
  )
  return chosen


def _centres(quantizer, vectors):
  """Each code's mean of the vectors, of all replicas, nearest to it."""
  size = quantizer.codebook_size
  nearest = quantizer.nearest(vectors[None])[0]
  totals = tf.distribute.get_replica_context().all_reduce(
    tf.distribute.ReduceOp.SUM,
    [
      tf.math.unsorted_segment_sum(vectors, nearest, size),
      count(nearest, size)[:, None],
    ],
  )
  means = totals[0] / tf.maximum(totals[1], 1.0)
  if quantizer.l2_normalize:
    means = tf.math.l2_normalize(means, axis=-1)
  return tf.where(totals[1] > 0, means, quantizer.codebook)
