"""Tests of the workspace itself: what Bazel and pip would not notice.

It reads the whole source tree, which it finds through the real path of this
file: Bazel's runfiles are links to it.
"""

import ast
from collections.abc import Iterator
import os
import pathlib
import re

from absl.testing import absltest

_ROOT = pathlib.Path(os.path.realpath(__file__)).parents[1]

# name==version, a comment sign, and a reason of at least a few words.
_REQUIREMENT = re.compile(r'(?P<name>[\w.-]+)==(?P<version>\S+)  # (\S+ ?){3,}')
_LOCKED = re.compile(r'^(?P<name>[\w.-]+)==(?P<version>[^\s;]+)', re.MULTILINE)


def _calls(tree: ast.AST) -> list[ast.Call]:
  return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def _keywords(call: ast.Call) -> dict:
  """Returns the arguments of a BUILD rule that are plain values."""
  found = {}
  for keyword in call.keywords:
    try:
      found[keyword.arg] = ast.literal_eval(keyword.value)
    except ValueError:
      pass
  return found


def _rules(kind: str) -> Iterator[tuple[pathlib.Path, dict]]:
  """Yields the folder and the arguments of each rule whose kind matches."""
  for build in _sources('BUILD'):
    for call in _calls(ast.parse(build.read_text())):
      if re.fullmatch(kind, getattr(call.func, 'id', '')):
        yield build.parent, _keywords(call)


def _sources(pattern: str) -> list[pathlib.Path]:
  """Returns the files of our own folders, of which some may not exist yet."""
  return sorted(
    path
    for folder in ('vim_tf', 'experiments', 'export', 'tests', 'tools')
    for path in (_ROOT / folder).rglob(pattern)
  )


def _ends_with_main(source: str) -> bool:
  """Whether a file ends with `if __name__ == '__main__':` and a main() call."""
  last = ast.parse(source).body[-1]
  if not isinstance(last, ast.If) or '__name__' not in ast.dump(last.test):
    return False
  return any(
    isinstance(call.func, ast.Attribute) and call.func.attr == 'main'
    for call in _calls(last)
  )


def _normal(name: str) -> str:
  """Returns a package's name as package indexes compare it."""
  return re.sub(r'[-_.]+', '-', name).lower()


class SourcesTest(absltest.TestCase):
  def _assert_declared(self, files, declared):
    self.assertIn(pathlib.Path(os.path.realpath(__file__)), files)
    missing = [
      path.relative_to(_ROOT) for path in files if path not in declared
    ]
    self.assertEqual(list(map(str, missing)), [], 'add to the BUILD beside it')

  def test_every_test_is_declared(self):
    self._assert_declared(
      _sources('*_test.py'),
      {
        folder / rule.get('main', rule['name'] + '.py')
        for folder, rule in _rules('py_test')
      },
    )

  def test_every_source_is_declared(self):
    self._assert_declared(
      _sources('*.py'),
      {
        folder / source
        for folder, rule in _rules('py_.*')
        for source in rule.get('srcs', ())
      },
    )

  def test_every_test_runs_its_cases(self):
    # A py_test that only defines classes passes, and runs nothing.
    idle = [
      str(path.relative_to(_ROOT))
      for path in _sources('*_test.py')
      if not _ends_with_main(path.read_text())
    ]
    self.assertEqual(idle, [])

  def test_a_file_without_main_is_seen(self):
    body = 'class FooTest:\n  def test_a(self):\n    pass\n'
    main = "\nif __name__ == '__main__':\n  absltest.main()\n"
    self.assertFalse(_ends_with_main(body))
    self.assertFalse(_ends_with_main(main + body))
    self.assertTrue(_ends_with_main(body + main))


class RequirementsTest(absltest.TestCase):
  def _read(self, name: str) -> dict[str, str]:
    """Returns the pinned versions, checking the form of each line."""
    versions = {}
    for line in (_ROOT / name).read_text().splitlines():
      if line and not line.startswith('#'):
        match = _REQUIREMENT.fullmatch(line)
        self.assertIsNotNone(match, f'no NAME==VERSION  # reason: {line}')
        versions[_normal(match['name'])] = match['version']
    self.assertNotEmpty(versions)
    return versions

  def _read_lock(self, name: str) -> dict[str, str]:
    text = (_ROOT / name).read_text()
    return {_normal(m['name']): m['version'] for m in _LOCKED.finditer(text)}

  def test_every_requirement_is_locked(self):
    for name in ('requirements', 'requirements-data', 'requirements-beam'):
      with self.subTest(name):
        required = self._read(name + '.txt')
        locked = self._read_lock(name + '.lock')
        self.assertEqual(required, {key: locked.get(key) for key in required})

  def test_locks_name_no_host(self):
    for path in _ROOT.glob('requirements*.lock'):
      self.assertNotRegex(path.read_text(), '://|--.*-url|--find-links')


if __name__ == '__main__':
  absltest.main()
