"""Runs a command of the Python environment: ruff, mypy, tensorboard, python.

./bazelw run //tools:ruff -- check .
"""

import os
import pathlib
import sys


def main():
  """Becomes the command that the first argument names.

  Raises:
    SystemExit: If the environment has no such command.
  """
  name, *arguments = sys.argv[1:]
  path = pathlib.Path(sys.executable).parent / name
  if not path.exists():
    sys.exit(f'error: {path} is missing: install {name} there.')
  os.chdir(os.environ.get('BUILD_WORKING_DIRECTORY', '.'))
  os.environ.pop('PYTHONPATH', None)  # That of Bazel's runfiles.
  os.execv(path, [str(path), *arguments])


if __name__ == '__main__':
  main()
