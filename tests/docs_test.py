"""Tests that the documentation holds: commands, flags, settings, links.

It reads the whole source tree, as `workspace_test` does, and imports from it
whatever is there. The commands are not run but parsed by the flags of their
binaries, and those of training are made into configs. What is run is each
binary's `--help`.
"""

import collections
import contextlib
import importlib
import os
import re
import subprocess
import sys

from absl import flags
from absl.testing import absltest

import tests
from tests.docs import elsewhere, pages

_TRAINING = {'train_vit_vqgan': 'stage1', 'train_vim': 'stage2'}
"""Binaries whose flags make a config, by the name of their presets."""

_GOES_ON = {'--workdir', '--steps', '--decay_end'}
"""What is given where a run on the same page is trained longer."""

_INLINE_FLAG = re.compile(r'--([a-z][a-z0-9_]*)')
_LINK = re.compile(r'\]\(([^)\s]+)\)')
_FENCED = re.compile(r'^( *)```.*?^\1```', re.DOTALL | re.MULTILINE)

# Of Bazel and of TensorFlow's own programs.
_FOREIGN_FLAGS = {
  *('all', 'config', 'dir', 'help', 'logdir'),
  'rest_api_timeout_in_ms',
  'tensorflow_intra_op_parallelism',
  'xla_cpu_compilation_enabled',
  'xla_gpu_compilation_enabled',
}


def setUpModule():
  sys.path.insert(0, str(pages.ROOT))
  # Bazel brings a part of this package, which hides the rest of it.
  tests.__path__.append(str(pages.ROOT / 'tests'))


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
  given = {word.partition('=')[0] for word in arguments}
  if name in _TRAINING and given <= _GOES_ON:
    arguments = [*arguments, '--preset=small']  # As the run that is there.
  flags.FLAGS([name, *arguments])
  if name in _TRAINING:
    cli = importlib.import_module('experiments.cli')
    config = importlib.import_module('vim_tf.config')
    kind, cls = {
      'stage1': ('vit_vqgan', config.Stage1Config),
      'stage2': ('vim', config.Stage2Config),
    }[_TRAINING[name]]
    cli.config_from_flags(_presets(_TRAINING[name]), module.SETTINGS, kind, cls)


def _presets(stage: str):
  """What of `vim_tf.presets` is called so."""
  return getattr(importlib.import_module('vim_tf.presets'), stage)


class CommandsTest(absltest.TestCase):
  def test_every_command_is_understood(self):
    wrong, by_binary = [], collections.defaultdict(list)
    for command in pages.everything():
      for target in command.tests:
        folder, _, name = target.removeprefix('//').partition(':')
        if target != '//...' and ('py_test', name) not in pages.rules(folder):
          wrong.append(f'{command}: there is no test {target}')
      kinds = {
        kind for kind, n in pages.rules(command.folder) if n == command.name
      }
      if command.verb != 'run':
        continue
      if not kinds & {'py_binary', 'alias'}:
        wrong.append(f'{command}: there is no such binary')
      elif kinds == {'py_binary'} and '...' not in command.text:
        by_binary[command.folder, command.name].append(command)
    self.assertEqual(wrong, [])
    for (folder, name), commands in by_binary.items():
      for command in commands:
        with _defined(folder, name) as module, self.subTest(str(command)):
          _parse(module, name, command.arguments)

  def test_every_reason_not_to_run_one_holds(self):
    for one in elsewhere.ALL:
      with self.subTest(one.pattern):
        self.assertTrue(
          any(elsewhere.find(c) is one for c in pages.everything())
        )
        if one.test:
          folder, _, name = one.test.removeprefix('//').partition(':')
          self.assertIn(('py_test', name), pages.rules(folder))

  def test_every_binary_is_shown(self):
    shown = {(c.folder, c.name) for c in pages.everything()}
    self.assertContainsSubset(set(pages.binaries()), shown)

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
      'See `./bazelw test --x //a:b_test`, or\n\n'
      '  ./bazelw run //a/b:c -- --d=1 \\'
      "\n    --e='f g'  # h\n"
    )
    found = [
      (command.verb, command.target, command.arguments)
      for command in pages.of_prose('x', text)
    ]
    self.assertEqual(
      found,
      [
        ('test', '//a:b_test', ()),
        ('run', '//a/b:c', ('--d=1', '--e=f g')),
      ],
    )

  def test_commands_of_blocks_are_found(self):
    text = (
      'Do\n\n    cd a &&\n      b | \n      c\n\n    d "e\n    f"\n\n'
      'or\n```sh\nnohup python -m export.g --h=1 ... \\\n  --i > j 2>&1 &\n'
      '```\n```text\n./bazelw run //k:l\n```\n1. Item\n\n   ```\n   m\n   ```\n'
    )
    found = list(pages.of_document('x', text))
    self.assertEqual(
      [command.text for command in found],
      [
        'cd a &&\nb |\nc',
        'd "e\nf"',
        'nohup python -m export.g --h=1 ... --i > j 2>&1 &',
        'm',
      ],
    )
    self.assertEqual(
      (found[2].verb, found[2].target, found[2].arguments),
      ('run', '//export:g', ('--h=1', '--i')),
    )
    self.assertEqual((found[3].verb, found[3].target), ('', ''))
    test = pages.Command('x', './bazelw test --n=1 //o:p //q:r')
    self.assertEqual(test.tests, ('//o:p', '//q:r'))


class SettingsTest(absltest.TestCase):
  def test_every_flag_that_is_named_exists(self):
    known = set(_FOREIGN_FLAGS)
    for folder, name in pages.binaries():
      before = set(flags.FLAGS)
      with _defined(folder, name):
        known |= set(flags.FLAGS) - before
    for path in pages.documents():
      text = _FENCED.sub('', path.read_text())
      text = re.sub(r'(?m)^ {4}.*$', '', text)  # Indented code.
      for code in re.findall(r'`([^`]*)`', text):
        for flag in _INLINE_FLAG.findall(code):
          self.assertIn(flag, known, f'{path.name}: {code}')

  def test_the_rows_of_the_paper_make_configs(self):
    text = (pages.ROOT / 'docs' / 'reproduction.md').read_text()
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


class HelpTest(absltest.TestCase):
  """The binaries by their real commands."""

  def _run(self, folder, name, *arguments) -> tuple[int, str, str]:
    """Runs one; it must not import TensorFlow, which takes seconds."""
    result = subprocess.run(
      [
        *(sys.executable, '-X', 'importtime', '-m', f'{folder}.{name}'),
        *arguments,
      ],
      cwd=pages.ROOT,
      env={**os.environ, 'PYTHONPATH': str(pages.ROOT)},
      capture_output=True,
      text=True,
      check=False,
    )
    lines = result.stderr.splitlines()
    imported = [line for line in lines if line.startswith('import time:')]
    self.assertTrue(any(line.endswith(' absl.app') for line in imported))
    self.assertFalse(any(line.endswith(' tensorflow') for line in imported))
    told = '\n'.join(line for line in lines if line not in imported)
    return result.returncode, result.stdout, told

  def _values(self, text: str) -> dict[str, str]:
    """Flags of a help, and their values as shown."""
    found = re.findall(r'(?m)^  --(\w+)(?:=(\S+))?(?: |$)', text)
    self.assertLen(dict(found), len(found))
    return dict(found)

  def test_help_tells_of_every_flag(self):
    for folder, name in pages.binaries():
      with self.subTest(name):
        before = set(flags.FLAGS)
        with _defined(folder, name) as module:
          own = {
            flag: flags.FLAGS[flag].help for flag in set(flags.FLAGS) - before
          }
        status, text, told = self._run(folder, name, '--help')
        self.assertEqual((status, told), (0, ''))
        self.assertIn(module.__doc__.splitlines()[0], text)
        self.assertEqual(set(self._values(text)), set(own))
        groups = re.findall(r'(?m)^\[(.+)\]$', text)
        self.assertLen(set(groups), len(groups))
        words = ' '.join(text.split())
        for help_text in own.values():
          group, text = re.match(
            r'(?:<.*>: )?(?:\[(.+)\] )?(.+)', help_text
          ).groups()
          self.assertIn(group or 'flags', groups)
          self.assertIn(text.rstrip(';'), words)

  def test_defaults_are_of_the_preset(self):
    for name, arguments, expected in (
      (
        'train_vit_vqgan',
        (),
        {'steps': '500000', 'flip': 'true', 'discriminator_beta_2': '0.99'},
      ),
      (
        'train_vit_vqgan',
        ('--preset=tiny', '--workdir=x'),
        {'preset': 'vit_vqgan_ss', 'steps': '20', 'codebook_size': '32'},
      ),
      (
        'train_vim',
        ('--preset', 'vim_large_probe'),
        {'dropout': '0.0', 'optimizer': 'adafactor', 'codebook_size': ''},
      ),
      ('train_probe', ('--preset=quick',), {'block': 'all', 'data': ''}),
    ):
      with self.subTest(name, arguments=arguments):
        status, text, told = self._run(
          'experiments', name, *arguments, '--help'
        )
        self.assertEqual((status, told), (0, ''))
        self.assertContainsSubset(expected, self._values(text))

  def test_presets_are_told(self):
    for name, stage, value in (
      ('train_vit_vqgan', 'STAGE1', 'decoder.width=1280'),
      ('train_vim', 'STAGE2', 'transformer.num_blocks=36'),
      ('train_probe', 'PROBE', 'run.batch_size=4096'),
    ):
      status, text, told = self._run('experiments', name, '--preset=help')
      self.assertEqual((status, told), (0, ''))
      self.assertEqual(re.findall(r'(?m)^(\w+)$', text), list(_presets(stage)))
      self.assertIn(value, text)

  def test_wrong_flags_are_told_at_once(self):
    new = '--workdir=x'
    for folder, name, arguments, text in (
      ('experiments', 'train_vit_vqgan', (new, '--steps=x'), "'x'"),
      ('experiments', 'train_vit_vqgan', (new, '--stepps=1'), 'mean: steps'),
      ('experiments', 'train_vit_vqgan', (new, '--preset=a'), 'vit_vqgan_ss'),
      ('experiments', 'train_vit_vqgan', (new, '--set=a=1'), "'a'"),
      ('experiments', 'train_vit_vqgan', (), '--workdir must be given'),
      ('experiments', 'train_vim', (new,), '--tokenizer must be given'),
      ('experiments', 'train_vim', (new, '--tokenizer=none'), 'none'),
      ('experiments', 'train_probe', (new, '--vim=none'), 'none'),
      ('experiments', 'encode_dataset', (new, '--out=y', 'z'), "'z'"),
      ('experiments', 'evaluate', (new, '--out=y', '--seed=1'), '--job'),
      ('experiments', 'sample', (new, '--out=y', '--top_p=2'), 'top_p'),
      ('experiments', 'quickstart', ('--budget=huge',), 'short'),
      ('experiments', 'lowering', ('--models=huge',), 'vit_vqgan_ss'),
      ('experiments', 'lowering', ('--batches=2,x',), '2,x'),
      ('export', 'tokenizer', (new, '--version=x'), '--version'),
      ('export', 'serve', ('--model=x',), 'NAME=BASE'),
    ):
      with self.subTest(name, arguments=arguments):
        status, out, told = self._run(folder, name, *arguments)
        self.assertEqual((status, out), (1, ''))
        self.assertRegex(told, r'^error: [^\n]*$')
        self.assertIn(text, told)


class LinksTest(absltest.TestCase):
  def test_every_file_that_is_linked_is_there(self):
    for path in pages.documents():
      for link in _LINK.findall(path.read_text()):
        if '://' in link or link.startswith('#'):
          continue
        target = path.parent / link.partition('#')[0]
        self.assertTrue(target.exists(), f'{path.name}: {link}')

  def test_every_path_that_is_named_is_there(self):
    own = r'`((?:vim_tf|experiments|export|tests|docs|tools)/[\w/.-]+)`'
    found = [
      (path.name, name)
      for path in pages.documents()
      for name in re.findall(own, path.read_text())
    ]
    self.assertNotEmpty(found)
    for document, name in found:
      self.assertTrue((pages.ROOT / name).exists(), f'{document}: {name}')


if __name__ == '__main__':
  absltest.main()
