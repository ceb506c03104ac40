"""The files that tell TensorFlow Serving how to serve an export."""

import os

from google.protobuf import text_format
import tensorflow as tf
from tensorflow_serving.config import model_server_config_pb2

from vim_tf import places

MODEL = 'model.config'
BATCHING = 'batching.config'
MONITORING = 'monitoring.config'
METRICS_PATH = '/monitoring/prometheus/metrics'


def write(base: str | os.PathLike, name: str, max_batch_size: int):
  """Writes the three files where there are none: they are meant to be edited.

  Args:
    base: Folder of the model's versions, local or of `tf.io.gfile`.
    name: The name to serve it under.
    max_batch_size: Most examples that the server shall run together.
  """
  for file, text in (
    (MODEL, model_config({name: base})),
    (BATCHING, _batching(max_batch_size)),
    (MONITORING, _monitoring()),
  ):
    path = os.path.join(base, file)
    if not tf.io.gfile.exists(path):
      with tf.io.gfile.GFile(path, 'w') as out:
        out.write(text)


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


# The packages of the client hold no protos of the next two.


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


def _monitoring() -> str:
  return f'prometheus_config {{ enable: true, path: "{METRICS_PATH}" }}\n'
