"""Serves exports on this machine alone, as TF Serving would: to try them.

  ./bazelw run //export:serve -- --model=tokenizer=exports/tokenizer \
    --model=sampler=exports/sampler --model=probe=exports/probe

It is a stand-in for development, not for production: see `docs/serving.md` for
the real server. It speaks the same gRPC and REST protocols, takes new versions
into use, and shows a web page at its REST port.
"""

import pathlib

from absl import flags
from etils import epy

from export import binary
from vim_tf import places
from vim_tf.config import UserError

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from export import saved_model, server, server_configs

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


def main():
  """Serves until it is interrupted."""
  bases = find_bases(MODELS.value, CONFIG.value)
  running = server.Server(bases, PORT.value, REST_PORT.value, POLL.value)
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
    UserError: If none are named, one is not NAME=BASE, or a folder holds no
      versions.
  """
  bases = {}
  if config:
    try:
      bases = server_configs.read_model_config(pathlib.Path(config).read_text())
    except (OSError, ValueError) as error:
      raise UserError(
        f'Cannot read --model_config_file={config}: {error}.'
      ) from error
  for text in models:
    name, equals, base = text.partition('=')
    if not (name and equals and base):
      raise UserError(
        f'--model={text} is not a model: write --model=NAME=BASE.'
      )
    bases[name] = places.local(base, f'--model={name}')
  if not bases:
    raise UserError('No model was given: set --model=NAME=BASE.')
  for name, base in bases.items():
    if not saved_model.versions(base):
      raise UserError(f'{base} holds no version of {name}: export one first.')
  return bases


if __name__ == '__main__':
  binary.run(main)
