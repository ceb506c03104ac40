"""The commands that the documents and the binaries' docstrings show.

A document's commands stand in blocks, indented, or fenced as `sh` or without a
language; those of Bazel also in sentences. Blocks of other languages (`text`,
`python`) hold none.
"""

import ast
from collections.abc import Iterator
import dataclasses
import os
import pathlib
import re
import shlex

ROOT = pathlib.Path(os.path.realpath(__file__)).parents[2]
"""The source tree."""

_BAZEL = re.compile(
  r'\./bazelw\s+(run|test)\s+(?:--\S+\s+)*(//[^\s`]*)([^\n`]*)'
)
_MODULE = re.compile(
  r'(?:nohup |\S*bin/)?python -m (experiments|export)\.(\w+)(.*)'
)
_FENCE = re.compile(r'( *)```(\w*)')
_SHELL_ENDS = ('|', '>', '2>&1', '&', ';')
_LANGUAGES = {'': 'shell', 'sh': 'shell'}


@dataclasses.dataclass(frozen=True)
class Command:
  """A command of a document.

  Attributes:
    file: The document, from the root.
    text: The whole of it; where a backslash ended a line, that goes on.
  """

  file: str
  text: str

  @property
  def verb(self) -> str:
    """'run' or 'test' of a target, '' of any other command."""
    return self._parts[0]

  @property
  def target(self) -> str:
    """The target's label, '' if there is none."""
    return self._parts[1]

  @property
  def tests(self) -> tuple[str, ...]:
    """The labels of all tests of a 'test'."""
    others = (word for word in self.text.split() if word.startswith('//'))
    return (self.target, *list(others)[1:]) if self.verb == 'test' else ()

  @property
  def arguments(self) -> tuple[str, ...]:
    """What the target is given; where it says '...', nothing is."""
    return self._parts[2]

  @property
  def _parts(self) -> tuple[str, str, tuple[str, ...]]:
    module = _MODULE.match(self.text)
    bazel = _BAZEL.match(self.text)
    if module:
      folder, name, rest = module.groups()
      return 'run', f'//{folder}:{name}', _words(rest)
    if bazel:
      verb, target, rest = bazel.groups()
      words = _words(rest)
      if words and words[0] != '--':
        words = ()  # A sentence goes on.
      target = re.sub(r'(?<=[^.])[.,;:]$', '', target)
      return verb, target, words[1:]
    return '', '', ()

  @property
  def folder(self) -> str:
    return self.target.removeprefix('//').partition(':')[0]

  @property
  def name(self) -> str:
    return self.target.partition(':')[2]

  def __str__(self):
    return f'{self.file}: {self.text}'


def _words(text: str) -> tuple[str, ...]:
  """A command's words, up to where the shell takes over."""
  words = shlex.split(text, comments=True)
  ends = [i for i, word in enumerate(words) if word in _SHELL_ENDS]
  return tuple(
    word for word in words[: min(ends, default=None)] if word != '...'
  )


# ------------------------------------------------------------------ documents
def documents() -> list[pathlib.Path]:
  """The README and the pages of `docs`."""
  return [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]


def of_document(file: str, text: str) -> Iterator[Command]:
  """The commands of a document, in their order."""
  for kind, part in _parts(text):
    if kind == 'shell':
      for line in _whole_lines(part):
        yield Command(file, line)
    elif kind == 'prose':
      yield from of_prose(file, part)


def of_prose(file: str, text: str) -> Iterator[Command]:
  """Commands of Bazel in a text; lines that end with a backslash go on."""
  text = re.sub(r'\\\n\s*', ' ', text)
  for found in _BAZEL.finditer(text):
    yield Command(file, found.group().replace('\n', ' ').strip())


def _parts(text: str) -> Iterator[tuple[str, str]]:
  """A document's parts: 'prose', 'shell', or the language of a block."""
  kind, lines, fence, blank = 'prose', [], None, True
  for line in text.splitlines():
    mark = _FENCE.fullmatch(line)
    if fence is not None:
      new = kind
      if mark and mark[1] == fence:
        fence, new, line = None, 'prose', ''
    elif mark:
      fence = mark[1]
      new, line = _LANGUAGES.get(mark[2], mark[2]), ''
    elif line.startswith('    ') and (blank or kind == 'shell'):
      new = 'shell'
    elif line.strip() or kind != 'shell':
      new = 'prose'
    else:
      new = kind  # A blank line between two indented ones.
    if new != kind:
      yield kind, '\n'.join(lines)
      kind, lines = new, []
    lines.append(line)
    blank = not line.strip()
  yield kind, '\n'.join(lines)


def _whole_lines(text: str) -> Iterator[str]:
  """The commands of a shell script, each as one text."""
  rest = ''
  for line in text.splitlines():
    rest += line.strip()
    if rest.endswith('\\'):
      rest = rest.removesuffix('\\').rstrip() + ' '
    elif rest and _is_whole(rest):
      yield rest
      rest = ''
    elif rest:
      rest += '\n'
  if rest:
    yield rest


def _is_whole(text: str) -> bool:
  """Whether a shell would not wait for another line."""
  try:
    words = shlex.split(text, comments=True)
  except ValueError:  # A quotation goes on.
    return False
  if text.endswith(('|', '&&')):
    return False
  return words.count('do') == words.count('done')


# ----------------------------------------------------------------- docstrings
def rules(folder: str) -> list[tuple[str, str]]:
  """Kind and name of the rules of a folder's BUILD."""
  build = ROOT / folder / 'BUILD'
  if not build.exists():
    return []
  return [
    (call.func.id, keyword.value.value)
    for call in ast.walk(ast.parse(build.read_text()))
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
    for keyword in call.keywords
    if keyword.arg == 'name'
  ]


def binaries() -> list[tuple[str, str]]:
  """Folder and name of every binary."""
  return [
    (folder, name)
    for folder in ('experiments', 'export', 'tools')
    for kind, name in rules(folder)
    if kind == 'py_binary'
  ]


def everything() -> list[Command]:
  """The commands of all documents, then those of the binaries' docstrings."""
  found = []
  for path in documents():
    found += of_document(str(path.relative_to(ROOT)), path.read_text())
  for folder, name in binaries():
    path = ROOT / folder / f'{name}.py'
    text = ast.get_docstring(ast.parse(path.read_text())) or ''
    found += of_prose(str(path.relative_to(ROOT)), text)
  return found
