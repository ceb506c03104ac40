"""Tests that all that a replica runs compiles with XLA, in bfloat16.

TPUs run nothing else. The list is `replica_functions`; here it is tiny, and
compiled and run for the CPU.
"""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from vim_tf import presets
from vim_tf.config import replace
from vim_tf.jobs import replica_functions
from vim_tf.vit_vqgan import lpips

_BATCH = 4
_STAGE1 = {
  'run.precision': 'bfloat16',
  'model.encoder.num_blocks': '1',
  'model.decoder.num_blocks': '1',
  'adversarial.channel_multiplier': str(1 / 128),
  'losses.adversarial': '0.1',
  'losses.perceptual': '0.1',
  'optimizer.ema_decay': '0.9',
}


def _stage1():
  return replace(presets.stage1('tiny'), _STAGE1)


def _stage2(**settings):
  return replace(
    presets.stage2('tiny'), {'run.precision': 'bfloat16', **settings}
  )


def _step(kind: str) -> replica_functions.ReplicaFunction:
  perceptual = lpips.LPIPS('', dtype='bfloat16') if 'perc' in kind else None
  return replica_functions.stage1_steps(_stage1(), _BATCH, (kind,), perceptual)[
    kind
  ]


_FUNCTIONS = {
  **{
    kind.replace('+', '_'): (lambda kind=kind: _step(kind))
    for kind in (
      'center+unquantized',
      'initialize',
      'revive+adversarial',
      'perceptual+adversarial+r1',
    )
  },
  'stage2': lambda: replica_functions.stage2_step(_stage2(), _BATCH),
  'stage2_recompute_accumulate': lambda: replica_functions.stage2_step(
    _stage2(**{'run.recompute': 'true', 'optimizer.accumulate': '2'}), _BATCH
  ),
  'probe': lambda: replica_functions.probe(32, 9, _BATCH),
  'encode': lambda: replica_functions.tokenizer(_stage1(), _BATCH)['encode'],
  'decode': lambda: replica_functions.tokenizer(_stage1(), _BATCH)['decode'],
  'sample': lambda: replica_functions.sample(_stage2(), _BATCH),
}


def _example(spec: tf.TensorSpec) -> tf.Tensor:
  rng = np.random.default_rng(0)
  if spec.dtype.is_floating:
    return tf.constant(rng.uniform(0.1, 0.9, spec.shape), spec.dtype)
  return tf.cast(rng.integers(0, 2, spec.shape), spec.dtype)


class XlaTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.named_parameters(_FUNCTIONS.items())
  def test_compiles_at_static_shapes(self, make):
    tf.keras.utils.set_random_seed(1)
    function = make()
    arguments = tf.nest.map_structure(_example, function.specs)
    compiled = tf.function(function.run, jit_compile=True, autograph=False)
    found = compiled(*arguments)
    library = compiled.get_concrete_function(*arguments).graph.as_graph_def()
    self.assertFalse(
      [f for f in library.library.function if '_XlaMustCompile' in f.attr],
      'Within a program of XLA another one is compiled.',
    )
    for value in tf.nest.flatten(found):
      self.assertTrue(value.shape.is_fully_defined())
      self.assertAllEqual(
        tf.math.is_finite(tf.cast(value, tf.float32)),
        tf.ones(value.shape, tf.bool),
      )


if __name__ == '__main__':
  tf.test.main()
