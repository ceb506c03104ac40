"""A loopback server that speaks TF Serving's gRPC and REST protocols.

It is a stand-in for development: it lets one try an export with the very
clients that will talk to the real server. It is not for production: it runs in
Python, does not put requests together into batches, and knows no encryption.
"""

from concurrent import futures
import os
import threading

from absl import logging
import grpc
from tensorflow_serving.apis import (
  model_service_pb2_grpc,
  prediction_service_pb2_grpc,
)

from export.try_it import grpc_services, rest, servables
from vim_tf.config import UserError

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
