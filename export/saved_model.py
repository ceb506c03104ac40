"""Writes a module as one numbered version of a served model.

A version is complete or it is not there: it is written under another name and
then renamed, because servers watch the folder. Beside the graph it holds
`assets/` (class names, configs) and the warm-up requests that a server replays
before it answers. Beside the versions lie the server's configuration files.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import os
import pathlib
import shutil

from absl import flags, logging
from google.protobuf import text_format
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.config import model_server_config_pb2

from export import headers, signatures, warmup
from vim_tf.config import PRECISIONS, UserError
from vim_tf.config_checks import check_choice, check_least

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

_PYTHON_OPS = ('PyFunc', 'PyFuncStateless')


class ExportError(UserError):
  """An export that cannot be written."""


def _setting(default, text: str):
  return dataclasses.field(default=default, metadata={'help': text})


@dataclasses.dataclass(frozen=True)
class Settings:
  """What every exporter can be told; `--help` says what each setting is.

  Raises:
    ConfigError: If one is out of range.
  """

  version: int = _setting(0, '[output] Number of the version; 0: the next one.')
  name: str = _setting(
    '', "[output] Name to serve the model under; '': that of the exporter."
  )
  precision: str = _setting(
    'float32',
    '[graph] Compute in float32 or bfloat16; weights stay float32.',
  )
  max_side: int = _setting(
    headers.Limits.side,
    '[graph] Largest height or width of an image taken, in pixels.',
  )
  max_pixels: int = _setting(
    headers.Limits.pixels, '[graph] Most pixels of an image taken.'
  )
  max_batch_size: int = _setting(
    32, '[server] Most examples that it runs together.'
  )

  def __post_init__(self):
    check_least(self, 0, 'version')
    check_choice('precision', self.precision, PRECISIONS)
    check_least(self, 1, 'max_side', 'max_pixels', 'max_batch_size')

  @property
  def limits(self) -> headers.Limits:
    """The largest images that the export decodes."""
    return headers.Limits(self.max_side, self.max_pixels)


DEFAULTS = Settings()


def define_flags():
  """Defines --base, the folder of the versions, and a flag for each setting."""
  flags.DEFINE_string(
    'base',
    None,
    '[output] Folder of the versions, BASE/<version>/.',
    required=True,
  )
  for field in dataclasses.fields(Settings):
    define = flags.DEFINE_integer if field.type is int else flags.DEFINE_string
    define(field.name, field.default, field.metadata['help'])


def settings_from_flags() -> Settings:
  """The settings that the flags ask for."""
  names = [field.name for field in dataclasses.fields(Settings)]
  return Settings(**{name: flags.FLAGS[name].value for name in names})


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
) -> pathlib.Path:
  """Writes a version, and the server's files where there are none.

  Args:
    export: What goes into it.
    base: Folder of the model's versions; made if it is not there.
    settings: Its number, its name, and the server's batches.

  Returns:
    The version's folder, `base/version`.

  Raises:
    ExportError: If the version exists, cannot be written, or a server could
      not run it.
  """
  base = pathlib.Path(base)
  final = new_version(base, settings.version)
  temporary = base / f'.writing-{final.name}-{os.getpid()}'
  name = settings.name or export.module.name
  verbosity = logging.get_verbosity()
  # The quieter one of the two: TensorFlow tells every variable's internal name.
  logging.set_verbosity(min(logging.WARNING, verbosity))
  try:
    base.mkdir(parents=True, exist_ok=True)
    _write_version(export, name, temporary)
    # Fails if another export has been faster: a folder of files stays.
    os.rename(temporary, final)
    _write_configs(base, name, settings.max_batch_size)
  except (OSError, tf.errors.OpError) as error:
    reason = getattr(error, 'strerror', None) or str(error).splitlines()[0]
    raise ExportError(f'Cannot write {final}: {reason}.') from error
  finally:
    logging.set_verbosity(verbosity)
    shutil.rmtree(temporary, ignore_errors=True)
  size = sum(f.stat().st_size for f in final.rglob('*') if f.is_file())
  logging.info('The export is in %s (%.1f MB).', final, size / 1e6)
  return final


def versions(base: str | os.PathLike) -> list[int]:
  """Numbers of the versions in a folder, oldest first."""
  base = pathlib.Path(base)
  names = os.listdir(base) if base.is_dir() else []
  return sorted(
    int(name)
    for name in names
    if name.isascii() and name.isdigit() and (base / name).is_dir()
  )


def new_version(base: str | os.PathLike, version: int = 0) -> pathlib.Path:
  """The folder that a new version would get.

  Args:
    base: Folder of the model's versions.
    version: Its number; 0: the one after the newest.

  Raises:
    ExportError: If it exists.
  """
  base, found = pathlib.Path(base), versions(base)
  following = found[-1] + 1 if found else 1
  final = base / str(version or following)
  if final.exists():
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
    op for op in ops if not hasattr(tf.raw_ops, op) or op.endswith(_PYTHON_OPS)
  }


def model_config(bases: dict[str, os.PathLike]) -> str:
  """The text of a `--model_config_file`: which models lie where, by name."""
  config = model_server_config_pb2.ModelServerConfig()
  for name, base in bases.items():
    config.model_config_list.config.add(
      name=name,
      base_path=str(pathlib.Path(base).absolute()),
      model_platform='tensorflow',
    )
  return text_format.MessageToString(config)


def read_model_config(text: str) -> dict[str, str]:
  """The folders of the models of a `--model_config_file`, by name.

  Raises:
    ValueError: If it is no such file.
  """
  config = model_server_config_pb2.ModelServerConfig()
  try:
    text_format.Parse(text, config)
  except text_format.ParseError as error:
    raise ValueError(str(error)) from error
  return {
    model.name: model.base_path for model in config.model_config_list.config
  }


def _write_version(export: Export, name: str, folder: pathlib.Path):
  tf.saved_model.save(
    export.module, str(folder), signatures=export.module.signatures
  )
  foreign = foreign_ops(folder)
  if foreign:
    raise ExportError(
      'A server cannot run the graph, because of its ops '
      f'{", ".join(sorted(foreign))}.'
    )
  for signature in export.classify:
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(
      str(folder)
    )
    updater.replace_method_name(
      signature_key=signature,
      method_name=tf.saved_model.CLASSIFY_METHOD_NAME,
      tags=TAG,
    )
    updater.save()
  (folder / 'assets').mkdir(exist_ok=True)
  names = ''.join(f'{name}\n' for name in export.class_names)
  (folder / CLASS_NAMES_FILE).write_text(names)
  (folder / CONFIG_FILE).write_text(json.dumps(export.config, indent=2) + '\n')
  logs = [warmup.predict(name, *request) for request in export.requests]
  logs += [warmup.classify(name, *row) for row in export.classify.items()]
  (folder / WARMUP_FILE).parent.mkdir()
  with tf.io.TFRecordWriter(str(folder / WARMUP_FILE)) as writer:
    for log in logs:
      writer.write(log.SerializeToString())


def _write_configs(base: pathlib.Path, name: str, max_batch_size: int):
  """Writes those files that are not there: they are meant to be edited."""
  # The packages of the client hold protos of the first of them alone.
  for file, text in (
    (MODEL_CONFIG, model_config({name: base})),
    (BATCHING_CONFIG, _batching(max_batch_size)),
    (
      MONITORING_CONFIG,
      f'prometheus_config {{ enable: true, path: "{METRICS_PATH}" }}\n',
    ),
  ):
    if not (base / file).exists():
      (base / file).write_text(text)


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
