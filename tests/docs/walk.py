"""Runs the documents' commands in one process, each page in its own folder."""

import contextlib
import io
import os
import pathlib
import shutil
import subprocess
from unittest import mock

from tests.docs import pages, shortening, stand_ins
from tests.experiments import running
from tests.export import served
from vim_tf.training import workdir as workdir_lib

_MAKES = ('out', 'base', 'save_reference')
"""Flags that name what a command makes; so does --workdir of these:"""
_MAKES_WORKDIR = (
  'import_checkpoint',
  'train_probe',
  'train_vim',
  'train_vit_vqgan',
)


class Walk:
  """Runs commands page by page.

  A command that differs from one that was run in the names of its files alone
  is not run again: what that one has made is put in its place. What a page
  takes for granted, such as `runs/vim`, is what an earlier page has made.

  Args:
    root: Folder for everything.
  """

  def __init__(self, root: pathlib.Path):
    self._root = root
    self._places = stand_ins.make(root / 'stand_ins')
    self._ran: dict[tuple, dict[str, pathlib.Path]] = {}
    self._known: dict[str, pathlib.Path] = {}

  def folder(self, file: str) -> pathlib.Path:
    """Where a document's commands are run."""
    folder = self._root / file.replace('/', '-')
    if not folder.exists():
      folder.mkdir()
      stand_ins.put(folder)
    return folder

  @contextlib.contextmanager
  def at(self, file: str):
    """The environment of a shell in a document's folder."""
    folder = str(self.folder(file))
    environment = {'HOME': folder, 'PWD': folder}
    environment['BUILD_WORKING_DIRECTORY'] = folder
    environment['TFDS_DATA_DIR'] = str(self._root / 'tfds')
    with mock.patch.dict(os.environ, environment), contextlib.chdir(folder):
      yield pathlib.Path(folder)

  def run(self, command: pages.Command) -> bool:
    """Runs a binary's command.

    Returns:
      Whether it was run, and not only another one that is the same.

    Raises:
      AssertionError: If it fails.
    """
    with self.at(command.file) as folder:
      arguments = shortening.shorten(command, folder, self._places)
      key = command.target, shortening.what_it_is(arguments)
      named = {
        flag: folder / path
        for flag, path in shortening.paths(arguments).items()
      }
      makes = _MAKES
      if command.name in _MAKES_WORKDIR:
        makes += ('workdir',)
      made = {flag: path for flag, path in named.items() if flag in makes}
      if key in self._ran:
        for flag, path in made.items():
          _copy(self._ran[key][flag], path)
        return False
      for path in set(named.values()) - set(made.values()):
        self._provide(path, folder)
      status, error = _run(command, arguments)
      assert status == 0, f'{command}\n{arguments}\n{error}'
      self._ran[key] = made
      for path in made.values():
        self._known.setdefault(str(path.relative_to(folder)), path)
      return True

  def shell(self, command: pages.Command) -> str:
    """Runs any other command by a shell; returns what it prints."""
    with self.at(command.file) as folder:
      return subprocess.run(
        ['bash', '-c', command.text],
        check=True,
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
      ).stdout

  def _provide(self, path: pathlib.Path, folder: pathlib.Path):
    """Makes sure that what a command reads is there, with what that needs."""
    if ',' in str(path):  # The probes of several VIMs.
      for one in str(path.relative_to(folder)).split(','):
        self._provide_probe(folder / one, folder)
    if path.exists() or not path.is_relative_to(folder):
      return
    name = str(path.relative_to(folder))
    if name in self._known:
      _copy(self._known[name], path)
    if (path / 'config.json').exists():
      config = workdir_lib.read(path)['config']
      for stage in ('tokenizer', 'vim'):
        if stage in config:
          self._provide(folder / config[stage], folder)

  def _provide_probe(self, path: pathlib.Path, folder: pathlib.Path):
    if not path.exists():
      known = [path.with_name('probe-0'), self._known['runs/probe']]
      stand_ins.other_probe(next(p for p in known if p.exists()), path)


def _copy(source: pathlib.Path, path: pathlib.Path):
  if path.exists():
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  if source.is_dir():
    shutil.copytree(source, path)
  else:
    shutil.copy(source, path)


def _run(command: pages.Command, arguments) -> tuple[int, str]:
  """Runs a binary; returns its status and what it said of errors."""
  with contextlib.redirect_stdout(io.StringIO()):
    if command.folder == 'export':
      return served.run(command.name, *arguments)
    result = running.Binary(command.name).run(*arguments, folder=os.getcwd())
    return result.status, result.error
