"""Tests of the docs: flags, files, targets and links that they name are there.

Whether a command does what a page says is for those who run it; README's
example, here, and the walk through own_data.md are run, the others are not.
"""

import ast
import importlib
import os
import pathlib
import re
import tempfile

from absl.testing import absltest

from tests import programs, testing
from tests.experiments import tiny_runs

_ROOT = programs.ROOT

_FENCED = re.compile(r'^( *)```.*?^\1```', re.DOTALL | re.MULTILINE)
_FLAG = re.compile(r'(?<!\S)--([a-z][a-z0-9_]*)')
_LABEL = re.compile(r'//((?:experiments|export|tests|tools)[\w/]*)(?::(\w+))?')
_LINK = re.compile(r'\]\(([^)\s]+)\)')
_PATH = re.compile(
  r'`((?:vim_tf|experiments|export|tests|docs|tools)/[\w/.-]+)`'
)
_PROGRAM = re.compile(
  r'(?://(?P<label>(?:experiments|export)[\w/:]*) +--'
  r'|python -m (?P<module>(?:experiments|export)\.[\w.]+))'
  r' (?P<flags>[^\n`|>&]*)'
)


def _pages() -> list[pathlib.Path]:
  pages = [_ROOT / 'README.md', _ROOT / 'CONTRIBUTING.md']
  return [*pages, *sorted((_ROOT / 'docs').rglob('*.md'))]


def _sources() -> list[pathlib.Path]:
  folders = ('vim_tf', 'experiments', 'export', 'tests', 'tools')
  return [p for f in folders for p in sorted((_ROOT / f).rglob('*.py'))]


def _module(label: str) -> str:
  """'experiments:quickstart' and 'experiments/quickstart' are the same."""
  return label.replace('/', '.').replace(':', '.')


class DocsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self._flags = {}
    for name in programs.names():
      with programs.defined(name) as (_, found):
        self._flags[name] = found

  def test_every_flag_of_a_command_exists(self):
    found = 0
    for path in _pages():
      for match in _PROGRAM.finditer(path.read_text().replace('\\\n', ' ')):
        name = _module(match['label'] or match['module'])
        for flag in _FLAG.findall(match['flags']):
          if name in self._flags and flag != 'help':
            self.assertIn(
              flag, self._flags[name], f'{path.name}: {match.group()}'
            )
            found += 1
    self.assertGreater(found, 100)

  def test_every_flag_of_the_notebook_exists(self):
    found = 0
    for _, text in programs.notebook_cells():
      for call in ast.walk(ast.parse(text)):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == 'run':
          module, *flags = map(ast.unparse, call.args)
          for flag in _FLAG.findall(' '.join(flags).replace("'", ' ')):
            self.assertIn(flag, self._flags[ast.literal_eval(module)])
            found += 1
    self.assertGreater(found, 8)

  def test_every_flag_that_is_named_alone_exists(self):
    """Of other programs' flags a page names the program: `bazel test --x`."""
    known = set().union(*self._flags.values())
    for path in _pages():
      text = _FENCED.sub('', path.read_text())
      text = re.sub(r'(?m)^ {4}.*$', '', text)  # Indented code.
      for code in re.findall(r'`(--[^`]*)`', text):
        for flag in _FLAG.findall(code):
          self.assertIn(flag, known | {'help'}, f'{path.name}: {code}')

  def test_every_target_that_is_named_exists(self):
    for path in [*_pages(), *_sources()]:
      for folder, name in _LABEL.findall(path.read_text()):
        folder = folder.rstrip('/')
        build = _ROOT / folder / 'BUILD'
        self.assertTrue(build.exists(), f'{path.name}: //{folder}')
        name = name or folder.rsplit('/', 1)[-1]
        tests = name.removesuffix('_test').replace('_', '/')
        self.assertTrue(
          name.isupper()  # Any of them: //experiments:NAME.
          or (_ROOT / folder / '__main__.py').exists()
          or re.search(rf'"({name}|{tests})"', build.read_text()),
          f'{path.name}: //{folder}:{name}',
        )

  def test_every_file_that_is_named_is_there(self):
    for path in [*_pages(), *_sources()]:
      for name in _PATH.findall(path.read_text()):
        self.assertTrue((_ROOT / name).exists(), f'{path.name}: {name}')

  def test_every_file_that_is_linked_is_there(self):
    for path in _pages():
      for link in _LINK.findall(path.read_text()):
        if '://' not in link and not link.startswith('#'):
          target = path.parent / link.partition('#')[0]
          self.assertTrue(target.exists(), f'{path.name}: {link}')

  def test_every_job_that_is_listed_exists(self):
    text = (_ROOT / 'docs' / 'python.md').read_text()
    cells = re.findall(r'(?m)^\| (`.*?`) \|', text)
    names = re.findall(r'`(\w+)\.(\w+)`', ' '.join(cells))
    self.assertGreater(len(names), 8)
    for module, name in names:
      found = importlib.import_module(f'vim_tf.jobs.{module}')
      self.assertTrue(callable(getattr(found, name, None)), (module, name))

  def test_every_heading_that_is_linked_is_there(self):
    for path in _pages():
      for link in _LINK.findall(path.read_text()):
        file, _, anchor = link.partition('#')
        if anchor and '://' not in link:
          target = path.parent / file if file else path
          heads = re.findall(r'(?m)^#+ (.*)$', target.read_text())
          anchors = {
            re.sub(r'[^\w -]', '', head.lower()).replace(' ', '-')
            for head in heads
          }
          self.assertIn(anchor, anchors, f'{path.name}: {link}')


class ReadmeTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self._text = (_ROOT / 'README.md').read_text()

  def test_it_is_short(self):
    self.assertLessEqual(len(self._text.splitlines()), 160)

  def test_both_ways_to_run_it_exist(self):
    self.assertIn('./bazelw run //experiments:quickstart', self._text)
    self.assertIn('./bazelw test //...', self._text)
    self.assertTrue(os.access(_ROOT / 'bazelw', os.X_OK))
    self.assertIn('python -m experiments.quickstart', self._text)
    self.assertIn('experiments.quickstart', programs.names())
    files = re.findall(r'-r (\S+)|python (tests\S+)', self._text)
    self.assertLen(files, 3)
    for name in map(''.join, files):
      self.assertTrue((_ROOT / name).exists(), name)

  def test_the_python_example_runs(self):
    self.enter_context(testing.eagerly())
    root = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    self.enter_context(programs.inside(root))
    tiny_runs.make_images(root / 'images')
    tiny_runs.make_tokenizer(root / 'tokenizer', root / 'images')
    (code,) = re.findall(r'(?s)```python\n(.*?)```', self._text)
    workdir = re.search(r"vim_tf\.load\('(.*?)'\)", code)[1]
    tiny_runs.make_vim(root / workdir, root / 'images', root / 'tokenizer')
    names = {}
    exec(code.replace('country-flag', tiny_runs.CLASSES[0]), names)
    size = tiny_runs.SIZE
    self.assertEqual(tuple(names['images'].shape), (8, size, size, 3))
    self.assertEqual(tuple(names['codes'].shape)[0], 8)


if __name__ == '__main__':
  absltest.main()
