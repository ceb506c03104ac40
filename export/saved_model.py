"""Writes a module as one numbered version of a served model.

A version is complete or it is not there: it is written under another name and
then renamed, because servers watch the folder. (To an object store, gs://...,
it is copied file by file, the graph last.) Beside the graph it holds `assets/`
(class names, configs) and the warm-up requests that a server replays before it
answers. Beside the versions lie the server's configuration files.
"""

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import json
import os
import pathlib
import tempfile

from absl import logging
from google.protobuf import text_format
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.config import model_server_config_pb2

from export import signatures, warmup
from export.settings import DEFAULTS, Settings
from vim_tf import files, places
from vim_tf.config import UserError, first_line

WARMUP_FILE = 'assets.extra/tf_serving_warmup_requests'
"""Where TF Serving looks for requests to replay, within a version."""

GRAPH_FILE = 'saved_model.pb'
CLASS_NAMES_FILE = 'assets/class_names.txt'
CONFIG_FILE = 'assets/config.json'
TAG = 'serve'
"""Of the graph that a server loads."""

MODEL_CONFIG = 'model.config'
BATCHING_CONFIG = 'batching.config'
MONITORING_CONFIG = 'monitoring.config'
METRICS_PATH = '/monitoring/prometheus/metrics'

_XLA_OPS = {'XlaOptimizationBarrier'}  # Servers with XLA have them.
_PYTHON_OPS = ('PyFunc', 'PyFuncStateless')


class ExportError(UserError):
  """An export that cannot be written."""


@dataclasses.dataclass(frozen=True)
class Export:
  """What goes into a version.

  Attributes:
    module: The signatures and weights.
    class_names: Names of the classes, by id.
    config: What `assets/config.json` shall hold.
    requests: Signatures and inputs, the batch first, for a server to replay:
      at least one for each signature that is not in `classify`.
    classify: Examples to replay, by the names of those signatures that answer
      TF Serving's Classify.
  """

  module: signatures.SignatureModule
  class_names: Sequence[str] = ()
  config: dict = dataclasses.field(default_factory=dict)
  requests: Sequence[tuple[str, dict[str, np.ndarray | list]]] = ()
  classify: Mapping[str, Sequence[tf.train.Example]] = dataclasses.field(
    default_factory=dict
  )


def write(
  export: Export, base: str | os.PathLike, settings: Settings = DEFAULTS
) -> str:
  """Writes a version, and the server's files where there are none.

  Args:
    export: What goes into it.
    base: Folder of the model's versions, local or of `tf.io.gfile`; made if it
      is not there.
    settings: Its number, its name, and the server's batches.

  Returns:
    The version's folder, `base/version`.

  Raises:
    ExportError: If the version exists, cannot be written, or a server could
      not run it.
  """
  base = os.fspath(base)
  final = new_version(base, settings.version)
  verbosity = logging.get_verbosity()
  # The quieter one of the two: TensorFlow tells every variable's internal name.
  logging.set_verbosity(min(logging.WARNING, verbosity))
  try:
    if places.is_remote(base):
      with tempfile.TemporaryDirectory() as folder:
        size = _write_version(export, settings, pathlib.Path(folder))
        _copy(pathlib.Path(folder), final)
    else:
      # Fails if another export has been faster: a folder of files stays.
      with files.new_folder(final) as folder:
        size = _write_version(export, settings, folder)
    _write_configs(base, export, settings)
  except (OSError, tf.errors.OpError) as error:
    reason = getattr(error, 'strerror', None) or str(error).splitlines()[0]
    raise ExportError(f'Cannot write {final}: {reason}.') from error
  finally:
    logging.set_verbosity(verbosity)
  logging.info('The export is in %s (%.1f MB).', final, size / 1e6)
  return final


def versions(base: str | os.PathLike) -> list[int]:
  """Numbers of the versions in a folder, oldest first.

  Raises:
    ExportError: If the folder is remote and cannot be listed.
  """
  base = os.fspath(base)
  try:
    names = tf.io.gfile.listdir(base) if tf.io.gfile.isdir(base) else []
    names = [name.rstrip('/') for name in names]  # As object stores give them.
    return sorted(
      int(name)
      for name in names
      if name.isascii()
      and name.isdigit()
      and tf.io.gfile.isdir(os.path.join(base, name))
    )
  except tf.errors.OpError as error:
    raise ExportError(f'Cannot list {base}: {first_line(error)}') from error


def new_version(base: str | os.PathLike, version: int = 0) -> str:
  """The folder that a new version would get.

  Args:
    base: Folder of the model's versions.
    version: Its number; 0: the one after the newest.

  Raises:
    ExportError: If it exists, or TensorFlow knows no such file system.
  """
  base, found = os.fspath(base), versions(base)
  following = found[-1] + 1 if found else 1
  final = os.path.join(base, str(version or following))
  try:
    taken = tf.io.gfile.exists(final)
  except tf.errors.OpError as error:
    raise ExportError(f'Cannot write {final}: {first_line(error)}') from error
  if taken:
    raise ExportError(
      f'{final} exists already, and versions are never written over: give '
      f'another --version, or none for {following}.'
    )
  return final


def read_graph(folder: str | os.PathLike) -> meta_graph_pb2.MetaGraphDef:
  """The graph of a version that a server would run.

  Raises:
    ValueError: If there is none.
  """
  proto = saved_model_pb2.SavedModel.FromString(
    (pathlib.Path(folder) / GRAPH_FILE).read_bytes()
  )
  for graph in proto.meta_graphs:
    if TAG in graph.meta_info_def.tags:
      return graph
  raise ValueError(f'{folder} has no graph with the tag {TAG!r}.')


def foreign_ops(folder: str | os.PathLike) -> set[str]:
  """Ops in a version that a stock server lacks.

  Args:
    folder: The version's.

  Returns:
    The names of ops that call Python, or that do not come with TensorFlow.
  """
  graph = read_graph(folder).graph_def
  ops = {node.op for node in graph.node}
  for function in graph.library.function:
    ops.update(node.op for node in function.node_def)
  # This module is made when TensorFlow is built: it knows no op that a library
  # has brought since.
  return {
    op
    for op in ops - _XLA_OPS
    if not hasattr(tf.raw_ops, op) or op.endswith(_PYTHON_OPS)
  }


def model_config(bases: dict[str, os.PathLike]) -> str:
  """The text of a `--model_config_file`: which models lie where, by name."""
  config = model_server_config_pb2.ModelServerConfig()
  for name, base in bases.items():
    base = os.fspath(base)
    config.model_config_list.config.add(
      name=name,
      base_path=base if places.is_remote(base) else os.path.abspath(base),
      model_platform='tensorflow',
    )
  return text_format.MessageToString(config)


def _copy(folder: pathlib.Path, final: str):
  """Copies a version to where folders cannot be renamed at once.

  Without the graph, which comes last, no server takes it for a version.
  """
  files = sorted(
    (file for file in folder.rglob('*') if file.is_file()),
    key=lambda file: file.name == GRAPH_FILE,
  )
  try:
    for file in files:
      to = os.path.join(final, file.relative_to(folder).as_posix())
      tf.io.gfile.makedirs(os.path.dirname(to))
      tf.io.gfile.copy(str(file), to)
  except BaseException:
    with contextlib.suppress(tf.errors.OpError):
      tf.io.gfile.rmtree(final)
    raise


def _describe(file: pathlib.Path, export: Export, settings: Settings):
  """Adds methods and limits to the signatures of a graph.

  Limits are the names of the batches' dimensions: no other field of a
  signature comes through a server's metadata to whom it concerns.
  """
  proto = saved_model_pb2.SavedModel.FromString(file.read_bytes())
  for graph in proto.meta_graphs:
    for name, signature in graph.signature_def.items():
      if name in export.classify:
        signature.method_name = tf.saved_model.CLASSIFY_METHOD_NAME
      for info in signature.inputs.values():
        text = f'1 to {settings.max_batch_size}'
        if info.dtype == tf.string.as_datatype_enum:  # All are files.
          text += (
            f' images of at most {settings.max_side} a side, '
            f'{settings.max_pixels} pixels and {settings.max_scans} scans'
          )
        info.tensor_shape.dim[0].name = text
  file.write_bytes(proto.SerializeToString())


def _write_version(
  export: Export, settings: Settings, folder: pathlib.Path
) -> int:
  """Writes all files of a version; returns the bytes."""
  tf.saved_model.save(
    export.module, str(folder), signatures=export.module.signatures
  )
  foreign = foreign_ops(folder)
  if foreign:
    raise ExportError(
      'A server cannot run the graph, because of its ops '
      f'{", ".join(sorted(foreign))}.'
    )
  _describe(folder / GRAPH_FILE, export, settings)
  (folder / 'assets').mkdir(exist_ok=True)
  names = ''.join(f'{name}\n' for name in export.class_names)
  (folder / CLASS_NAMES_FILE).write_text(names)
  config = {'settings': dataclasses.asdict(settings), **export.config}
  (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + '\n')
  name = settings.name or export.module.name
  logs = [warmup.predict(name, *request) for request in export.requests]
  logs += [warmup.classify(name, *row) for row in export.classify.items()]
  (folder / WARMUP_FILE).parent.mkdir()
  with tf.io.TFRecordWriter(str(folder / WARMUP_FILE)) as writer:
    for log in logs:
      writer.write(log.SerializeToString())
  return sum(f.stat().st_size for f in folder.rglob('*') if f.is_file())


def _write_configs(base: str, export: Export, settings: Settings):
  """Writes those files that are not there: they are meant to be edited."""
  # The packages of the client hold protos of the first of them alone.
  for file, text in (
    (MODEL_CONFIG, model_config({settings.name or export.module.name: base})),
    (BATCHING_CONFIG, _batching(settings.max_batch_size)),
    (
      MONITORING_CONFIG,
      f'prometheus_config {{ enable: true, path: "{METRICS_PATH}" }}\n',
    ),
  ):
    path = os.path.join(base, file)
    if not tf.io.gfile.exists(path):
      with tf.io.gfile.GFile(path, 'w') as out:
        out.write(text)


def _batching(max_batch_size: int) -> str:
  """Few sizes, because XLA compiles each; requests are filled up to the next.

  A request that fails makes those fail that were run together with it.
  """
  sizes = [1]
  while sizes[-1] < max_batch_size:
    sizes.append(min(2 * sizes[-1], max_batch_size))
  lines = [
    f'max_batch_size {{ value: {max_batch_size} }}',
    'batch_timeout_micros { value: 5000 }',
    'max_enqueued_batches { value: 100 }',
    'num_batch_threads { value: 2 }',
    *(f'allowed_batch_sizes: {size}' for size in sizes),
  ]
  return '\n'.join(lines) + '\n'
