"""Serves exports on this machine alone, as TF Serving would: to try them.

  ./bazelw run //export/try_it:serve -- --model=tokenizer=exports/tokenizer \
    --model=sampler=exports/sampler --model=probe=exports/probe

It is a stand-in for development, not for production: see `docs/serving.md` for
the real server, and for what this one leaves out.
"""

import asyncio
from collections.abc import Iterable
from concurrent import futures
import contextlib
import logging
import os
import pathlib
import socket

from absl import flags
from etils import epy
from google.protobuf import text_format
import grpc

from experiments import flags as flags_lib
from vim_tf import places
from vim_tf.config import UserError

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from aiohttp import web
  from tensorflow_serving.apis import model_service_pb2_grpc as model_grpc
  from tensorflow_serving.apis import (
    prediction_service_pb2_grpc as predict_grpc,
  )
  from tensorflow_serving.config import model_server_config_pb2

  from export import saved_model
  from export.try_it import grpc_services, rest, servables

MODELS = flags.DEFINE_multi_string(
  'model', [], '[models] A model as NAME=BASE; may be given many times.'
)
CONFIG = flags.DEFINE_string(
  'model_config_file', '', '[models] A file that names them instead.'
)
PORT = flags.DEFINE_integer('port', 8500, '[server] gRPC; 0: any free one.')
REST_PORT = flags.DEFINE_integer(
  'rest_api_port', 8501, '[server] REST and the page; 0: any free one.'
)
REST_TIMEOUT = flags.DEFINE_integer(
  'rest_api_timeout_in_ms',
  30_000,
  '[server] How long a REST request may run.',
  1,
)
POLL = flags.DEFINE_float(
  'file_system_poll_wait_seconds', 1.0, '[server] Between looks for news.', 0.05
)
RETRIES = flags.DEFINE_integer(
  'max_num_load_retries', 5, '[server] Tries again of what does not load.', 0
)
RETRY_MICROS = flags.DEFINE_integer(
  'load_retry_interval_micros', 60_000_000, '[server] Between those tries.', 0
)

THREADS = 4 * (os.cpu_count() or 1)  # As the real server has.
_WAITING = 1024  # Clients that connect at once.
_GRACE = 10.0  # Seconds that running requests get when the server stops.


class ServerError(UserError):
  """A server that cannot be started."""


async def serve(
  models, port, rest_port, ready, poll_seconds=1.0, rest_seconds=30.0
):
  """Loads models and answers for them on 127.0.0.1, until it is cancelled.

  Args:
    models: What is served, as `servables.Models`.
    port: Port of gRPC; 0: any free one.
    rest_port: The same of REST and of the page.
    ready: Is called with both ports when there are answers.
    poll_seconds: How often to look for new versions.
    rest_seconds: How long a REST request may run.

  Raises:
    ServerError: If a port is taken.
  """
  pool = futures.ThreadPoolExecutor(THREADS)
  # Messages as the real server takes them; a port that is taken is an error.
  options = {'grpc.max_receive_message_length': -1, 'grpc.so_reuseport': 0}
  server = grpc.server(pool, options=list(options.items()))
  predict_grpc.add_PredictionServiceServicer_to_server(
    grpc_services.PredictionService(models), server
  )
  model_grpc.add_ModelServiceServicer_to_server(
    grpc_services.ModelService(models), server
  )
  try:
    port = server.add_insecure_port(f'127.0.0.1:{port}')
    listener = socket.create_server(('127.0.0.1', rest_port))
  except (OSError, RuntimeError) as error:
    server.stop(None)
    text = f'Cannot listen on the ports {port} and {rest_port}: {error}.'
    raise ServerError(text) from error
  runner = rest.Handler(models, pool, rest_seconds).runner()
  try:
    await asyncio.to_thread(models.refresh)
    await runner.setup()
    await web.SockSite(runner, listener, backlog=_WAITING).start()
    server.start()
    ready(port, listener.getsockname()[1])
    while True:
      await asyncio.sleep(poll_seconds)
      await asyncio.to_thread(models.refresh)
  finally:
    await runner.cleanup()
    server.stop(_GRACE).wait()


def main():
  """Serves until it is interrupted."""
  logging.getLogger('tensorflow').setLevel('ERROR')  # What it restores.
  logging.getLogger('aiohttp').setLevel('CRITICAL')  # Clients that go away.
  found = find_models(MODELS.value, CONFIG.value)
  models = servables.Models(
    found, retries=RETRIES.value, retry_seconds=RETRY_MICROS.value / 1e6
  )

  def tell(port, rest_port):
    print(f'gRPC: 127.0.0.1:{port}')
    print(f'REST: http://127.0.0.1:{rest_port}/v1/models/NAME')
    print(f'Page: http://127.0.0.1:{rest_port}/', flush=True)

  ports, seconds = (PORT.value, REST_PORT.value), REST_TIMEOUT.value / 1e3
  with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(serve(models, *ports, tell, POLL.value, seconds))


def find_models(models: Iterable[str], config: str) -> list:
  """What shall be served, as ModelConfig protos.

  Args:
    models: As NAME=BASE.
    config: Path of a TF Serving model config file, or ''.

  Raises:
    ServerError: If none are named, one is not NAME=BASE, a folder holds no
      versions, or a label is of a version that is not there.
  """
  found = model_server_config_pb2.ModelServerConfig()
  try:
    text_format.Parse(pathlib.Path(config).read_text() if config else '', found)
  except (OSError, ValueError, text_format.ParseError) as error:
    text = f'Cannot read --model_config_file={config}: {error}.'
    raise ServerError(text) from error
  configs = found.model_config_list.config
  for text in models:
    name, equals, base = text.partition('=')
    if not (name and equals and base):
      raise ServerError(f'--model={text}: write --model=NAME=BASE.')
    configs.add(name=name, base_path=places.local(base, f'--model={name}'))
  if not configs:
    raise ServerError('No model was given: set --model=NAME=BASE.')
  for one in configs:
    base, versions = one.base_path, saved_model.versions(one.base_path)
    if not versions:
      raise ServerError(f'{base} holds no version of {one.name}: export one.')
    for label, version in one.version_labels.items():
      if version not in versions:
        text = f'Label {label!r} of {one.name} is of version {version}'
        raise ServerError(f'{text}, but {base} holds {versions}.')
  return list(configs)


if __name__ == '__main__':
  flags_lib.run(main)
