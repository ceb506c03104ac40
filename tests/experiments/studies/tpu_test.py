"""Tests of what the TPU's compiler is asked, and of what is made of its answer.

The compiler itself is not here: it has an environment of its own.
"""

import gzip
import json
import pathlib
from unittest import mock

from absl import flags
from absl.testing import flagsaver
import tensorflow as tf
from tensorflow.compiler.xla import xla_data_pb2
from tensorflow.compiler.xla.service import hlo_pb2

from experiments.studies.tpu import lowering, table
from experiments.studies.tpu.chips import CHIPS
from experiments.studies.tpu.programs import PROGRAMS, Program
from tests import programs as programs_lib
from vim_tf.config import UserError

_FOUND = {
  'fits': True,
  'argument_bytes': 3 * 2**30,
  'output_bytes': 3 * 2**30,
  'aliased_bytes': 2 * 2**30,
  'temporary_bytes': 4 * 2**30,
  'code_bytes': 0,
  'flops': 16e12,
  'cpu_seconds': 90.0,
}
_FULL = {
  'fits': False,
  'error': 'RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of '
  'memory in memory space hbm. Used 36.52G of 15.75G hbm. Exceeded by 20.77G.',
  'cpu_seconds': 60.0,
}


def _program(function, *specs) -> hlo_pb2.HloModuleProto:
  text = lowering.lower(function, specs)
  return hlo_pb2.HloModuleProto.FromString(text)


def _opcodes(module) -> list[str]:
  return [i.opcode for c in module.computations for i in c.instructions]


class LoweringTest(tf.test.TestCase):
  def test_variables_take_no_memory(self):
    with lowering.no_weights():
      layer = tf.keras.layers.Dense(2**18)
      layer.build([None, 2**18])  # 256 GiB of weights.
      found = _program(layer, tf.TensorSpec([1, 2**18]))
    shapes = [
      list(parameter.dimensions)
      for parameter in found.host_program_shape.parameters
    ]
    self.assertCountEqual(shapes, [[1, 2**18], [2**18, 2**18], [2**18]])

  def test_variables_of_any_type(self):
    for dtype in (tf.float32, tf.bfloat16, tf.int64, tf.bool):
      with lowering.no_weights():
        variable = tf.Variable(tf.zeros([2, 3], dtype))
      self.assertEqual((variable.dtype, variable.shape), (dtype, [2, 3]))

  def test_replicas_sum_what_they_sum(self):
    def step(x):
      context = tf.distribute.get_replica_context()
      y, z = context.all_reduce(
        tf.distribute.ReduceOp.SUM, [x / 2.0, tf.reduce_sum(x)]
      )
      return y + z / context.num_replicas_in_sync

    spec = (tf.TensorSpec([3]),)
    with lowering.among(8):
      together = _program(step, *spec)
      sizes = lowering.sizes(lowering.lower(step, spec))
    self.assertEqual(sizes['summed_bytes'], 4 * (3 + 1))
    self.assertEqual(_opcodes(together).count('all-reduce'), 2)
    channels = {
      i.channel_id
      for c in together.computations
      for i in c.instructions
      if i.opcode == 'all-reduce'
    }
    self.assertLen(channels, 2)
    self.assertNotIn('all-reduce', _opcodes(_program(step, *spec)))

  def test_float32_products_are_those_of_the_strategy_for_tpus(self):
    switch = tf.config.experimental.enable_tensor_float_32_execution
    self.addCleanup(switch, True)
    path = pathlib.Path(self.create_tempdir().full_path) / 'program'
    lowering.write(Program('features', 'tiny', 2), path)
    module = hlo_pb2.HloModuleProto.FromString(
      gzip.decompress(path.read_bytes())
    )
    precisions = [
      list(i.precision_config.operand_precision)
      for c in module.computations
      for i in c.instructions
      if i.opcode == 'dot'
    ]
    self.assertIn([xla_data_pb2.PrecisionConfig.HIGHEST] * 2, precisions)

  def test_names_do_not_count(self):
    def doubled(name):
      return lowering.lower(
        lambda x: tf.multiply(x, 2.0, name), (tf.TensorSpec([3]),)
      )

    short, long = doubled('a'), doubled('a' * 500)
    self.assertGreater(len(long), len(short) + 400)
    # The program has a name of its own, with a number.
    self.assertAlmostEqual(
      *(lowering.sizes(text)['hlo_bytes'] for text in (short, long)), delta=10
    )

  def test_every_program_can_be_made(self):
    for name, program in PROGRAMS.items():
      with self.subTest(name):
        self.assertIn(program.function, lowering.FUNCTIONS)
        self.assertEqual(program.config().run.precision, 'bfloat16')
        for chip in CHIPS.values():
          self.assertIn(program.replicas, chip.topologies)


class TableTest(tf.test.TestCase):
  def _rows(self, name, **chips) -> list[str]:
    record = {'chips': chips, 'hlo_bytes': 2_500_000, 'summed_bytes': 3e9}
    text = table.markdown({name: record})
    return [line for line in text.splitlines() if name in line]

  def test_one_chip(self):
    v4, v5e, rest = self._rows('vim_base', v4=_FOUND, v5e=_FULL)
    # What is updated is in memory once: 3 + 3 - 2 + 4 of 32.
    self.assertEqual(
      v4,
      '| vim_base | v4 | yes | 8 | 3.22 | 4.29 | 25% | 2.00 | 4.48 | 2.5 | 0 | '
      '1.5 |',
    )
    self.assertIn('| v5e | no: used 36.52G of 15.75G hbm | 8 |', v5e)
    self.assertEqual(rest, 'Not compiled yet: vim_base (v5p).')

  def test_several_chips(self):
    v4, v5e, _ = self._rows('vit_vqgan_ss_on_8', v4=_FOUND)
    # Seven of eight parts there and seven back, at 2400 Gbps.
    sent = 2 * 3 * 7 / 8 / 0.3
    program = PROGRAMS['vit_vqgan_ss_on_8']
    self.assertBetween(program.flops(), 1.2e12, 1.3e12)
    self.assertEqual(
      v4,
      f'| vit_vqgan_ss_on_8 | v4 | yes | 8 | 3.00 | {sent:.1f} | '
      f'{2 * program.flops() / 275e9:.1f} |',
    )
    self.assertIn('| v5e | not compiled | 8 | 3.00 |', v5e)
    unknown = {'vit_vqgan_ss_on_8': {'chips': {}}}
    self.assertEndsWith(
      table.markdown(unknown), 'Not compiled yet: vit_vqgan_ss_on_8.\n'
    )


class StudyTest(tf.test.TestCase):
  """The command, with a stand-in for TensorFlow's part and for the compiler."""

  def setUp(self):
    super().setUp()
    self._out = pathlib.Path(self.create_tempdir().full_path)
    self._program, self._sources, self._done = b'one', 'first', []
    self._breaks = None

  def _run(self, *arguments):
    """What was lowered and compiled, in its order."""

    def lower(program, path):
      del program
      self._done.append('lower')
      path.write_bytes(gzip.compress(self._program))
      return {'hlo': self._program.decode(), 'hlo_bytes': 3, 'summed_bytes': 0}

    def run(python, script, program, result, wanted):
      del python, script
      self._done.append(json.loads(wanted)['topology'])
      if self._done[-1] == self._breaks:
        raise UserError('It ends with status -6.')
      self.assertEqual(gzip.decompress(program.read_bytes()), self._program)
      result.write_text(json.dumps(_FOUND))

    with (
      programs_lib.defined('experiments.studies.tpu') as (module, _),
      mock.patch.object(module, '_lowered', lower),
      mock.patch.object(module, '_run', run),
      mock.patch.object(module, '_environment', lambda out: 'python'),
      mock.patch.object(module, '_sources', lambda: self._sources),
      flagsaver.flagsaver(),
    ):
      flags.FLAGS(['', f'--out={self._out}', *arguments])
      module.main()
    done, self._done = self._done, []
    return done

  def test_goes_on_where_it_stopped(self):
    only = '--only=vim_base,vit_vqgan_ss_on_8'
    found = self._run(only, '--chips=v4')
    self.assertEqual(found, ['lower', 'v4:2x2x1', 'lower', 'v4:2x2x2'])
    self.assertEqual(self._run(only, '--chips=v4'), [])
    found = self._run(only, '--chips=v4,v5e')
    self.assertEqual(found, ['v5e:2x2', 'v5e:2x4'])
    self.assertEqual(self._run('--table_only'), [])
    text = (self._out / 'table.md').read_text()
    self.assertIn('| vim_base | v5e | yes | 8 |', text)
    self.assertIn(' vim_base (v5p), ', text)  # What is not compiled yet.

  def test_new_sources_count_if_they_change_the_program(self):
    only = '--only=vim_base', '--chips=v4,v5e'
    self._run(*only)
    self._sources = 'later'
    self.assertEqual(self._run(*only), ['lower'])
    self._sources, self._program = 'last', b'two'
    self.assertEqual(self._run(*only), ['lower', 'v4:2x2x1', 'v5e:2x2'])

  def test_where_the_compiler_breaks_the_others_are_done(self):
    self._breaks = 'v4:2x2x1'
    with self.assertRaisesRegex(UserError, 'Not compiled: vim_base for v4;'):
      self._run('--only=vim_base', '--chips=v4,v5e')
    self._done, self._breaks = [], None
    found = self._run('--only=vim_base', '--chips=v4,v5e')
    self.assertEqual(found, ['v4:2x2x1'])


if __name__ == '__main__':
  tf.test.main()
