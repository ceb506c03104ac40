"""A run's working directory: its config, its lock, its metrics.

The directory is self-contained: `config.json`, `checkpoints/`, `events/`,
`metrics.jsonl` and `samples/`. A run of another config is refused, and so is
a second run at the same time; nothing is ever overwritten.
"""

import fcntl
import importlib.metadata
import json
import math
import os
import pathlib
import tempfile

from vim_tf import config as config_lib
from vim_tf.config import UserError

_VERSIONS_OF = ('tensorflow', 'keras', 'tensorflow-datasets', 'numpy')


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

  Raises:
    WorkdirError: If the directory cannot be written, belongs to a run of
      another kind or config, or is in use.
  """

  def __init__(
    self,
    path: str,
    kind: str,
    config,
    facts: dict | None = None,
    writes: bool = True,
  ):
    self.path = make_folder(path)
    self._lock = None
    if not writes:
      return
    for part in (self.checkpoints, self.events, self.samples):
      make_folder(part)
    self._lock = open(self.path / 'lock', 'a')
    try:
      fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      raise WorkdirError(
        f'Another run is using the working directory {path}.'
      ) from error
    record = {
      'kind': kind,
      'config': config_lib.to_dict(config),
      **(facts or {}),
    }
    if (self.path / 'config.json').exists():
      _refuse_other(path, read(path), record)
    else:
      record['versions'] = {
        name: importlib.metadata.version(name) for name in _VERSIONS_OF
      }
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
    temporary = self.path / 'metrics.jsonl.tmp'
    temporary.write_text(''.join(json.dumps(row) + '\n' for row in kept))
    os.replace(temporary, self.path / 'metrics.jsonl')


def make_folder(path: str | os.PathLike) -> pathlib.Path:
  """Makes a folder that a run writes to, if it is not there.

  Raises:
    WorkdirError: If the folder cannot be made or written to.
  """
  if not str(path):
    raise WorkdirError('No working directory was given: set --workdir.')
  folder = pathlib.Path(path)
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

  Args:
    path: The directory of a run.

  Returns:
    The contents of `config.json`.

  Raises:
    WorkdirError: If there is none or it is damaged.
  """
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

  Raises:
    WorkdirError: If the directory holds a run of another kind, or none.
    ConfigError: If its config is not one of `cls`.
  """
  record = read(path)
  if record.get('kind') != kind:
    raise WorkdirError(
      f'{path} holds a run of kind {record.get("kind")!r}, not {kind!r}.'
    )
  return config_lib.from_dict(cls, record['config'])


def read_metrics(path: str | os.PathLike) -> list[dict]:
  """All whole rows of a run's `metrics.jsonl`."""
  file = pathlib.Path(path) / 'metrics.jsonl'
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
  """Writes JSON under another name, then renames: whole, or not there."""
  path = pathlib.Path(path)
  temporary = path.with_name(path.name + '.tmp')
  temporary.write_text(json.dumps(without_nan(value), indent=2) + '\n')
  os.replace(temporary, path)


def flat(values: dict, prefix: str = '') -> dict:
  """Nested dictionaries as one, with dots: {'model.encoder.width': 512}."""
  found = {}
  for key, value in values.items():
    if isinstance(value, dict):
      found.update(flat(value, f'{prefix}{key}.'))
    else:
      found[prefix + key] = list(value) if isinstance(value, tuple) else value
  return found


def _refuse_other(path, old, new):
  for key, value in flat(new).items():
    found = flat(old).get(key)
    if found != value:
      raise WorkdirError(
        f'{path} belongs to a run with {key}={found!r}, not {value!r}: give '
        'another --workdir, or the same settings to go on with that run.'
      )
