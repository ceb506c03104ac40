"""Runs test files in one process: python tests/run.py tests/nn tests/vim.

Importing TensorFlow takes longer than most test files run, so Bazel's targets
hold several of them. Arguments behind the files are unittest's, such as
`-k draw` for the tests whose names hold that word.
"""

import atexit
import gc
import importlib
import os
import pathlib
import re
import sys
import unittest

from absl.testing import absltest

_ROOT = pathlib.Path(__file__).absolute().parents[1]


def files_of(names: list[str]) -> list[pathlib.Path]:
  """The test files that are named, folders standing for all below them.

  Raises:
    SystemExit: If a name is neither, or a folder holds none.
  """
  files = []
  for name in names:
    path = _ROOT / name
    found = sorted(path.rglob('*_test.py')) if path.is_dir() else [path]
    if not found or not all(file.is_file() for file in found):
      sys.exit(f'error: {name} is no test file and no folder with test files.')
    files += found
  return files


def collect(files: list[pathlib.Path]) -> dict[str, type[unittest.TestCase]]:
  """The test cases of files, by a name that no two of them share.

  Raises:
    SystemExit: If a file holds none: it would pass without a test run.
  """
  cases = {}
  for file in files:
    parts = file.relative_to(_ROOT).with_suffix('').parts
    module = importlib.import_module('.'.join(parts))
    found = {
      f'{module.__name__}.{name}'.replace('.', '_'): value
      for name, value in vars(module).items()
      if isinstance(value, type)
      and issubclass(value, unittest.TestCase)
      and value.__module__ == module.__name__
    }
    if not found:
      sys.exit(f'error: {file} holds no test case.')
    cases.update(found)
  return cases


def prepare_tensorflow(files: list[pathlib.Path]):
  """Makes several devices of the CPU, for tests of replicas, and saves time.

  It must come before TensorFlow computes anything, which some files do when
  they are imported: so a file that needs more than two says it in a line
  `CPU_DEVICES = 4`. A strategy over devices that are not there waits for ever.
  """
  texts = [file.read_text() for file in files]
  if any('tensorflow' in text for text in texts):
    # What LLVM's last passes save, no test runs long enough to get back.
    os.environ.setdefault(
      'XLA_FLAGS',
      '--xla_backend_optimization_level=1'
      ' --xla_llvm_disable_expensive_passes=true',
    )
    gc.disable()  # What TensorFlow makes is no garbage, nor to be looked at.
    import tensorflow as tf  # Takes seconds, which other tests can spare.

    gc.freeze()
    gc.enable()
    atexit.register(gc.freeze)
    said = re.findall(r'(?m)^CPU_DEVICES = (\d+)$', '\n'.join(texts))
    cpu = tf.config.list_physical_devices('CPU')[0]
    tf.config.set_logical_device_configuration(
      cpu,
      [tf.config.LogicalDeviceConfiguration()] * max([2, *map(int, said)]),
    )
    # To optimise a graph takes longer than its few runs. What a server and a
    # process of its own run, they optimise: see c_api_test and others.
    tf.config.optimizer.set_experimental_options(
      {'disable_meta_optimizer': True}
    )


def main():
  """Runs the files that the command line names before its first flag."""
  sys.path.insert(0, str(_ROOT))
  arguments = sys.argv[1:]
  count = next(
    (i for i, text in enumerate(arguments) if text.startswith('-')),
    len(arguments),
  )
  if not count:
    sys.exit('error: name test files or folders, such as tests/nn.')
  sys.argv[1:] = ['--', *arguments[count:]]  # absl's flags end there.
  files = files_of(arguments[:count])
  prepare_tensorflow(files)
  globals().update(collect(files))
  absltest.main()


if __name__ == '__main__':
  main()
