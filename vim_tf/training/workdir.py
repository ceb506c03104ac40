"""A run's working directory: its config, its lock, its metrics.

The directory is self-contained: `config.json`, `checkpoints/`, `events/`,
`metrics.jsonl` and `samples/`. A run of other settings is refused (but see
`run_record`), and so is a second run at the same time; nothing is ever
overwritten. A run without a checkpoint gives way to another one, and what it
left is put aside.
"""

import fcntl
import json
import math
import os
import pathlib
import tempfile

from absl import logging

from vim_tf import files, places
from vim_tf.config import UserError, to_dict
from vim_tf.settings import flat
from vim_tf.training import run_record

_PARTS = ('checkpoints', 'events', 'samples')
_ASIDE = 'replaced-'


class WorkdirError(UserError):
  """A working directory that cannot be used."""


class Workdir:
  """An open working directory, locked until it is closed or the process ends.

  Args:
    path: The directory; made if it is not there.
    kind: What the run trains: 'vit_vqgan', 'vim', ...
    config: The run's config.
    facts: What else belongs into `config.json`: class names, fingerprints.
    writes: Whether this process writes; of several workers the first one
      does, and the others hold no lock and check nothing.
    accept_new_data: Whether the data may be others than at the last start.

  Raises:
    WorkdirError: If the directory cannot be written or is in use, or belongs
      to a run of another kind, or with settings or facts that may not change.
  """

  def __init__(
    self,
    path: str,
    kind: str,
    config,
    facts: dict | None = None,
    writes: bool = True,
    accept_new_data: bool = False,
  ):
    self.path = make_folder(path)
    self._lock = None
    if not writes:
      return
    self._lock = open(self.path / 'lock', 'a')
    try:
      fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      raise WorkdirError(
        f'Another run is using the working directory {path}.'
      ) from error
    try:
      files.remove_unfinished(self.path)
      self._write_record(kind, config, facts or {}, accept_new_data)
      for part in _PARTS:
        make_folder(self.path / part)
    except BaseException:
      self.close()  # A notebook keeps the error, and with it this object.
      raise

  def _write_record(self, kind, config, facts, accept_new_data):
    """Notes what this start is, or refuses it."""
    record = run_record.new(kind, config, facts)
    if is_run(self.path):
      old = read(self.path)
      try:
        found = _compare(self.path, old, kind, config, facts, accept_new_data)
      except WorkdirError:
        if not may_be_replaced(self.path):
          raise
        _put_aside(self.path)
      else:
        if not found:
          return
        step = _newest_step(self.path)
        record = run_record.changed(old, record, found, step)
    write_json(self.path / 'config.json', record)

  @property
  def checkpoints(self) -> pathlib.Path:
    return self.path / 'checkpoints'

  @property
  def events(self) -> pathlib.Path:
    return self.path / 'events'

  @property
  def samples(self) -> pathlib.Path:
    return self.path / 'samples'

  def close(self):
    """Gives up the lock."""
    if self._lock is not None:
      self._lock.close()

  def log(self, row: dict):
    """Appends one row to `metrics.jsonl`."""
    with open(self.path / 'metrics.jsonl', 'a') as file:
      file.write(json.dumps(row) + '\n')

  def rows(self) -> list[dict]:
    """The rows logged so far; a line cut short by a kill is left out."""
    return read_metrics(self.path)

  def forget_after(self, step: int):
    """Drops the rows after `step`, which a resumed run will log again."""
    kept = [row for row in self.rows() if row['step'] <= step]
    with files.new_file(self.path / 'metrics.jsonl') as new:
      new.write_text(''.join(json.dumps(row) + '\n' for row in kept))


def check(path: str | os.PathLike, kind: str, config):
  """Refuses what `Workdir` would, as far as no facts are needed.

  For the start of a binary, before data are read.

  Raises:
    WorkdirError: If the folder cannot be written, or belongs to another run.
  """
  folder = make_folder(path)
  if is_run(folder) and not may_be_replaced(folder):
    _compare(folder, read(folder), kind, config, None, False)


def is_run(path: str | os.PathLike) -> bool:
  """Whether a folder holds a run, begun or done."""
  return bool(path) and (pathlib.Path(path) / 'config.json').exists()


def may_be_replaced(path: str | os.PathLike) -> bool:
  """Whether a run has no checkpoint, nor anything else that would be lost."""
  folder = pathlib.Path(path)
  if _newest_step(folder):  # Step 0 has learned nothing.
    return False
  return all(
    name in (*_PARTS, 'lock', 'config.json', 'metrics.jsonl', 'skipped.json')
    or name.startswith(_ASIDE)
    or files.is_unfinished(name)
    for name in os.listdir(folder)
  )


def make_folder(path: str | os.PathLike) -> pathlib.Path:
  """Makes a folder that a run writes to, if it is not there.

  Raises:
    WorkdirError: If the folder cannot be made or written to.
    ConfigError: If it is not local.
  """
  if not str(path):
    raise WorkdirError('No working directory was given: set --workdir.')
  folder = pathlib.Path(places.local(path, 'The working directory'))
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise WorkdirError(
      f'Cannot write to the working directory {path}: {error.strerror}.'
    ) from error
  return folder


def read(path: str | os.PathLike) -> dict:
  """The record of an existing working directory.

  Returns:
    The contents of `config.json`.

  Raises:
    WorkdirError: If there is none or it is damaged.
  """
  path = places.local(path, 'The working directory')
  file = pathlib.Path(path) / 'config.json'
  try:
    record = json.loads(file.read_text())
  except (FileNotFoundError, NotADirectoryError) as error:
    raise WorkdirError(
      f'{path} is not a working directory of a run: it has no config.json.'
    ) from error
  except (ValueError, OSError) as error:  # Not JSON, or not even text.
    raise WorkdirError(f'Cannot read {file}: {error}.') from error
  if not isinstance(record, dict) or not isinstance(record.get('config'), dict):
    raise WorkdirError(f'{file} is damaged: it holds no config of a run.')
  return record


def read_config(path: str | os.PathLike, kind: str, cls):
  """The config of an existing run of a given kind.

  Settings that did not exist when it was written have the values that held
  then.

  Raises:
    WorkdirError: If the directory holds a run of another kind, or none, or
      one with settings that are not known here.
  """
  return _from_record(path, read(path), kind, cls)


def read_metrics(path: str | os.PathLike) -> list[dict]:
  """All whole rows of a run's `metrics.jsonl`."""
  return read_rows(pathlib.Path(path) / 'metrics.jsonl')


def read_rows(file: pathlib.Path) -> list[dict]:
  """The whole JSON lines of a file, if it is there."""
  rows = []
  for line in file.read_text().splitlines() if file.exists() else []:
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      continue
  return rows


def read_json(path: str | os.PathLike):
  """Reads what `write_json` wrote."""
  return json.loads(pathlib.Path(path).read_text())


def without_nan(value):
  """None for NaN, which JSON has not: a figure without an estimate."""
  if isinstance(value, dict):
    return {key: without_nan(item) for key, item in value.items()}
  if isinstance(value, list):
    return [without_nan(item) for item in value]
  return None if isinstance(value, float) and math.isnan(value) else value


def write_json(path: str | os.PathLike, value):
  """Writes JSON, whole or not at all."""
  with files.new_file(path) as new:
    new.write_text(json.dumps(without_nan(value), indent=2) + '\n')


def _from_record(path, record: dict, kind: str, cls):
  try:
    return run_record.config(record, kind, cls)
  except UserError as error:
    raise WorkdirError(f'{path} {error}') from error


def _compare(
  folder: pathlib.Path, record: dict, kind: str, config, facts, accept_new_data
) -> list[run_record.Difference]:
  """The differences that may be, of a run and what it is to go on with."""
  old = _from_record(folder, record, kind, type(config))
  try:
    found = run_record.compare(record, old, config, facts, accept_new_data)
  except UserError as error:
    raise WorkdirError(f'{folder} {error}') from error
  newest = _newest_step(folder)
  wanted = flat(to_dict(config)).get('run.num_steps', newest)
  if wanted < newest:
    raise WorkdirError(
      f'{folder} is at step {newest} already, so run.num_steps cannot become '
      f'{wanted}: give at least {newest}, or another --workdir.'
    )
  return found


def _newest_step(folder: pathlib.Path) -> int:
  # With TensorFlow, for which wrong flags shall not wait.
  from vim_tf.training import checkpoints

  return max(checkpoints.steps(folder / 'checkpoints'), default=0)


def _put_aside(folder: pathlib.Path):
  """Moves what a run without checkpoints left into a folder of its own."""
  number = 1
  while (aside := folder / f'{_ASIDE}{number}').exists():
    number += 1
  aside.mkdir()
  # The config last: until then it is that run's folder.
  for name in (*_PARTS, 'metrics.jsonl', 'skipped.json', 'config.json'):
    if (folder / name).exists():
      os.replace(folder / name, aside / name)
  logging.warning(
    '%s held another run, without a checkpoint; what it left is in %s.',
    folder,
    aside,
  )
