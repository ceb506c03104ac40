"""Runs exporters in a test's own process: one import of TensorFlow."""

import contextlib
import importlib
import io
import os
import sys
from unittest import mock

from absl import flags

from experiments import flags as flags_lib


def run(name: str, *arguments: str) -> tuple[int, str]:
  """Runs a binary of `export`, whose flags are defined while it runs.

  Args:
    name: Name of its module.
    *arguments: The command line.

  Returns:
    The exit status, and what was printed to stderr.
  """
  module = importlib.import_module(f'export.{name}')
  before = set(flags.FLAGS)
  error, status, here = io.StringIO(), 0, os.getcwd()
  try:
    module.define_flags()
    with (
      mock.patch.object(sys, 'argv', [name, *arguments]),
      contextlib.redirect_stderr(error),
    ):
      flags_lib.run(module.main)
  except SystemExit as end:
    status = end.code or 0
  finally:
    os.chdir(here)
    for flag in set(flags.FLAGS) - before:
      delattr(flags.FLAGS, flag)
  return status, error.getvalue()
