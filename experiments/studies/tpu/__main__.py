"""Asks the TPU's own compiler what a replica's programs take, without a TPU.

  ./bazelw run //experiments/studies/tpu -- --out=runs/tpu
  ./bazelw run //experiments/studies/tpu -- --out=runs/tpu \
    --only=vim_base_recompute,vit_vqgan_ss --chips=v4

Each of `programs.py` is lowered by its shapes alone, which takes a minute and
no memory for weights, and compiled by libtpu in an environment of its own,
which is made at the first use. That shows what compiles, what fits into the
memory of a chip, and how much there is to compute; not how fast it runs.

A program and chip that are done have a record in OUT and are not done again
until the sources change, and then only if the program did. OUT/table.md has all
that is known, also while the rest is computed.
"""

import concurrent.futures
import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import pathlib
import shutil
import subprocess
import sys
import time

from absl import flags, logging

from experiments import flags as flags_lib
from experiments.studies.tpu import programs as programs_lib
from experiments.studies.tpu import table
from experiments.studies.tpu.chips import CHIPS
from vim_tf import compat
from vim_tf.config import ConfigError, UserError
from vim_tf.training import workdir as workdir_lib

OUT = flags.DEFINE_string(
  'out', 'runs/tpu', '[output] Folder of programs, records and the table.'
)
ONLY = flags.DEFINE_list(
  'only', [], '[what] Names of programs; empty: all that --list tells.'
)
CHIP_NAMES = flags.DEFINE_list('chips', list(CHIPS), '[what] Kinds of TPU.')
LIST = flags.DEFINE_bool('list', False, '[what] Only tell what there is.')
TABLE_ONLY = flags.DEFINE_bool(
  'table_only', False, '[what] Write the table anew and compile nothing.'
)
TEXT = flags.DEFINE_bool(
  'text', False, '[output] Keep compiled programs as text, too.'
)
COMPILER = flags.DEFINE_string(
  'compiler',
  '',
  '[hardware] Folder of the environment of the compiler, made if it is not '
  'there; empty: OUT/compiler.',
)

_HERE = pathlib.Path(__file__).resolve().parent
_ROOT = _HERE.parents[2]
_LOCK = _HERE / 'requirements.lock'


def main():
  """Compiles what is left to do."""
  programs = _chosen('only', ONLY.value, programs_lib.PROGRAMS)
  chips = _chosen('chips', CHIP_NAMES.value, CHIPS)
  if LIST.value:
    print('\n'.join(programs))
    return
  out = workdir_lib.make_folder(OUT.value).resolve()
  if not TABLE_ONLY.value:
    _compile_all(programs, chips, out)
  print(_write_table(out))


def _chosen(flag: str, names: list[str], known: dict) -> dict:
  wrong = [name for name in names if name not in known]
  if wrong:
    raise ConfigError(
      f'--{flag}={wrong[0]} is unknown; there are {", ".join(known)}.'
    )
  return {name: known[name] for name in names or known}


def _record(out: pathlib.Path, name: str) -> dict:
  """What is known of a program: 'hlo', a hash of it, 'hlo_bytes', 'chips'."""
  path = out / f'{name}.json'
  return workdir_lib.read_json(path) if path.exists() else {'chips': {}}


def _put(out: pathlib.Path, name: str, record: dict):
  """Replaces a record, and the table."""
  workdir_lib.write_json(out / f'{name}.json', record)
  _write_table(out)


def _write_table(out: pathlib.Path) -> str:
  """Writes the table of all, and returns it."""
  records = {name: _record(out, name) for name in programs_lib.PROGRAMS}
  text = table.markdown(records)
  (out / 'table.md').write_text(text)
  return text


def _compile_all(programs, chips, out: pathlib.Path):
  sources = _sources()
  left = [
    (name, chip)
    for chip in chips
    for name in programs
    if _record(out, name).get('sources') != sources
    or chip not in _record(out, name)['chips']
  ]
  logging.info(
    '%d of %d are left to do.', len(left), len(programs) * len(chips)
  )
  python = _environment(out) if left else None
  started, failed = time.monotonic(), []
  for i, (name, chip) in enumerate(left):
    try:
      _one(name, chip, sources, python, out)
      told = table.verdict(_record(out, name)['chips'][chip])
    except UserError as error:  # The compiler's end, not its verdict.
      told = str(error)
      failed.append(f'{name} for {chip}')
    seconds = (time.monotonic() - started) / (i + 1)
    logging.info(
      '%d of %d: %s for %s fits: %s; about %.0f minutes for the rest.',
      i + 1,
      len(left),
      name,
      chip,
      told,
      (len(left) - i - 1) * seconds / 60,
    )
  if failed:
    raise UserError(f'Not compiled: {", ".join(failed)}; see above.')


def _one(name, chip, sources, python, out):
  """Lowers a program, if its sources changed, and compiles it for a chip."""
  program, record = programs_lib.PROGRAMS[name], _record(out, name)
  path = out / f'{name}.hlo.gz'
  if record.get('sources') != sources or not path.exists():
    logging.info('%s is lowered.', name)
    found = _lowered(program, path)
    found['compiler'] = _hash(_LOCK)
    if any(record.get(key) != found[key] for key in ('hlo', 'compiler')):
      record = {'chips': {}}
    record.update(found, sources=sources)
    _put(out, name, record)
  if chip in record['chips']:
    return
  logging.info('%s is compiled for %s.', name, chip)
  wanted = {
    'topology': f'{chip}:{CHIPS[chip].topologies[program.replicas]}',
    'options': CHIPS[chip].options,
    'replicas': program.replicas,
    'text': str(out / f'{name}.{chip}.txt.gz') if TEXT.value else '',
  }
  result = out / f'{name}.{chip}.part'
  _run(python, _HERE / 'compiling.py', path, result, json.dumps(wanted))
  record['chips'][chip] = json.loads(result.read_text())
  result.unlink()
  _put(out, name, record)


def _lowered(program, path) -> dict:
  """Lowers in a process of its own, which gives the memory back."""
  # So that the same sources give the same program.
  os.environ['PYTHONHASHSEED'] = '0'
  with concurrent.futures.ProcessPoolExecutor(
    1, multiprocessing.get_context('spawn')
  ) as process:
    return process.submit(programs_lib.lower, program, path).result()


def _sources() -> str:
  """A hash of all that a program, and what is said of it, is made of."""
  return _hash(
    *sorted((_ROOT / 'vim_tf').rglob('*.py')),
    *(_HERE / name for name in ('lowering.py', 'programs.py')),
    _LOCK,
    also=importlib.metadata.version(compat.TENSORFLOW),
  )


def _hash(*paths: pathlib.Path, also: str = '') -> str:
  found = hashlib.sha256(also.encode())
  for path in paths:
    found.update(path.read_bytes())
  return found.hexdigest()


def _environment(out: pathlib.Path) -> pathlib.Path:
  """The Python of the compiler's environment, made as the lock says."""
  folder = pathlib.Path(COMPILER.value or out / 'compiler').absolute()
  python, made = folder / 'bin' / 'python', folder / 'requirements.lock'
  if not made.exists() or made.read_bytes() != _LOCK.read_bytes():
    logging.info('The environment of the compiler is made in %s.', folder)
    _run(sys.executable, '-m', 'venv', folder)
    _run(
      *(python, '-m', 'pip', 'install', '--quiet'),
      *('--no-deps', '--require-hashes', '-r', _LOCK),
    )
    shutil.copyfile(_LOCK, made)
  return python


def _run(*command):
  """Runs a program of another environment."""
  kept = {k: v for k, v in os.environ.items() if not k.startswith('PYTHON')}
  found = subprocess.run(
    list(map(str, command)),
    env=kept,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    check=False,
  )
  if found.returncode:
    lines = found.stdout.strip().splitlines() or ['it says nothing']
    raise UserError(
      f'{" ".join(map(str, command[:3]))} ends with status '
      f'{found.returncode}: {lines[-1]}'
    )


if __name__ == '__main__':
  flags_lib.run(main)
