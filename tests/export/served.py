"""Exports of tiny models, by Python and by the binaries."""

import contextlib
import functools
import io
import os
import pathlib
import sys
from unittest import mock

from experiments import flags as flags_lib
from export import probe, sampler, tokenizer
from tests import programs, testing
from tests.export import tiny


def export_all(root: pathlib.Path) -> dict[str, pathlib.Path]:
  """Exports a tokenizer, a sampler and a probe.

  Args:
    root: Where everything goes.

  Returns:
    The folder of each model's versions, of which there is number 1.
  """
  runs = {x: root / 'runs' / x for x in ('tokenizer', 'sampler', 'probe')}
  tiny.tokenizer(runs['tokenizer'])
  tiny.vim(runs['sampler'], runs['tokenizer'])
  tiny.probe(runs['probe'], runs['sampler'])
  bases = {name: root / 'served' / name for name in runs}
  for exporter in (tokenizer, sampler, probe):
    name = exporter.__name__.rpartition('.')[2]
    exporter.export(runs[name], bases[name])
  return bases


@functools.cache
def exports() -> tuple[pathlib.Path, dict[str, pathlib.Path]]:
  """A folder and what `export_all` gives of it, for all tests of a process."""
  root = testing.new_folder('exports')
  return root, export_all(root)


@functools.cache
def compiled_sampler() -> str:
  """A version of the sampler whose loop XLA compiles."""
  root, _ = exports()
  return sampler.export(root / 'runs' / 'sampler', root / 'xla', xla=True)


def run(name: str, *arguments: str) -> tuple[int, str]:
  """Runs a binary of `export`, whose flags are defined while it runs.

  Args:
    name: Name of its module.
    *arguments: The command line.

  Returns:
    The exit status, and what was printed to stderr.
  """
  error, status, here = io.StringIO(), 0, os.getcwd()
  try:
    with (
      programs.defined(f'export.{name}') as (module, _),
      mock.patch.object(sys, 'argv', [name, *arguments]),
      contextlib.redirect_stderr(error),
    ):
      flags_lib.run(module.main)
  except SystemExit as end:
    status = end.code or 0
  finally:
    os.chdir(here)
  return status, error.getvalue()
