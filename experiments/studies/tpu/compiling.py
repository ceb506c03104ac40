"""Compiles one program for a TPU that is not there; a script of its own.

  python compiling.py PROGRAM.hlo.gz RESULT.json JSON

It imports nothing of this project, because it runs in the environment of
`requirements.lock` beside it: libtpu, the compiler of Cloud TPUs, and JAX, that
can ask it for any topology. The last argument is an object of 'topology',
'options' for it, 'replicas', and 'text', which is a file for the compiled
program, or empty. The result is an object as well.
"""

import ctypes
import gzip
import importlib.metadata
import json
import os
import pathlib
import resource
import signal
import sys
import time

# There is no TPU to ask for its place, and none that two could quarrel about.
os.environ.update(
  TPU_SKIP_MDS_QUERY='1', JAX_PLATFORMS='cpu', ALLOW_MULTIPLE_LIBTPU_LOAD='1'
)

# isort: off
import jax
from jax._src.lib import xla_client
from jax.experimental import topologies
import numpy as np

_SIGNAL_OF_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG of Linux.
_KEPT = 4000  # Characters of the compiler's complaint.


def main():
  """Compiles what the command line says."""
  # It ends with the process that asks, however that ends.
  ctypes.CDLL(None).prctl(_SIGNAL_OF_PARENTS_DEATH, signal.SIGTERM)
  program, result, wanted = sys.argv[1:]
  wanted = json.loads(wanted)
  computation = xla_client.XlaComputation(
    gzip.decompress(pathlib.Path(program).read_bytes())
  )
  found = _compile(computation, **wanted)
  found['versions'] = {
    'jax': jax.__version__,
    'libtpu': importlib.metadata.version('libtpu'),
  }
  pathlib.Path(result).write_text(json.dumps(found))


def _compile(computation, topology, options, replicas, text) -> dict:
  module = xla_client._xla.mlir.xla_computation_to_mlir_module(computation)
  description = topologies.get_topology_desc(
    platform='tpu', topology_name=topology, **options
  )
  devices = description.devices
  settings = xla_client.CompileOptions()
  build = settings.executable_build_options
  build.num_replicas, build.num_partitions = replicas, 1
  build.device_assignment = xla_client.DeviceAssignment.create(
    np.array([[device.id] for device in devices[:replicas]], np.int32)
  )
  started, before = time.monotonic(), _cpu_seconds()
  try:
    compiled = devices[0].client.compile(module, settings)
    found = {'fits': True, **_figures(compiled, text)}
  except Exception as error:  # Of the compiler; its text is the result.
    found = {'fits': False, 'error': str(error)[:_KEPT]}
  return {
    **found,
    'seconds': round(time.monotonic() - started, 1),
    'cpu_seconds': round(_cpu_seconds() - before, 1),
  }


def _figures(compiled, text) -> dict:
  memory = compiled.get_compiled_memory_stats()
  costs = compiled.cost_analysis()
  if text:
    (module,) = compiled.hlo_modules()
    lines = module.to_string().encode()
    pathlib.Path(text).write_bytes(gzip.compress(lines, 1))
  return {
    'argument_bytes': memory.argument_size_in_bytes,
    'output_bytes': memory.output_size_in_bytes,
    'aliased_bytes': memory.alias_size_in_bytes,
    'temporary_bytes': memory.temp_size_in_bytes,
    'code_bytes': memory.generated_code_size_in_bytes,
    'flops': costs['flops'],
  }


def _cpu_seconds() -> float:
  used = resource.getrusage(resource.RUSAGE_SELF)
  return used.ru_utime + used.ru_stime


main()
