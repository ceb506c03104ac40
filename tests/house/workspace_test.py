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

_ROOT = pathlib.Path(os.path.realpath(__file__)).parents[2]

# name==version, a comment sign, and a reason of at least a few words.
_REQUIREMENT = re.compile(r'(?P<name>[\w.-]+)==(?P<version>\S+)  # (\S+ ?){3,}')
_LOCKED = re.compile(r'^(?P<name>[\w.-]+)==(?P<version>[^\s;]+)', re.MULTILINE)
# What a lock may say to pip or of how it was made: nothing that names a host.
_LOCK_OPTIONS = {
  'generate-hashes',
  'hash',
  'no-annotate',
  'no-deps',
  'no-emit-package',
  'python-version',
  'universal',
}


def _calls(tree: ast.AST) -> list[ast.Call]:
  return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


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


# Who may import whom: a room stands on those named, and on the ground floor.
_GROUND = (
  'vim_tf.compat',
  'vim_tf.config',
  'vim_tf.files',
  'vim_tf.machine',
  'vim_tf.places',
  'vim_tf.presets',
  'vim_tf.protocols',
  'vim_tf.settings',
)
_FLOORS = {
  'vim_tf.nn': (),
  'vim_tf.vit_vqgan': ('vim_tf.nn',),
  'vim_tf.vim': ('vim_tf.nn',),
  'vim_tf.data': ('vim_tf.nn',),
  # A classifier's weights come in a file of PyTorch.
  'vim_tf.metrics': ('vim_tf.nn', 'vim_tf.interop.torch_file'),
  'vim_tf.training': ('vim_tf.nn',),
  'vim_tf.probe': ('vim_tf.nn', 'vim_tf.vim'),
  'vim_tf.interop.torch_file': (),
  'vim_tf.interop': ('vim_tf.training', 'vim_tf.vit_vqgan'),
  'vim_tf.jobs': ('vim_tf',),
  'export.try_it': ('export', 'vim_tf', 'experiments.flags'),
  'export': ('export', 'vim_tf', 'experiments.flags'),
  'experiments.studies': ('experiments', 'export', 'vim_tf'),
  'experiments.quickstart': ('experiments', 'vim_tf'),
  'experiments': ('experiments', 'vim_tf'),
}


def _within(module: str, packages) -> bool:
  return any(module == p or module.startswith(p + '.') for p in packages)


def _imports(path: pathlib.Path) -> Iterator[str]:
  """The modules of this project that a file imports."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
      for alias in node.names:
        name = f'{node.module}.{alias.name}'
        file = _ROOT / (name.replace('.', '/') + '.py')
        yield name if file.exists() else node.module
    elif isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)


class FloorsTest(absltest.TestCase):
  def test_no_import_goes_up_or_sideways(self):
    wrong = []
    for path in _sources('*.py'):
      name = '.'.join(path.relative_to(_ROOT).with_suffix('').parts)
      room = next((r for r in _FLOORS if _within(name, [r])), None)
      if room is None:
        continue  # The ground floor, tests and tools.
      wrong += [
        f'{name} imports {other}'
        for other in _imports(path)
        if _within(other, ['vim_tf', 'experiments', 'export', 'tests'])
        and not _within(other, (room, *_FLOORS[room], *_GROUND))
        and other != 'experiments'  # Which says how programs start.
      ]
    self.assertEqual(wrong, [])

  def test_the_ground_floor_imports_nothing_else(self):
    for name in _GROUND:
      path = _ROOT / (name.replace('.', '/') + '.py')
      if path.exists():
        for other in _imports(path):
          self.assertFalse(
            _within(other, ['vim_tf', 'tensorflow'])
            and not _within(other, _GROUND),
            f'{name} imports {other}',
          )


class SourcesTest(absltest.TestCase):
  def test_every_test_runs_its_cases_by_itself(self):
    idle = [
      str(path.relative_to(_ROOT))
      for path in _sources('*_test.py')
      if not _ends_with_main(path.read_text())
    ]
    self.assertEqual(idle, [])

  def test_every_folder_of_tests_is_run(self):
    build = (_ROOT / 'tests' / 'BUILD').read_text()
    for path in _sources('*_test.py'):
      folder = str(path.parent.relative_to(_ROOT / 'tests'))
      self.assertIn(f'"{folder}"', build)

  def test_what_packages_read_is_installed_with_them(self):
    project = (_ROOT / 'pyproject.toml').read_text()
    listed = re.search(r'(?m)^"\*" = \[(.+)\]$', project).group(1)
    endings = set(re.findall(r'"\*(\.\w+)"', listed))
    code = {'.py', '.pyc', '.ipynb', ''}  # Bazel's own files have no ending.
    for package in ('vim_tf', 'experiments', 'export'):
      for path in (_ROOT / package).rglob('*.*'):
        self.assertIn(path.suffix, endings | code, path)


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

  def test_the_package_needs_what_the_programs_import(self):
    project = (_ROOT / 'pyproject.toml').read_text()
    needed = project.partition('\ndependencies = [')[2].partition('\n]')[0]
    named = {_normal(name) for name in re.findall(r'"([\w-]+)', needed)}
    # The environment's alone: held for others, optional, or of developers.
    others = {
      *('keras', 'protobuf', 'setuptools', 'wheel', 'tensorflow-metadata'),
      *('tensorflow-addons', 'ruff', 'mypy', 'pdoc'),
    }
    self.assertEqual(set(self._read('requirements.txt')) - named, others)

  def test_every_requirement_is_locked(self):
    for name in (
      *('requirements', 'requirements-data', 'requirements-beam'),
      'experiments/studies/tpu/requirements',
    ):
      with self.subTest(name):
        required = self._read(name + '.txt')
        locked = self._read_lock(name + '.lock')
        self.assertEqual(required, {key: locked.get(key) for key in required})

  def test_the_compiler_asked_is_that_of_the_tpus_environment(self):
    asked = self._read('experiments/studies/tpu/requirements.txt')
    installed = self._read_lock('requirements-tpu.lock')
    self.assertEqual(asked['libtpu'], installed['libtpu'])

  def test_locks_name_no_host(self):
    for path in (
      *_ROOT.glob('requirements*.lock'),
      *_sources('requirements*.lock'),
    ):
      text = path.read_text()
      self.assertFalse('//' in text, f'{path.name} names a host')
      options = set(re.findall(r'--([a-z][a-z-]*)', text))
      self.assertEmpty(options - _LOCK_OPTIONS, path.name)


if __name__ == '__main__':
  absltest.main()
