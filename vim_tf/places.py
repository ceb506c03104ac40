"""Paths as users write them: `~` is their home, and some are not local.

TensorFlow reads and writes `gs://bucket/...` through `tf.io.gfile`. Everything
else would make a local folder named `gs:` of it, and is kept from doing so.
"""

import os
import re

from vim_tf.settings import ConfigError

_REMOTE = re.compile(r'[a-zA-Z][a-zA-Z0-9+.-]*://')
_KINDS = re.compile(r'(?:(?:folder|file|inception|head):(?!//))*')
"""What may stand before a path, as in folder:PATH."""


def is_remote(path: str | os.PathLike) -> bool:
  """Whether a path is a URL, as gs://bucket/folder is."""
  return bool(_REMOTE.match(os.fspath(path)))


def anywhere(path: str | os.PathLike, what: str = '') -> str:
  """A path that may be remote, with `~` expanded.

  Args:
    path: The path; maybe after 'folder:' or the like.
    what: Not used: nothing is wrong with any path.
  """
  del what
  path = os.fspath(path)
  kind = _KINDS.match(path)[0]
  return kind + os.path.expanduser(path[len(kind) :])


def local(path: str | os.PathLike, what: str) -> str:
  """A path that must be on this machine's disks, with `~` expanded.

  Args:
    path: The path; maybe after 'folder:' or the like.
    what: What the error calls it.

  Raises:
    ConfigError: If it is remote.
  """
  path = os.fspath(path)
  bare = path[_KINDS.match(path).end() :]
  if is_remote(bare):
    raise ConfigError(
      f'{what} is {path}, but must be on a local disk, where files can be '
      'locked, renamed and appended to: take one, and copy from or to '
      f'{bare.partition("://")[0]}:// with `gcloud storage rsync` or the like.'
    )
  return anywhere(path)
