"""Writes a module as one numbered version of a served model.

A version is complete or it is not there: it is written under another name and
then renamed, because servers watch the folder. (To an object store, gs://...,
it is copied file by file, the graph last.) Beside the graph it holds `assets/`
(class names, configs) and the warm-up requests that a server replays before it
answers.
"""

from collections.abc import Sequence
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import tempfile

from absl import logging
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from export import signatures
from vim_tf import places
from vim_tf.config import UserError, first_line

WARMUP_FILE = 'assets.extra/tf_serving_warmup_requests'
"""Where TF Serving looks for requests to replay, within a version."""

GRAPH_FILE = 'saved_model.pb'
CLASS_NAMES_FILE = 'assets/class_names.txt'
CONFIG_FILE = 'assets/config.json'


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
    warmup: Requests to replay, at least one for each signature.
    classify: Names of signatures that answer TF Serving's Classify.
  """

  module: signatures.SignatureModule
  class_names: Sequence[str]
  config: dict
  warmup: Sequence[prediction_log_pb2.PredictionLog]
  classify: Sequence[str] = ()


def write(export: Export, base: str | os.PathLike, version: int = 0) -> str:
  """Writes a version.

  Args:
    export: What goes into it.
    base: Folder of the model's versions, local or of `tf.io.gfile`; made if it
      is not there.
    version: Its number, from 1 on; 0: the one after the newest.

  Returns:
    The version's folder, `base/version`.

  Raises:
    ExportError: If the version exists, cannot be written, or a server could
      not run it.
  """
  base = os.fspath(base)
  final = new_version(base, version)
  try:
    if places.is_remote(base):
      with tempfile.TemporaryDirectory() as folder:
        size = _write_all(export, pathlib.Path(folder))
        _copy(pathlib.Path(folder), final)
    else:
      size = _write_and_rename(export, pathlib.Path(final))
  except (OSError, tf.errors.OpError) as error:
    reason = getattr(error, 'strerror', None) or str(error).splitlines()[0]
    raise ExportError(f'Cannot write {final}: {reason}.') from error
  logging.info('%s holds %.1f MB.', final, size / 1e6)
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

  Raises:
    ExportError: If it exists, the number is negative, or TensorFlow knows no
      such file system.
  """
  base, found = os.fspath(base), versions(base)
  version = version or (found[-1] + 1 if found else 1)
  if version < 0:
    raise ExportError(f'--version is {version}, but must be 1 or more.')
  final = os.path.join(base, str(version))
  try:
    taken = tf.io.gfile.exists(final)
  except tf.errors.OpError as error:
    raise ExportError(f'Cannot write {final}: {first_line(error)}') from error
  if taken:
    raise ExportError(
      f'{final} exists already, and versions are never written over: give '
      f'another --version, or none for {found[-1] + 1 if found else 1}.'
    )
  return final


def foreign_ops(folder: str | os.PathLike) -> set[str]:
  """Ops in a SavedModel that a stock server lacks.

  Args:
    folder: Of the SavedModel.

  Returns:
    The names of ops that call Python, or that do not come with TensorFlow.
  """
  proto = saved_model_pb2.SavedModel.FromString(
    (pathlib.Path(folder) / GRAPH_FILE).read_bytes()
  )
  ops = set()
  for graph in (meta.graph_def for meta in proto.meta_graphs):
    ops.update(node.op for node in graph.node)
    for function in graph.library.function:
      ops.update(node.op for node in function.node_def)
  # This module is made when TensorFlow is built: it knows no op that a library
  # has brought since.
  return {
    op for op in ops if not hasattr(tf.raw_ops, op) or op.endswith(_PYTHON_OPS)
  }


def _write_and_rename(export: Export, final: pathlib.Path) -> int:
  """Writes under another name, then renames; returns the bytes."""
  temporary = final.parent / f'.writing-{final.name}-{os.getpid()}'
  try:
    final.parent.mkdir(parents=True, exist_ok=True)
    size = _write_all(export, temporary)
    # Fails if another export has been faster: a folder of files stays.
    os.rename(temporary, final)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
  return size


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


def _write_all(export: Export, folder: pathlib.Path) -> int:
  """Writes all files of a version; returns the bytes."""
  verbosity = logging.get_verbosity()
  # The quieter one of the two: TensorFlow tells every variable's internal name.
  logging.set_verbosity(min(logging.WARNING, verbosity))
  try:
    tf.saved_model.save(
      export.module, str(folder), signatures=export.module.signatures
    )
  finally:
    logging.set_verbosity(verbosity)
  foreign = foreign_ops(folder)
  if foreign:
    raise ExportError(
      'A server cannot run the graph, because of its ops '
      f'{", ".join(sorted(foreign))}.'
    )
  for name in export.classify:
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(
      str(folder)
    )
    updater.replace_method_name(
      signature_key=name,
      method_name=tf.saved_model.CLASSIFY_METHOD_NAME,
      tags='serve',
    )
    updater.save()
  assets = folder / 'assets'
  assets.mkdir(exist_ok=True)
  names = ''.join(f'{name}\n' for name in export.class_names)
  (folder / CLASS_NAMES_FILE).write_text(names)
  (folder / CONFIG_FILE).write_text(json.dumps(export.config, indent=2) + '\n')
  (folder / WARMUP_FILE).parent.mkdir()
  with tf.io.TFRecordWriter(str(folder / WARMUP_FILE)) as writer:
    for log in export.warmup:
      writer.write(log.SerializeToString())
  return sum(f.stat().st_size for f in folder.rglob('*') if f.is_file())
