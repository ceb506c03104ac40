"""Tests that the docs hold: flags, files, targets and links that they name.

Whether a command does what a page says is for those who run it; README's two
commands and the walk through own_data.md are run, the others are not.
"""

import pathlib
import re

from absl.testing import absltest

from tests import programs

_ROOT = programs.ROOT

_FENCED = re.compile(r'^( *)```.*?^\1```', re.DOTALL | re.MULTILINE)
_FLAG = re.compile(r'--([a-z][a-z0-9_]*)')
_LABEL = re.compile(r'//((?:experiments|export|tests|tools)[\w/]*)(?::(\w+))?')
_LINK = re.compile(r'\]\(([^)\s]+)\)')
_PATH = re.compile(
  r'`((?:vim_tf|experiments|export|tests|docs|tools)/[\w/.-]+)`'
)

# Of Bazel, pip and TensorFlow's own programs.
_FOREIGN = {
  *('all', 'config', 'dir', 'help', 'logdir'),
  'rest_api_timeout_in_ms',
  'tensorflow_intra_op_parallelism',
  'xla_cpu_compilation_enabled',
  'xla_gpu_compilation_enabled',
}


def _pages() -> list[pathlib.Path]:
  return [_ROOT / 'README.md', *sorted((_ROOT / 'docs').rglob('*.md'))]


class DocsTest(absltest.TestCase):
  def test_every_flag_that_is_named_exists(self):
    known = set(_FOREIGN)
    for name in programs.names():
      with programs.defined(name) as (_, found):
        known |= found
    for path in _pages():
      text = _FENCED.sub('', path.read_text())
      text = re.sub(r'(?m)^ {4}.*$', '', text)  # Indented code.
      for code in re.findall(r'`([^`]*)`', text):
        for flag in _FLAG.findall(code):
          self.assertIn(flag, known, f'{path.name}: {code}')

  def test_every_target_that_is_named_exists(self):
    for path in _pages():
      for folder, name in _LABEL.findall(path.read_text()):
        folder = folder.rstrip('/')
        build = _ROOT / folder / 'BUILD'
        self.assertTrue(build.exists(), f'{path.name}: //{folder}')
        name = name or folder.rsplit('/', 1)[-1]
        is_program = (_ROOT / folder / '__main__.py').exists()
        self.assertTrue(
          is_program or re.search(rf'"{name}"', build.read_text()),
          f'{path.name}: //{folder}:{name}',
        )

  def test_every_file_that_is_linked_or_named_is_there(self):
    for path in _pages():
      text = path.read_text()
      for link in _LINK.findall(text):
        if '://' not in link and not link.startswith('#'):
          target = path.parent / link.partition('#')[0]
          self.assertTrue(target.exists(), f'{path.name}: {link}')
      for name in _PATH.findall(text):
        self.assertTrue((_ROOT / name).exists(), f'{path.name}: {name}')


if __name__ == '__main__':
  absltest.main()
