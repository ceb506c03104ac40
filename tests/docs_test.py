"""Tests that the documentation holds: commands, flags, settings, links.

It reads the whole source tree, as `workspace_test` does, and imports from it
whatever is there. Nothing is run: the commands are parsed by the flags of their
binaries, and those of training are made into configs.
"""

import ast
import collections
from collections.abc import Iterator
import contextlib
import dataclasses
import importlib
import os
import pathlib
import re
import shlex
import sys

from absl import flags
from absl.testing import absltest

_ROOT = pathlib.Path(os.path.realpath(__file__)).parents[1]
_TRAINING = {'train_vit_vqgan': 'stage1', 'train_vim': 'stage2'}
"""Binaries whose flags make a config, by the name of their presets."""

_COMMAND = re.compile(r'\./bazelw\s+(run|test)\s+(//[^\s`]*)([^\n`]*)')
_INLINE_FLAG = re.compile(r'--([a-z][a-z0-9_]*)')
_LINK = re.compile(r'\]\(([^)\s]+)\)')
_FENCED = re.compile(r'^( *)```.*?^\1```', re.DOTALL | re.MULTILINE)

# Of Bazel and of TensorFlow's own programs.
_FOREIGN_FLAGS = {
  *('all', 'config', 'dir', 'help', 'logdir'),
  'rest_api_timeout_in_ms',
  'xla_cpu_compilation_enabled',
  'xla_gpu_compilation_enabled',
}


def setUpModule():
  sys.path.insert(0, str(_ROOT))


@dataclasses.dataclass(frozen=True)
class Command:
  """A command of a document.

  Attributes:
    file: The document, from the root.
    verb: 'run' or 'test'.
    target: The target's label.
    arguments: What comes after `--`.
  """

  file: str
  verb: str
  target: str
  arguments: tuple[str, ...]

  @property
  def folder(self) -> str:
    return self.target.removeprefix('//').partition(':')[0]

  @property
  def name(self) -> str:
    return self.target.partition(':')[2]

  def __str__(self):
    return f'{self.file}: {self.verb} {self.target} {self.arguments}'


def _documents() -> list[pathlib.Path]:
  return [_ROOT / 'README.md', *sorted((_ROOT / 'docs').rglob('*.md'))]


def _binaries() -> list[tuple[str, str]]:
  """Folder and name of every binary."""
  found = []
  for folder in ('experiments', 'export', 'tools'):
    for kind, name in _rules(folder):
      if kind == 'py_binary':
        found.append((folder, name))
  return found


def _rules(folder: str) -> list[tuple[str, str]]:
  """Kind and name of the rules of a folder's BUILD."""
  build = _ROOT / folder / 'BUILD'
  if not build.exists():
    return []
  return [
    (call.func.id, keyword.value.value)
    for call in ast.walk(ast.parse(build.read_text()))
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
    for keyword in call.keywords
    if keyword.arg == 'name'
  ]


def _commands(file: str, text: str) -> Iterator[Command]:
  """The commands in a text; lines that end with a backslash go on."""
  text = re.sub(r'\\\n\s*', ' ', text)
  for verb, target, rest in _COMMAND.findall(text):
    words = shlex.split(rest, comments=True)
    if words and words[0] != '--':
      words = []  # A sentence goes on.
    target = re.sub(r'(?<=[^.])[.,;:]$', '', target)
    yield Command(file, verb, target, tuple(words[1:]))


def _all_commands() -> list[Command]:
  found = []
  for path in _documents():
    found += _commands(str(path.relative_to(_ROOT)), path.read_text())
  for folder, name in _binaries():
    path = _ROOT / folder / f'{name}.py'
    text = ast.get_docstring(ast.parse(path.read_text())) or ''
    found += _commands(str(path.relative_to(_ROOT)), text)
  return found


@contextlib.contextmanager
def _defined(folder: str, name: str):
  """The module of a binary, whose flags are defined inside only."""
  module = f'{folder}/{name}'.replace('/', '.')
  sys.modules.pop(module, None)
  before = set(flags.FLAGS)
  try:
    yield importlib.import_module(module)
  finally:
    for flag in set(flags.FLAGS) - before:
      delattr(flags.FLAGS, flag)


def _parse(module, name: str, arguments):
  """Parses a command line, and makes the config of a training."""
  flags.FLAGS([name, *arguments])
  if name in _TRAINING:
    cli = importlib.import_module('experiments.cli')
    cli.config_from_flags(_presets(_TRAINING[name]), module.SETTINGS)


def _presets(stage: str):
  """What of `vim_tf.presets` is called so."""
  return getattr(importlib.import_module('vim_tf.presets'), stage)


class CommandsTest(absltest.TestCase):
  def test_every_command_is_understood(self):
    wrong, by_binary = [], collections.defaultdict(list)
    for command in _all_commands():
      kinds = {kind for kind, n in _rules(command.folder) if n == command.name}
      if command.target == '//...':
        continue
      if command.verb == 'test' and kinds != {'py_test'}:
        wrong.append(f'{command}: there is no such test')
      elif command.verb == 'run' and not kinds & {'py_binary', 'alias'}:
        wrong.append(f'{command}: there is no such binary')
      elif kinds == {'py_binary'}:
        by_binary[command.folder, command.name].append(command)
    self.assertEqual(wrong, [])
    for (folder, name), commands in by_binary.items():
      for command in commands:
        with _defined(folder, name) as module, self.subTest(str(command)):
          _parse(module, name, command.arguments)

  def test_every_binary_is_shown(self):
    shown = {(c.folder, c.name) for c in _all_commands()}
    self.assertContainsSubset(set(_binaries()), shown)

  def test_wrong_commands_are_seen(self):
    for arguments, error in (
      ('--no_such_flag=1', flags.Error),
      ('--preset=huge', flags.Error),
      ('--set=model.height=3', ValueError),
    ):
      with (
        _defined('experiments', 'train_vit_vqgan') as module,
        self.assertRaises(error),
      ):
        _parse(module, 'train_vit_vqgan', ['--workdir=x', arguments])

  def test_commands_are_found(self):
    text = (
      'See `./bazelw test //a:b_test`, or\n\n  ./bazelw run //a/b:c -- --d=1 \\'
      "\n    --e='f g'  # h\n"
    )
    self.assertEqual(
      list(_commands('x', text)),
      [
        Command('x', 'test', '//a:b_test', ()),
        Command('x', 'run', '//a/b:c', ('--d=1', '--e=f g')),
      ],
    )


class SettingsTest(absltest.TestCase):
  def test_every_flag_that_is_named_exists(self):
    known = set(_FOREIGN_FLAGS)
    for folder, name in _binaries():
      before = set(flags.FLAGS)
      with _defined(folder, name):
        known |= set(flags.FLAGS) - before
    for path in _documents():
      text = _FENCED.sub('', path.read_text())
      text = re.sub(r'(?m)^ {4}.*$', '', text)  # Indented code.
      for code in re.findall(r'`([^`]*)`', text):
        for flag in _INLINE_FLAG.findall(code):
          self.assertIn(flag, known, f'{path.name}: {code}')

  def test_the_rows_of_the_paper_make_configs(self):
    text = (_ROOT / 'docs' / 'reproduction.md').read_text()
    count = 0
    for row in re.findall(r'(?m)^\|.*\|$', text):
      codes = re.findall(r'`([^`]*)`', row)
      for name, stage in _TRAINING.items():
        for preset in codes:
          if preset not in _presets(stage.upper()):
            continue
          arguments = [f'--preset={preset}', '--workdir=x', '--tokenizer=y']
          with _defined('experiments', name) as module, self.subTest(row):
            if name == 'train_vit_vqgan':
              arguments.pop()
              given = [c for c in codes if c.startswith('--')]
              arguments += [flag for code in given for flag in code.split()]
            _parse(module, name, arguments)
            count += 1
    self.assertGreater(count, 15)


class LinksTest(absltest.TestCase):
  def test_every_file_that_is_linked_is_there(self):
    for path in _documents():
      for link in _LINK.findall(path.read_text()):
        if '://' in link or link.startswith('#'):
          continue
        target = path.parent / link.partition('#')[0]
        self.assertTrue(target.exists(), f'{path.name}: {link}')

  def test_every_path_that_is_named_is_there(self):
    own = r'`((?:vim_tf|experiments|export|tests|docs|tools)/[\w/.-]+)`'
    found = [
      (path.name, name)
      for path in _documents()
      for name in re.findall(own, path.read_text())
    ]
    self.assertNotEmpty(found)
    for document, name in found:
      self.assertTrue((_ROOT / name).exists(), f'{document}: {name}')


if __name__ == '__main__':
  absltest.main()
