"""Tests of ./bazelw on machines that lack something: a PATH of stand-ins."""

import os
import pathlib
import shutil
import subprocess

from absl.testing import absltest

from tests import programs

_PYTHON = '#!/bin/bash\nexit 0\n'
_BAZEL = '#!/bin/bash\necho "bazel $*"\n'
_SUDO = '#!/bin/bash\necho "sudo $*" >> "$LOG"\nexec "$@"\n'
_APT = """\
#!/bin/bash
echo "apt-get $*" >> "$LOG"
case "${!#}" in
  python3.11-venv) printf '#!/bin/bash\\nexit 0\\n' > "$BIN/python3.11" ;;
  bazel-bootstrap) printf '#!/bin/bash\\necho "bazel $*"\\n' > "$BIN/bazel" ;;
esac
chmod +x "$BIN"/*
"""
_NO_NETWORK = '#!/bin/bash\necho "E: Unable to locate package" >&2\nexit 100\n'


class BazelwTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self._root = pathlib.Path(self.create_tempdir().full_path)
    self._bin = self._root / 'bin'
    self._bin.mkdir()
    shutil.copy(programs.ROOT / 'bazelw', self._root)
    for name in ('bash', 'chmod', 'dirname', 'env'):
      (self._bin / name).symlink_to(shutil.which(name))
    self._add(id='#!/bin/bash\necho 1000\n')

  def _add(self, **scripts: str):
    for name, text in scripts.items():
      path = self._bin / name.replace('_', '-').replace('311', '3.11')
      path.write_text(text)
      path.chmod(0o755)

  def _run(self, *arguments: str, **variables: str):
    return subprocess.run(
      ['/bin/bash', str(self._root / 'bazelw'), *arguments],
      capture_output=True,
      check=False,
      env={
        'PATH': str(self._bin),
        'BIN': str(self._bin),
        'LOG': str(self._root / 'log'),
        **variables,
      },
      stdin=subprocess.DEVNULL,
      text=True,
    )

  def _asked(self) -> list[str]:
    log = self._root / 'log'
    return log.read_text().splitlines() if log.exists() else []

  def _assert_refused(self, result, *words: str):
    self.assertEqual(result.returncode, 1)
    self.assertLen(result.stderr.splitlines(), 1, result.stderr)
    for word in words:
      self.assertIn(word, result.stderr)

  def test_with_all_there_it_is_bazel(self):
    self._add(python311=_PYTHON, bazel=_BAZEL)
    for arguments in (('test', '//...'), ('--install', 'test', '//...')):
      result = self._run(*arguments)
      self.assertEqual(result.stdout, 'bazel test //...\n', result.stderr)
    self._add(bazelisk='#!/bin/bash\necho "bazelisk $*"\n')
    self.assertEqual(self._run('info').stdout, 'bazelisk info\n')

  def test_it_installs_nothing_untold_even_as_root(self):
    self._add(apt_get=_APT, id='#!/bin/bash\necho 0\n')
    result = self._run('test', '//...')
    self._assert_refused(result, 'python3.11-venv', '--install', 'uv python')
    self._add(python311=_PYTHON)
    result = self._run('test', '//...')
    self._assert_refused(result, 'bazel-bootstrap', 'bazelisk')
    self.assertEmpty(self._asked())

  def test_told_so_it_installs_what_is_missing(self):
    self._add(apt_get=_APT, id='#!/bin/bash\necho 0\n')
    result = self._run('--install', 'test', '//...')
    self.assertEqual(result.stdout, 'bazel test //...\n', result.stderr)
    installed = [line.split()[-1] for line in self._asked() if 'inst' in line]
    self.assertEqual(installed, ['python3.11-venv', 'bazel-bootstrap'])

  def test_without_root_it_takes_sudo_or_says_so(self):
    self._add(apt_get=_APT, python311=_PYTHON)
    self._assert_refused(self._run('--install', 'info'), 'needs root')
    self.assertEmpty(self._asked())
    self._add(sudo=_SUDO)
    result = self._run('--install', 'info')
    self.assertEqual(result.stdout, 'bazel info\n', result.stderr)
    self.assertStartsWith(self._asked()[0], 'sudo apt-get update')

  def test_what_cannot_be_installed_is_told(self):
    self._add(apt_get=_NO_NETWORK, id='#!/bin/bash\necho 0\n')
    result = self._run('--install', 'info')
    self.assertIn('Unable to locate package', result.stderr.splitlines()[-1])
    os.remove(self._bin / 'apt-get')
    self._assert_refused(self._run('--install', 'info'), 'no apt-get')

  def test_another_python(self):
    self._add(bazel=_BAZEL, mine=_PYTHON)
    mine = str(self._bin / 'mine')
    self.assertEqual(self._run('info', VIM_TF_PYTHON=mine).returncode, 0)
    self.assertEqual(self._run('info', VIM_TF_VENV='/env').returncode, 0)
    result = self._run('info', VIM_TF_PYTHON='/nowhere/python3')
    self._assert_refused(result, 'VIM_TF_PYTHON=/nowhere/python3')


if __name__ == '__main__':
  absltest.main()
