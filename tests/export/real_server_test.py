"""The server's tests against TensorFlow's own server, where it is installed.

Tagged `manual`: `./bazelw test //tests:real_server_test`, with
`tensorflow_model_server` on the PATH.
"""

import shutil
import socket
import subprocess
import time
import unittest

from absl.testing import absltest
import grpc
import numpy as np

from export import saved_model
from tests import testing
from tests.export import answered, clients, refused, served

_SERVER = 'tensorflow_model_server'
_DEADLINE = 300.0  # Seconds until all models must be loaded and warm.


def _free_port() -> int:
  with socket.socket() as one:
    one.bind(('127.0.0.1', 0))
    return one.getsockname()[1]


class RealServerTest(answered.Tests, refused.Tests):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    if not shutil.which(_SERVER):
      raise unittest.SkipTest(
        f'{_SERVER} is not on the PATH: docs/serving.md says how to get it.'
      )
    root = testing.new_folder('real_server')
    cls.load(served.export_all(root))
    config = root / 'models.config'
    config.write_text(saved_model.model_config(cls.bases))
    cls.port, cls.rest_port = _free_port(), _free_port()
    cls.process = subprocess.Popen(
      [
        _SERVER,
        f'--port={cls.port}',
        f'--rest_api_port={cls.rest_port}',
        f'--model_config_file={config}',
      ]
    )
    cls.addClassCleanup(cls.process.wait)
    cls.addClassCleanup(cls.process.terminate)
    cls._wait()

  @classmethod
  def _wait(cls):
    end = time.monotonic() + _DEADLINE
    channel = grpc.insecure_channel(f'127.0.0.1:{cls.port}')
    with channel:
      stub = clients.connect(channel)
      while True:
        try:
          codes = np.zeros([1, 16], np.int32)
          clients.predict(stub, 'tokenizer', 'decode', {'codes': codes})
          for name in ('sampler', 'probe'):
            clients.metadata(stub, name)
          return
        except grpc.RpcError:
          if time.monotonic() > end or cls.process.poll() is not None:
            raise
          time.sleep(0.5)


if __name__ == '__main__':
  absltest.main()
