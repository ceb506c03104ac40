"""Programs in XLA's language, by the shapes of their inputs alone.

Inside `no_weights` every variable is of its shape and type, and all of it is
pages that the system has promised but never given, because nobody reads them.
A function over such variables can be traced and lowered by XLA, which looks at
shapes alone. Running it would ask for the memory.
"""

from collections.abc import Callable
import contextlib
import gzip
import hashlib
import itertools
import math
import mmap
import os
import pathlib
from unittest import mock

import numpy as np
import tensorflow as tf
from tensorflow.compiler.xla.service import hlo_pb2

from experiments.studies.tpu.programs import Program
from vim_tf.jobs import replica_functions
from vim_tf.vit_vqgan import lpips

_MAP_NORESERVE = 0x4000  # Of Linux; the module `mmap` has it from 3.13 on.


def write(program: Program, path: str | os.PathLike) -> dict:
  """Lowers a program into a file.

  Args:
    program: What to lower.
    path: For the serialized `HloModuleProto`, compressed, since the largest
      constants are masks.

  Returns:
    'hlo', a hash of the program, its 'hlo_bytes' without what is for people to
    read, and the 'summed_bytes' of all tensors that it sums over replicas.
  """
  # As `--strategy=tpu`: factors of float32 products stay float32.
  tf.config.experimental.enable_tensor_float_32_execution(False)
  with no_weights(), among(program.replicas):
    function = _function(program)
    found = lower(function.run, function.specs)
  pathlib.Path(path).write_bytes(gzip.compress(found, 1))
  return {'hlo': hashlib.sha256(found).hexdigest(), **sizes(found)}


def sizes(program: bytes) -> dict[str, int]:
  """A program's 'hlo_bytes' and 'summed_bytes', as `write` returns them."""
  module = hlo_pb2.HloModuleProto.FromString(program)
  summed = 0
  for computation in module.computations:
    for instruction in computation.instructions:
      # Names and source lines of TensorFlow's operations: the larger half.
      instruction.ClearField('metadata')
      if instruction.opcode == 'all-reduce':  # Which is all float32.
        summed += tf.float32.size * math.prod(instruction.shape.dimensions)
  return {'hlo_bytes': module.ByteSize(), 'summed_bytes': summed}


def _function(program: Program) -> replica_functions.ReplicaFunction:
  make = FUNCTIONS[program.function]
  return make(program.config(), program.batch, **program.options)


def _stage1(config, batch, kind):
  perceptual = lpips.LPIPS('', dtype='bfloat16')
  functions = replica_functions.stage1_steps(config, batch, (kind,), perceptual)
  return functions[kind]


FUNCTIONS = {
  'stage1': _stage1,
  'stage2': replica_functions.stage2_step,
  'encode': lambda *of: replica_functions.tokenizer(*of)['encode'],
  'decode': lambda *of: replica_functions.tokenizer(*of)['decode'],
  'sample': replica_functions.sample,
  'features': replica_functions.features,
}


class _Replica:
  """Stands for the context of one of several replicas, of which none is here.

  Under `TPUStrategy` a sum is a CrossReplicaSum, which TensorFlow lowers for
  TPUs alone. A collective sum is the same to XLA, an all-reduce over all
  replicas for each tensor, and is lowered anywhere.
  """

  def __init__(self, replicas: int):
    self.num_replicas_in_sync = replicas
    self._keys = itertools.count(1)

  def all_reduce(self, reduce_op, value):
    assert reduce_op == tf.distribute.ReduceOp.SUM
    return tf.nest.map_structure(self._sum, value)

  def _sum(self, tensor):
    return tf.raw_ops.CollectiveReduceV2(
      input=tensor,
      group_size=self.num_replicas_in_sync,
      group_key=1,
      instance_key=next(self._keys),
      ordering_token=[],
      merge_op='Add',
      final_op='Id',
    )


@contextlib.contextmanager
def among(replicas: int):
  """What is traced inside is one replica's part of as many."""
  if replicas == 1:
    yield
    return
  context = _Replica(replicas)
  with mock.patch.object(tf.distribute, 'get_replica_context', lambda: context):
    yield


@contextlib.contextmanager
def no_weights():
  """Variables made inside take no memory."""
  with tf.variable_creator_scope(_promise):
    yield


def _promise(next_creator, **kwargs):
  """Makes a variable of zeros that take no memory."""
  initial_value, shape = kwargs['initial_value'], kwargs.get('shape')
  dtype = kwargs.get('dtype')
  if shape is None or dtype is None:
    value = initial_value() if callable(initial_value) else initial_value
    value = tf.convert_to_tensor(value, dtype)
    shape, dtype = value.shape, value.dtype
  shape, dtype = tf.TensorShape(shape).as_list(), tf.as_dtype(dtype)
  if dtype in (tf.bfloat16, tf.bool):  # DLPack does not know NumPy's: LPIPS.
    return next_creator(**kwargs)
  count = int(np.prod(shape, dtype=np.int64))
  pages = mmap.mmap(
    -1,
    max(1, count * dtype.size),
    flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE,
  )
  zeros = np.frombuffer(pages, dtype.as_numpy_dtype, count).reshape(shape)
  # DLPack takes an array as it is, where TensorFlow would copy it.
  return next_creator(
    **{
      **kwargs,
      'initial_value': tf.experimental.dlpack.from_dlpack(zeros.__dlpack__()),
      'shape': None,
      'dtype': None,
    }
  )


def lower(function: Callable, specs: tuple) -> bytes:
  """A function's program, as a serialized `HloModuleProto`.

  Args:
    function: What a replica runs.
    specs: `tf.TensorSpec`s of its arguments, in any structure.
  """

  def flat(*arguments):
    return function(*tf.nest.pack_sequence_as(specs, arguments))

  compiled = tf.function(flat, jit_compile=True, autograph=False)
  return compiled.experimental_get_compiler_ir(*tf.nest.flatten(specs))(
    stage='hlo_serialized'
  )
