"""What `config.json` says of a run, and what may differ at its next start.

The file holds the newest settings; under `changes` stands what they were
before and until which step. Which settings may differ, because they do not
change what has been learned, is declared with them (`settings.setting`).
Facts, as fingerprints of data and models, may not, unless new data are
accepted.
"""

from collections.abc import Sequence
import dataclasses

from absl import logging

from vim_tf import compat
from vim_tf.config import ConfigError, UserError, from_dict, to_dict
from vim_tf.settings import flat, settings_of

FORMAT_VERSION = 1
"""Of `config.json`; the files before it have none."""

_DATA = ('data_fingerprint', 'data_images', 'data_licence')
"""The facts that new pictures change."""


@dataclasses.dataclass(frozen=True)
class Difference:
  """A setting or a fact that is not what it was.

  Attributes:
    name: The setting, with dots, or the fact.
    old: Its value at the last start; None if it was not noted.
    new: Its value now.
  """

  name: str
  old: object
  new: object

  def __str__(self) -> str:
    return f'{self.name}={self.old!r}, not {self.new!r}'


def new(kind: str, config, facts: dict) -> dict:
  """The record of a run that begins; see `Workdir` for the arguments."""
  return {
    'format_version': FORMAT_VERSION,
    'kind': kind,
    'config': to_dict(config),
    **facts,
    'versions': compat.versions(),
  }


def changed(
  old: dict, record: dict, differences: Sequence[Difference], step: int
) -> dict:
  """The record of a run that goes on with other settings.

  Args:
    old: The record so far.
    record: What `new` gives for the settings and facts of now.
    differences: What `compare` gave; logged and noted.
    step: Steps done.
  """
  for found in differences:
    logging.info(
      'From step %d on %s=%r (%r before).',
      step,
      found.name,
      found.new,
      found.old,
    )
  notes = [
    {'step': step, 'setting': found.name, 'old': found.old, 'new': found.new}
    for found in differences
  ]
  return {**old, **record, 'changes': [*old.get('changes', []), *notes]}


def config(record: dict, kind: str, cls):
  """The config in a record; new settings have the values from before them.

  Raises:
    UserError: If it is of another kind or cannot be read by this code; the
      message goes on from the name of the working directory.
  """
  if record.get('kind') != kind:
    raise UserError(
      f'holds a run of kind {record.get("kind")!r}, not {kind!r}.'
    )
  version = record.get('format_version', 0)
  try:
    if version > FORMAT_VERSION:
      raise ConfigError(f'This code reads formats up to {FORMAT_VERSION}.')
    return from_dict(cls, record['config'], recorded=True)
  except ConfigError as error:
    versions = record.get('versions') or {}
    by = ', '.join(f'{name} {value}' for name, value in versions.items())
    raise UserError(
      f'cannot be read by this version of vim_tf: its config.json is of format '
      f'{version} and was written with {by or "unknown versions"}. {error}'
    ) from error


def compare(
  record: dict, old, config, facts: dict | None, accept_new_data: bool = False
) -> list[Difference]:
  """Compares a run with what it is to go on with.

  Args:
    record: Its record.
    old: The config therein.
    config: The settings now.
    facts: The facts now; None if they are not known yet, and then what is
      known by a fact is not compared.
    accept_new_data: Whether the data may be others.

  Returns:
    The differences, which all may be.

  Raises:
    UserError: If others are there; it names them all and goes on from the
      name of the working directory.
  """
  of_data = list(_DATA)
  if record['kind'] == 'vit_vqgan':  # It learns without classes.
    of_data.append('class_names')
  if not _same(record, facts, 'data_fingerprint'):
    of_data.append('codes_fingerprint')
  theirs, ours = flat(to_dict(old)), flat(to_dict(config))
  noted = flat(record['config'])
  allowed, refused, data = [], [], []
  for rule in settings_of(type(config)):
    name = rule.path
    found = Difference(name, theirs[name], ours[name])
    if theirs[name] == ours[name]:
      if name not in noted:
        allowed.append(Difference(name, None, ours[name]))
    elif not rule.may_change:
      refused.append(found)
    elif not rule.known_by or _same(record, facts, rule.known_by):
      allowed.append(found)
    elif facts is not None:
      (data if rule.known_by in of_data else refused).append(found)
  for name, value in (facts or {}).items():
    found = Difference(name, record.get(name), value)
    if name not in record:
      allowed.append(found)
    elif record[name] != value:
      (data if name in of_data else refused).append(found)
  if accept_new_data:
    allowed, data = allowed + data, []
  wrong = []
  if refused:
    wrong.append(
      f'It has {"; ".join(map(str, refused))}: leave these settings out to go '
      'on with it (--workdir alone has all of its settings), or give another '
      '--workdir.'
    )
  if data:
    wrong.append(
      f'It began with {_images(record)}, and now there are {_images(facts)} '
      f'({"; ".join(map(str, data))}): give --accept_new_data to go on with '
      'those of now, or another --workdir.'
    )
  if wrong:
    raise UserError(f'belongs to another run. {" ".join(wrong)}')
  return allowed


def _same(record: dict, facts: dict | None, name: str) -> bool:
  """Whether a fact is known and the same."""
  found = record.get(name)
  return bool(found) and facts is not None and facts.get(name) == found


def _images(facts: dict) -> str:
  images = facts.get('data_images')
  if not images:
    return 'an unknown number of images'
  return f'{images["train"]} images and {images["held_out"]} held-out ones'
