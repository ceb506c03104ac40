"""Tests of the workspace itself: what Bazel and pip would not notice.

It reads the whole source tree, which it finds through the real path of this
file: Bazel's runfiles are links to it.
"""

import ast
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


def _declared_tests() -> set[pathlib.Path]:
  """Returns the main files of all py_test rules."""
  declared = set()
  for build in (_ROOT / 'tests').rglob('BUILD'):
    for call in _calls(ast.parse(build.read_text())):
      if getattr(call.func, 'id', '') == 'py_test':
        rule = _keywords(call)
        main = rule.get('main', rule['name'] + '.py')
        if main in rule.get('srcs', ()):
          declared.add(build.parent / main)
  return declared


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


class TestsTest(absltest.TestCase):
  def test_every_test_is_declared(self):
    files = set((_ROOT / 'tests').rglob('*_test.py'))
    self.assertIn(pathlib.Path(os.path.realpath(__file__)), files)
    self.assertEqual(
      sorted(map(str, files - _declared_tests())),
      [],
      'not the main file of a py_test in the BUILD file beside it',
    )

  def test_every_test_runs_its_cases(self):
    # A py_test that only defines classes passes, and runs nothing.
    idle = [
      str(path.relative_to(_ROOT))
      for path in (_ROOT / 'tests').rglob('*_test.py')
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
    for name in ('requirements', 'requirements-data'):
      with self.subTest(name):
        required = self._read(name + '.txt')
        locked = self._read_lock(name + '.lock')
        self.assertEqual(required, {key: locked.get(key) for key in required})

  def test_locks_name_no_host(self):
    for path in _ROOT.glob('requirements*.lock'):
      self.assertNotRegex(path.read_text(), '://|--.*-url|--find-links')


if __name__ == '__main__':
  absltest.main()
