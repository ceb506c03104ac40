"""The likelihood of codes in training, without a table of all logits.

All logits of 8 images of the paper's size take a quarter of a gigabyte in
float32, and their gradient as much. Here a part of the positions goes through
the head at a time, and the gradients are made while its logits are there.
"""

import tensorflow as tf

from vim_tf.nn import layers

MOST_ROWS = 2048
"""Positions that go through the head at once."""


def of_codes(
  x: tf.Tensor, head: layers.HeldDense, codes: tf.Tensor, most: int = MOST_ROWS
) -> tuple[tf.Tensor, tf.Tensor]:
  """Sums over all codes, the first of which has gradients.

  Args:
    x: `[batch, num_codes, width]`, what the head makes logits of; static.
    head: Gives logits in its own type, the softmax of which is float32.
    codes: int32 `[batch, num_codes]`.
    most: Positions that go through the head at once.

  Returns:
    Nats of the codes, and how many have the largest logit, float32 scalars.
  """
  width, rows = x.shape[-1], x.shape[0] * x.shape[1]
  parts = next(n for n in range(-(-rows // most), rows + 1) if rows % n == 0)
  codes = tf.reshape(codes, [parts, -1])

  def one(x, kernel, bias, codes):
    """Both sums, and the gradients of the first by x, kernel and bias."""
    logits = tf.nn.bias_add(tf.matmul(x, kernel), bias)
    logits = tf.cast(logits, tf.float32)
    with tf.GradientTape() as tape:
      tape.watch(logits)
      nats = tf.reduce_sum(
        tf.nn.sparse_softmax_cross_entropy_with_logits(codes, logits)
      )
    by_logits = tf.cast(tape.gradient(nats, logits), x.dtype)
    found = tf.argmax(logits, axis=-1, output_type=tf.int32)
    return (
      nats,
      tf.reduce_sum(tf.cast(found == codes, tf.float32)),
      tf.matmul(by_logits, kernel, transpose_b=True),
      tf.cast(tf.matmul(x, by_logits, transpose_a=True), tf.float32),
      tf.reduce_sum(tf.cast(by_logits, tf.float32), axis=0),
    )

  @tf.custom_gradient
  def call(x, kernel, bias):
    lines = tf.reshape(x, [parts, -1, width])
    weights = [tf.cast(w, head.compute_dtype) for w in (kernel, bias)]

    def step(i, by_x, *sums):
      nats, right, new, *others = one(lines[i], *weights, codes[i])
      sums = [a + b for a, b in zip(sums, (nats, right, *others), strict=True)]
      return i + 1, by_x.write(i, new), *sums

    if parts == 1:
      nats, right, by_x, *others = one(lines[0], *weights, codes[0])
    else:
      sums = [tf.zeros([])] * 2 + [tf.zeros(w.shape) for w in (kernel, bias)]
      _, by_x, nats, right, *others = tf.while_loop(
        lambda i, *_: i < parts,
        step,
        (
          tf.constant(0),
          tf.TensorArray(x.dtype, parts, element_shape=lines.shape[1:]),
          *sums,
        ),
        maximum_iterations=parts,
      )
      by_x = by_x.stack()

    def gradient(by_nats, by_right):
      del by_right  # It has steps alone.
      by_input = by_nats * tf.cast(tf.reshape(by_x, x.shape), tf.float32)
      return tf.cast(by_input, x.dtype), *(by_nats * other for other in others)

    return (nats, right), gradient

  return call(x, *map(tf.convert_to_tensor, (head.kernel, head.bias)))
