"""Exports of tiny models, laid out as a server wants them."""

import pathlib

from tests.export import running, tiny

NAMES = ('tokenizer', 'sampler', 'probe')


def export_all(root: pathlib.Path) -> dict[str, pathlib.Path]:
  """Exports a tokenizer, a sampler and a probe.

  Args:
    root: Where everything goes.

  Returns:
    The folder of each model's versions, of which there is number 1.
  """
  tokenizer = tiny.tokenizer(root / 'runs' / 'tokenizer')
  vim = tiny.vim(root / 'runs' / 'sampler', tokenizer)
  tiny.probe(root / 'runs' / 'probe', vim)
  bases = {name: root / 'served' / name for name in NAMES}
  for name, base in bases.items():
    export(name, root / 'runs' / name, base)
  return bases


def export(name: str, run: pathlib.Path, base: pathlib.Path, *flags: str):
  """Runs an exporter, which must succeed."""
  status, error = running.run(
    name, f'--workdir={run}', f'--base={base}', *flags
  )
  assert status == 0, error
