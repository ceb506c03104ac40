"""Runs programs in a test's own process: one import of TensorFlow.

Programs define their flags when they are imported, and several define the same
names. Hence a program's flags are there only while it runs, at their defaults.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import io
import os
import pathlib
import sys
from unittest import mock

from absl import flags

from experiments import flags as flags_lib
from tests import programs


@dataclasses.dataclass(frozen=True)
class Result:
  """How a run ended.

  Attributes:
    status: The exit status.
    error: What was printed to stderr, log messages included.
  """

  status: int
  error: str

  @property
  def error_lines(self) -> list[str]:
    """Lines from the first one on that tells of an error."""
    lines = self.error.splitlines()
    wrong = ('error: ', 'FATAL ', 'Traceback ')
    starts = [i for i, line in enumerate(lines) if line.startswith(wrong)]
    return lines[starts[0] :] if starts else []


class Binary:
  """One program of `experiments`.

  Args:
    name: Its module in `experiments`, such as 'sample' or 'studies.speed'.
  """

  _flags_of = {}  # By module, since its import defines them once only.

  def __init__(self, name: str):
    module = f'experiments.{name}'
    if (programs.ROOT / module.replace('.', '/')).is_dir():
      module += '.__main__'
    before = set(flags.FLAGS)
    if name not in self._flags_of:
      sys.modules.pop(module, None)  # Another test may have imported it.
    self._module = importlib.import_module(module)
    defined = {flag: flags.FLAGS[flag] for flag in set(flags.FLAGS) - before}
    self._flags = self._flags_of.setdefault(name, defined)
    if defined:
      self._forget()

  def run(self, *arguments: str, folder: str = '') -> Result:
    """Runs it.

    Args:
      *arguments: The command line.
      folder: Where `bazel run` was typed; by default where the test runs.
    """
    for name, flag in self._flags.items():
      flag.unparse()
      flags.FLAGS[name] = flag
    error, status = io.StringIO(), 0
    here = os.getcwd()
    environment = {'BUILD_WORKING_DIRECTORY': folder or here}
    try:
      with (
        mock.patch.object(sys, 'argv', ['binary', *arguments]),
        mock.patch.dict(os.environ, environment),
        contextlib.redirect_stderr(error),
      ):
        flags_lib.run(self._module.main)
    except SystemExit as end:
      status = end.code or 0
    finally:
      os.chdir(here)
      self._forget()
    return Result(status, error.getvalue())

  def _forget(self):
    for name in self._flags:
      delattr(flags.FLAGS, name)


def snapshot(folder: str | os.PathLike) -> dict[str, str]:
  """Hashes of a folder's files but `lock`, and '' for folders, by path."""
  folder = pathlib.Path(folder)
  return {
    str(path.relative_to(folder)): (
      hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ''
    )
    for path in folder.rglob('*')
    if path.name != 'lock'
  }


class Refused:
  """Of a test case: whether a program refused to write to `self._new`."""

  leaves_folder = False
  """Whether it may be there, empty: trainings make theirs before they read."""

  def setUp(self):
    super().setUp()
    self._new = pathlib.Path(self.create_tempdir()) / 'new'

  def _assert_refused(self, result, *texts):
    """Exit status 1, one line that says what is wrong, nothing written."""
    self.assertEqual(result.status, 1, result.error)
    self.assertLen(result.error_lines, 1, result.error)
    (line,) = result.error_lines
    self.assertTrue(line.startswith('error: '), result.error)
    for text in texts:
      self.assertIn(text, line)
    self.assertEmpty(list(self._new.glob('*')))
    self.assertFalse(self._new.exists() and not self.leaves_folder)
    self.assertEmpty(list(self._new.parent.glob('*.writing-*')))
