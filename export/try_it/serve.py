"""Serves exports on this machine alone, as TF Serving would: to try them.

  ./bazelw run //export/try_it:serve -- --model=tokenizer=exports/tokenizer \
    --model=sampler=exports/sampler --model=probe=exports/probe

It is a stand-in for development, not for production: see `docs/serving.md` for
the real server. It speaks the same gRPC and REST protocols, takes new versions
into use, and shows a web page at its REST port; but it runs in Python, does not
put requests together into batches, and knows no encryption.
"""

from concurrent import futures
import os
import pathlib
import threading

from absl import flags, logging
from etils import epy
import grpc

from experiments import flags as flags_lib
from vim_tf import places
from vim_tf.config import UserError

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from tensorflow_serving.apis import (
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
  )

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
POLL = flags.DEFINE_float(
  'file_system_poll_wait_seconds',
  1.0,
  '[server] Seconds between looks for new versions.',
  lower_bound=0.05,
)

_THREADS = 32
_GRACE = 10.0  # Seconds that running requests get when the server stops.


class ServerError(UserError):
  """A server that cannot be started."""


class Server:
  """Serves models on 127.0.0.1 until it is stopped.

  Args:
    bases: The folder of each model's versions, by its name.
    port: Port of gRPC; 0: any free one.
    rest_port: Port of REST and of the page; 0: any free one.
    poll_seconds: How often to look for new versions.

  Attributes:
    port: The port of gRPC.
    rest_port: The port of REST.
    models: What is served.

  Raises:
    ServerError: If a port is taken.
  """

  def __init__(
    self,
    bases: dict[str, str | os.PathLike],
    port: int = 8500,
    rest_port: int = 8501,
    poll_seconds: float = 1.0,
  ):
    self.models = servables.Models(bases)
    self._poll_seconds = poll_seconds
    self._stopped = threading.Event()
    self._grpc = grpc.server(
      futures.ThreadPoolExecutor(_THREADS),
      options=[
        ('grpc.max_receive_message_length', -1),  # Images are large.
        ('grpc.max_send_message_length', -1),
        ('grpc.so_reuseport', 0),  # A port that is taken is an error.
      ],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
      grpc_services.PredictionService(self.models), self._grpc
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(
      grpc_services.ModelService(self.models), self._grpc
    )
    try:
      self.port = self._grpc.add_insecure_port(f'127.0.0.1:{port}')
      self._rest = rest.Server(rest_port, self.models)
    except (OSError, RuntimeError) as error:
      self._grpc.stop(None)
      raise ServerError(
        f'Cannot listen on the ports {port} and {rest_port}: {error}.'
      ) from error
    self.rest_port = self._rest.server_address[1]
    self._threads = [
      threading.Thread(target=self._rest.serve_forever, daemon=True),
      threading.Thread(target=self._poll, daemon=True),
    ]

  def start(self):
    """Loads what there is, then answers."""
    self.models.refresh()
    self._grpc.start()
    for thread in self._threads:
      thread.start()

  def wait(self):
    """Returns when the server was stopped."""
    self._stopped.wait()

  def stop(self):
    """Lets running requests end and closes the ports."""
    self._stopped.set()
    self._grpc.stop(_GRACE).wait()
    self._rest.shutdown()
    self._rest.server_close()
    for thread in self._threads:
      thread.join()

  def _poll(self):
    while not self._stopped.wait(self._poll_seconds):
      try:
        self.models.refresh()
      except OSError as error:  # A folder may be away for a while.
        logging.error('Cannot look for new versions: %s', error)


def main():
  """Serves until it is interrupted."""
  bases = find_bases(MODELS.value, CONFIG.value)
  running = Server(bases, PORT.value, REST_PORT.value, POLL.value)
  running.start()
  print(f'gRPC: 127.0.0.1:{running.port}')
  print(f'REST: http://127.0.0.1:{running.rest_port}/v1/models/NAME')
  print(f'Page: http://127.0.0.1:{running.rest_port}/', flush=True)
  try:
    running.wait()
  except KeyboardInterrupt:
    running.stop()


def find_bases(models: list[str], config: str) -> dict[str, str]:
  """The folder of each model.

  Args:
    models: As NAME=BASE.
    config: Path of a TF Serving model config file, or ''.

  Raises:
    ServerError: If none are named, one is not NAME=BASE, or a folder holds no
      versions.
  """
  bases = {}
  if config:
    try:
      bases = saved_model.read_model_config(pathlib.Path(config).read_text())
    except (OSError, ValueError) as error:
      raise ServerError(
        f'Cannot read --model_config_file={config}: {error}.'
      ) from error
  for text in models:
    name, equals, base = text.partition('=')
    if not (name and equals and base):
      raise ServerError(
        f'--model={text} is not a model: write --model=NAME=BASE.'
      )
    bases[name] = places.local(base, f'--model={name}')
  if not bases:
    raise ServerError('No model was given: set --model=NAME=BASE.')
  for name, base in bases.items():
    if not saved_model.versions(base):
      raise ServerError(f'{base} holds no version of {name}: export one first.')
  return bases


if __name__ == '__main__':
  flags_lib.run(main)
