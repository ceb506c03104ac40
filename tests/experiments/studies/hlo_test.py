"""Tests of counting XLA's programs, against formulas for known sizes."""

import tensorflow as tf

from experiments.studies.lowering import abstract, hlo, hlo_memory, hlo_text
from tests import testing
from vim_tf.nn import gradients, transformer


def _cost(function, *shapes, dtype=tf.float32) -> hlo.Cost:
  specs = tuple(tf.TensorSpec(shape, dtype) for shape in shapes)
  return hlo.cost(abstract.lower(function, specs))


def _working_bytes(*lines: str) -> int:
  """Of a program that is written here."""
  text = '\n'.join(('ENTRY main () -> f32[] {', *lines, '}'))
  return hlo_memory.working_bytes(*hlo_text.parse(text))


class HloTest(tf.test.TestCase):
  def test_matrix_product(self):
    found = _cost(lambda x, y: x @ y, [5, 7], [7, 11])
    self.assertEqual(found.flops, 2 * 5 * 7 * 11)
    self.assertEqual(found.argument_bytes, 4 * (5 * 7 + 7 * 11))
    half = _cost(lambda x, y: x @ y, [5, 7], [7, 11], dtype=tf.bfloat16)
    self.assertEqual(half.argument_bytes, 2 * (5 * 7 + 7 * 11))

  def test_batched_product_of_more_dimensions(self):
    found = _cost(
      lambda x, y: tf.einsum('bhqd,bhkd->bhqk', x, y),
      [2, 3, 5, 7],
      [2, 3, 6, 7],
    )
    self.assertEqual(found.flops, 2 * 2 * 3 * 5 * 6 * 7)

  def test_convolution_and_its_gradients(self):
    def gradients(x, kernel):
      with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        y = tf.nn.conv2d(x, kernel, strides=2, padding='SAME')
        loss = tf.reduce_sum(y**2)
      return tape.gradient(loss, [x, kernel])

    forward = 2 * (4 * 4 * 6) * (3 * 3 * 5) * 2
    found = _cost(
      lambda x, k: tf.nn.conv2d(x, k, 2, 'SAME'), [2, 8, 8, 5], [3, 3, 5, 6]
    )
    self.assertEqual(found.flops, forward)
    found = _cost(gradients, [2, 8, 8, 5], [3, 3, 5, 6])
    self.assertAllClose(found.flops, 3 * forward, rtol=0.01)

  def test_a_loop_counts_as_often_as_it_turns(self):
    def loop(x, y):
      return tf.while_loop(
        lambda i, x: i < 13,
        lambda i, x: (i + 1, tf.matmul(x, y)),
        (tf.constant(0), x),
        maximum_iterations=13,
      )[1]

    self.assertEqual(_cost(loop, [5, 7], [7, 7]).flops, 13 * 2 * 5 * 7 * 7)

  def test_what_nobody_needs_is_not_counted(self):
    """As where a loss has a gradient by more than the weights asked for."""

    def gradient(x, kernel):
      with tf.GradientTape() as tape:
        tape.watch(kernel)
        loss = tf.reduce_sum(tf.matmul(tf.matmul(x, x), kernel) ** 2)
        del loss
        loss = tf.reduce_sum(tf.matmul(x, kernel) ** 2)
      return tape.gradient(loss, kernel)

    found = _cost(gradient, [16, 16], [16, 16])
    self.assertEqual(found.flops, 2 * 2 * 16**3)

  def test_what_is_kept(self):
    """A chain of products keeps its factors for the backward pass."""
    size = 4 * 64 * 64

    def chain(x, kernel):
      for _ in range(5):
        x = tf.tanh(tf.matmul(x, kernel))
      return tf.reduce_sum(x)

    def gradient(x, kernel):
      with tf.GradientTape() as tape:
        tape.watch(kernel)
        loss = chain(x, kernel)
      return tape.gradient(loss, kernel)

    forward = _cost(chain, [64, 64], [64, 64]).working_bytes
    backward = _cost(gradient, [64, 64], [64, 64]).working_bytes
    self.assertBetween(forward, size, 3 * size)
    self.assertBetween(backward, 5 * size, 12 * size)

  def test_the_narrowest_form_is_kept(self):
    found = _working_bytes(
      'x = f32[8,4]{1,0} parameter(0)',
      'y = f32[8,4]{1,0} exponential(x)',
      'half = bf16[8,4]{1,0} convert(y)',
      'turned = bf16[4,8]{0,1} transpose(half), dimensions={1,0}',
      'z = bf16[8,4]{1,0} parameter(1)',
      'ROOT out = bf16[4,4]{1,0} dot(turned, z), lhs_contracting_dims={1}',
    )
    self.assertEqual(found, 2 * 8 * 4 + 2 * 4 * 4)

  def test_what_frees_more_than_it_takes_comes_first(self):
    """Two sums of each of three large values, which the text makes first."""
    large = 'f32[8,1000]{1,0}'
    lines = [f'x = {large} parameter(0)', 'w = f32[1000,1000] parameter(1)']
    for i in range(3):
      lines.append(f'y{i} = {large} dot(x, w), lhs_contracting_dims={{1}}')
    for i in range(3):
      for j in range(2):
        lines.append(f's{i}{j} = f32[8] reduce(y{i}, x), to_apply=add')
    names = ', '.join(f's{i}{j}' for i in range(3) for j in range(2))
    lines.append(f'ROOT all = (f32[8]) tuple({names})')
    found = _working_bytes(*lines)
    # A large value with its sums; what is returned takes no room.
    self.assertEqual(found, 4 * 8 * 1000 + 2 * 4 * 8)

  def test_random_numbers_wait(self):
    """Until they are needed, so that they are not kept beside another value."""
    draw = '(u64[3]{0}, u32[9]{0}) rng-bit-generator(key)'
    found = _working_bytes(
      'key = u64[3]{0} parameter(0)',
      'x = f32[9,9]{1,0} parameter(1)',
      f'random = {draw}, algorithm=rng_default',
      'y = f32[9,9]{1,0} dot(x, x), lhs_contracting_dims={1}',
      'z = f32[] reduce(y, x), to_apply=add',
      'bits = u32[9]{0} get-tuple-element(random), index=1',
      'low = u32[9]{0} and(bits, z)',
      'ROOT all = (f32[], u32[9]) tuple(z, low)',
    )
    self.assertEqual(found, 4 * 81 + 4)

  def test_recomputing_and_parts_take_less(self):
    """Of four blocks: what is kept of one, beside each one's input."""
    shape = [8, 64, 32]

    def cost_of(recompute, parts):
      layer = transformer.Transformer(
        testing.transformer_config(
          num_blocks=4, width=32, mlp_width=128, head_width=16
        ),
        causal=True,
        recompute=recompute,
      )
      layer.build(shape)

      def step(x):
        found = gradients.accumulated(
          lambda part: ([tf.reduce_sum(layer(part['x']) ** 2)], {}),
          {'x': x},
          [layer.trainable_variables],
          parts,
        )
        variables = layer.trainable_variables
        for variable, gradient in zip(variables, found[0][0], strict=True):
          variable.assign_sub(gradient)

      return _cost(step, shape), 4 * layer.count_params()

    plain, weights = cost_of(False, 1)
    recomputed, _ = cost_of(True, 1)
    self.assertLess(recomputed.working_bytes, 0.5 * plain.working_bytes)
    self.assertBetween(recomputed.flops / plain.flops, 1.15, 4 / 3)
    halves, _ = cost_of(False, 2)
    kept = plain.working_bytes - weights
    self.assertAllClose(halves.working_bytes - 2 * weights, kept / 2, rtol=0.15)
    self.assertAllClose(halves.flops, plain.flops, rtol=1e-6)

  def test_variables_take_no_memory_but_are_counted(self):
    with abstract.no_weights():
      layer = tf.keras.layers.Dense(2**18)
      layer.build([None, 2**18])  # 256 GiB of weights.
      found = _cost(layer, [1, 2**18])
    self.assertEqual(found.flops, 2.0 * 2**36)
    self.assertEqual(found.argument_bytes, 4 * (2**36 + 2**18 + 2**18))

  def test_no_program(self):
    with self.assertRaisesRegex(ValueError, 'not a program of XLA'):
      hlo.cost('nothing')


if __name__ == '__main__':
  tf.test.main()
