"""All programs of the project, and their flags."""

from collections.abc import Iterator
import contextlib
import importlib
import json
import os
import pathlib
import sys
import types

from absl import flags

ROOT = pathlib.Path(os.path.realpath(__file__)).parents[1]
"""The source tree: Bazel's runfiles are links to it."""


def names() -> list[str]:
  """What `python -m` takes: 'experiments.sample', 'experiments.quickstart'."""
  found = []
  for folder in ('experiments', 'export'):
    for path in sorted((ROOT / folder).rglob('*.py')):
      if "if __name__ == '__main__':" in path.read_text():
        parts = path.relative_to(ROOT).with_suffix('').parts
        found.append('.'.join(p for p in parts if p != '__main__'))
  found.remove('experiments')  # It runs the others.
  return found


def notebook_cells() -> list[tuple[set[str], str]]:
  """Tags and text of each cell of code in the notebook for TPUs."""
  notebook = json.loads((ROOT / 'experiments' / 'tpu.ipynb').read_text())
  return [
    (set(cell['metadata'].get('tags', ())), ''.join(cell['source']))
    for cell in notebook['cells']
    if cell['cell_type'] == 'code'
  ]


@contextlib.contextmanager
def inside(folder: str | os.PathLike):
  """As `contextlib.chdir`, which Python 3.10 has not."""
  before = os.getcwd()
  os.chdir(folder)
  try:
    yield
  finally:
    os.chdir(before)


@contextlib.contextmanager
def defined(name: str) -> Iterator[tuple[types.ModuleType, set[str]]]:
  """The module of a program and its flags, which are defined inside only."""
  module = name
  if (ROOT / name.replace('.', '/')).is_dir():
    module += '.__main__'
  sys.modules.pop(module, None)
  before = set(flags.FLAGS)
  try:
    found = importlib.import_module(module)
    if hasattr(found, 'define_flags'):  # Not as it is imported, but run.
      found.define_flags()
    yield found, set(flags.FLAGS) - before
  finally:
    sys.modules.pop(module, None)  # Who imports it next defines them again.
    for flag in set(flags.FLAGS) - before:
      delattr(flags.FLAGS, flag)
