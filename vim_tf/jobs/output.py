"""Where results are written to, checked before they are computed."""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import tempfile

from vim_tf import places
from vim_tf.config import ConfigError


@contextlib.contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Makes the folder of --out, new or empty, before hours of computing.

  Yields:
    The folder, which can be written to. If nothing was, it is removed.

  Raises:
    ConfigError: If it holds something, or cannot be made or written to.
  """
  out = pathlib.Path(places.local(path, '--out'))
  try:
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
      raise ConfigError(f'--out={out} exists already; name a new folder.')
    with tempfile.TemporaryFile(dir=out):
      pass
  except OSError as error:
    raise ConfigError(f'Cannot write to --out={out}: {error.strerror}.') from (
      error
    )
  try:
    yield out
  finally:
    with contextlib.suppress(OSError):  # It is not empty.
      out.rmdir()


def check_file(flag: str, path: str):
  """Raises a `ConfigError` if the file of a flag cannot be written."""
  there = os.path.exists(path)
  try:
    with open(path, 'ab'):
      pass
  except OSError as error:
    raise ConfigError(f'Cannot write --{flag}={path}: {error.strerror}.') from (
      error
    )
  if not there:
    os.remove(path)
