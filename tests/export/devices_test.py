"""Which devices have kernels for what is exported: a GPU server's, XLA's."""

from collections.abc import Iterable
import functools

from absl.testing import absltest
import tensorflow as tf
from tensorflow.core.framework import graph_pb2, node_def_pb2
from tensorflow.python.framework import kernels

from export import saved_model
from tests.export import served

# Besides what works on strings or bytes; `Tile` is that of seeds (uint32).
_ON_HOSTS = {
  'LowerBound', 'Tile',
  'BatchDatasetV2', 'ConcatenateDataset', 'DatasetToSingleElement',
  'IgnoreErrorsDataset', 'ParallelMapDatasetV2', 'RangeDataset',
  'TensorDataset', 'AsString', 'DecodeJpeg', 'DecodePng', 'DecodeRaw',
  'EncodePng', 'ExtractJpegShape', 'MergeV2Checkpoints', 'ParseExampleV2',
  'ReduceJoin', 'RestoreV2', 'SaveV2', 'ScaleAndTranslate', 'ShardedFilename',
  'StaticRegexFullMatch', 'StringFormat', 'StringJoin', 'StringLength',
  'StringSplitV2', 'Substr',
}  # fmt: skip
_HOST_TYPES = {tf.string.as_datatype_enum, tf.uint8.as_datatype_enum}


def _types(attribute) -> list[int]:
  """None, if it has the value that the op says."""
  return [x for x in (*attribute.list.type, attribute.type) if x]


@functools.cache  # A text is parsed for it.
def _kernels(op: str) -> list:
  return list(kernels.get_registered_kernels_for_op(op).kernel)


def _has_kernel(node: node_def_pb2.NodeDef, devices: set[str]) -> bool:
  return any(
    kernel.device_type in devices
    and all(
      kind in constraint.allowed_values.list.type
      for constraint in kernel.constraint
      for kind in _types(node.attr[constraint.name])
    )
    for kernel in _kernels(node.op)
  )


def _nodes(graph: graph_pb2.GraphDef) -> Iterable[node_def_pb2.NodeDef]:
  yield from graph.node
  for function in graph.library.function:
    yield from function.node_def


def _compiled(graph: graph_pb2.GraphDef) -> Iterable[node_def_pb2.NodeDef]:
  """What XLA compiles, with the functions that are called there."""
  functions = {x.signature.name: x for x in graph.library.function}
  todo = [n for n, x in functions.items() if x.attr['_XlaMustCompile'].b]
  done = set()
  while todo:
    name = todo.pop()
    if name not in done:
      done.add(name)
      for node in functions[name].node_def:
        yield node
        todo += [x.func.name for x in node.attr.values() if x.func.name]


class DevicesTest(absltest.TestCase):
  def test_a_gpu_runs_all_but_files_and_texts(self):
    if not _has_kernel(
      node_def_pb2.NodeDef(op='Empty', attr=_attr('dtype', tf.float32)), {'GPU'}
    ):
      self.skipTest('This TensorFlow has no kernels for GPUs.')
    _, bases = served.exports()
    for base in bases.values():
      lacking = {
        node.op
        for node in _nodes(saved_model.read_graph(base / '1').graph_def)
        if not _has_kernel(node, {'GPU', 'DEFAULT'})
        and not any(
          _HOST_TYPES.intersection(_types(x)) for x in node.attr.values()
        )
      }
      self.assertContainsSubset(lacking, _ON_HOSTS)

  def test_in_place_updates_on_a_gpu(self):
    for kind in (tf.float32, tf.bfloat16):
      for op, name in (('Empty', 'dtype'), ('InplaceUpdate', 'T')):
        node = node_def_pb2.NodeDef(op=op, attr=_attr(name, kind))
        self.assertTrue(_has_kernel(node, {'GPU'}), (op, kind))

  def test_xla_compiles_what_it_is_asked_to(self):
    tf.function(lambda: tf.zeros([1]), jit_compile=True)()  # Registers all.
    graph = saved_model.read_graph(served.compiled_sampler()).graph_def
    nodes = list(_compiled(graph))
    self.assertNotEmpty(nodes)
    for device in ('XLA_CPU_JIT', 'XLA_GPU_JIT'):
      lacking = {x.op for x in nodes if not _has_kernel(x, {device})}
      self.assertEmpty(lacking, device)


def _attr(name: str, kind: tf.DType) -> dict:
  found = node_def_pb2.NodeDef()
  found.attr[name].type = kind.as_datatype_enum
  return dict(found.attr)


if __name__ == '__main__':
  absltest.main()
