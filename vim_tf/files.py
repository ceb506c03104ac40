"""Files and folders that are there whole or not at all.

What is written gets its name when all of it is on disk. Until then it lies
beside its place under a hidden name of its own, so that several may write at
once; only a process that is killed leaves it there.
"""

from collections.abc import Iterator
import contextlib
import hashlib
import os
import pathlib
import shutil
import uuid

from vim_tf.settings import UserError

_MARK = '.writing-'
_HASHED_AT_ONCE = 2**24  # Bytes.


@contextlib.contextmanager
def new_file(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """A path to write a file to, which then takes the place of `path`.

  If the block raises, `path` is what it was.
  """
  path = pathlib.Path(path)
  temporary = _beside(path)
  try:
    yield temporary
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """A folder to write into, which then is `path`.

  Raises:
    OSError: At the end, if `path` has files, as when another was faster.
  """
  with scratch_folder(path) as temporary:
    yield temporary
    os.rename(temporary, path)


@contextlib.contextmanager
def scratch_folder(beside: str | os.PathLike) -> Iterator[pathlib.Path]:
  """A folder next to a path, on the same disk; it goes with the block."""
  temporary = _beside(pathlib.Path(beside))
  try:
    temporary.mkdir(parents=True)
    yield temporary
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def is_unfinished(name: str) -> bool:
  """Whether a name is one of those that are written under."""
  return _MARK in name


def remove_unfinished(folder: str | os.PathLike):
  """Removes what processes that were killed left in a folder."""
  for path in pathlib.Path(folder).glob(f'*{_MARK}*'):
    if path.is_dir():
      shutil.rmtree(path, ignore_errors=True)
    else:
      path.unlink(missing_ok=True)


def _beside(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(f'.{path.name}{_MARK}{uuid.uuid4().hex[:8]}')


def sha256(path: str | os.PathLike) -> str:
  """Hash of a file, in hexadecimal."""
  digest = hashlib.sha256()
  with open(path, 'rb') as file:
    while block := file.read(_HASHED_AT_ONCE):
      digest.update(block)
  return digest.hexdigest()


def read_known(
  path: str | os.PathLike, sha256: str, what: str, advice: str
) -> bytes:
  """Reads a file of known content, such as weights.

  Args:
    path: The file.
    sha256: Hash that it must have, in hexadecimal.
    what: What errors call it.
    advice: What they tell to do.

  Raises:
    UserError: If it is absent or has another hash.
  """
  try:
    content = pathlib.Path(path).read_bytes()
  except OSError as error:
    raise UserError(
      f'{what} cannot be read from {path} ({error.strerror}): {advice}.'
    ) from None
  found = hashlib.sha256(content).hexdigest()
  if found != sha256.lower():
    raise UserError(
      f'{what} at {path} has sha256 {found}, but {sha256.lower()} is '
      f'expected: {advice}.'
    )
  return content
