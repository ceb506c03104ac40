"""Tests of what programs say of their flags, by their real commands."""

import os
import re
import subprocess
import sys

from absl import flags
from absl.testing import absltest

from experiments import flags as flags_lib
from tests import programs
from vim_tf import presets

_TEXT = (flags.ArgumentParser, flags.ListParser)


class HelpTest(absltest.TestCase):
  """The binaries by their real commands."""

  def _run(self, name, *arguments) -> tuple[int, str, str]:
    """Runs one; it must not import TensorFlow, which takes seconds."""
    result = subprocess.run(
      [
        *(sys.executable, '-X', 'importtime', '-m', name),
        *arguments,
      ],
      cwd=programs.ROOT,
      env={**os.environ, 'PYTHONPATH': str(programs.ROOT)},
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
    for name in programs.names():
      with self.subTest(name):
        with programs.defined(name) as (module, found):
          own = {flag: flags.FLAGS[flag].help for flag in found}
        status, text, told = self._run(name, '--help')
        self.assertEqual((status, told), (0, ''))
        self.assertIn(module.__doc__.splitlines()[0], text)
        self.assertEqual(set(self._values(text)), set(own))
        groups = re.findall(r'(?m)^\[(.+)\]$', text)
        self.assertLen(set(groups), len(groups))
        words = ' '.join(text.split())
        self.assertNotRegex(words, r'(One of [^.]+\.) \1')
        for help_text in own.values():
          group, text = re.match(
            r'(?:<.*>: )?(?:\[(.+?)\] )?(.+)', help_text
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
          f'experiments.{name}', *arguments, '--help'
        )
        self.assertEqual((status, told), (0, ''))
        self.assertContainsSubset(expected, self._values(text))

  def test_presets_are_told(self):
    for name, stage, value in (
      ('train_vit_vqgan', 'STAGE1', 'decoder.width=1280'),
      ('train_vim', 'STAGE2', 'transformer.num_blocks=36'),
      ('train_probe', 'PROBE', 'run.batch_size=4096'),
    ):
      status, text, told = self._run(f'experiments.{name}', '--preset=help')
      self.assertEqual((status, told), (0, ''))
      self.assertEqual(
        re.findall(r'(?m)^(\w+)$', text), list(getattr(presets, stage))
      )
      self.assertIn(value, text)

  def test_wrong_flags_are_told_at_once(self):
    new = '--workdir=x'
    for name, arguments, text in (
      ('experiments.train_vit_vqgan', (new, '--steps=x'), "'x'"),
      ('experiments.train_vit_vqgan', (new, '--stepps=1'), 'mean: steps'),
      ('experiments.train_vit_vqgan', (new, '--preset=a'), 'vit_vqgan_ss'),
      ('experiments.train_vit_vqgan', (new, '--set=a=1'), "'a'"),
      ('experiments.train_vit_vqgan', (), '--workdir must be given'),
      ('experiments.train_vim', (new,), 'No tokenizer was given'),
      ('experiments.train_vim', (new, '--tokenizer=none'), 'none'),
      ('experiments.train_probe', (new, '--vim=none'), 'none'),
      ('experiments.encode_dataset', (new, '--out=y', 'z'), "'z'"),
      ('experiments.evaluate', (new, '--out=y', '--seed=1'), '--job'),
      ('experiments.sample', (new, '--out=y', '--top_p=2'), 'top_p'),
      ('experiments.quickstart', ('--budget=huge',), 'short'),
      ('experiments.studies.tpu', ('--only=huge',), 'vim_base_recompute'),
      ('experiments.studies.tpu', ('--chips=v2',), 'v5p'),
      ('export.tokenizer', (new, '--version=x'), '--version'),
      ('export.try_it.serve', ('--model=x',), 'NAME=BASE'),
    ):
      with self.subTest(name, arguments=arguments):
        status, out, told = self._run(name, *arguments)
        self.assertEqual((status, out), (1, ''))
        self.assertRegex(told, r'^error: [^\n]*$')
        self.assertIn(text, told)

  def test_every_flag_that_names_a_path_knows_where_it_may_be(self):
    path = re.compile(r'[Ff]older|[Dd]irectory|[Ff]ile\b|\.npz|PATH|-\d run')
    found = set()
    for name in programs.names():
      with programs.defined(name) as (_, own):
        for flag in own:
          is_text = type(flags.FLAGS[flag].parser) in _TEXT
          if is_text and path.search(flags.FLAGS[flag].help):
            found.add(flag)
    # These are settings, whose configs see to it, and a hash.
    found -= {'data', 'set', 'lpips_sha256'}
    self.assertContainsSubset(found, set(flags_lib.PLACES))
    self.assertContainsSubset({'base', 'workdir', 'out'}, found)


if __name__ == '__main__':
  absltest.main()
