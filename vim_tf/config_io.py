"""Configs to JSON and back, and single settings changed by name."""

import dataclasses
import json
import types
import typing

from vim_tf.config_checks import ConfigError, check
from vim_tf.config_fields import value_before


def to_dict(config) -> dict:
  """A config as nested dictionaries of JSON values."""
  return dataclasses.asdict(config)


def to_json(config) -> str:
  """A config as indented JSON."""
  return json.dumps(to_dict(config), indent=2) + '\n'


def from_json(cls, text: str):
  """Reads a config of class `cls` from JSON.

  Args:
    cls: One of the dataclasses of `vim_tf.config`.
    text: JSON as `to_json` writes it.

  Returns:
    An instance of `cls`.

  Raises:
    ConfigError: If the text is not JSON, a key is unknown or missing, a value
      has another type or is out of range.
  """
  try:
    values = json.loads(text)
  except json.JSONDecodeError as error:
    raise ConfigError(f'The config is not valid JSON: {error}.') from error
  return from_dict(cls, values)


def from_dict(cls, values: dict, where: str = '', recorded: bool = False):
  """Like `from_json`, from nested dictionaries.

  Args:
    cls: One of the dataclasses of `vim_tf.config`.
    values: What `to_dict` gave.
    where: What errors call it.
    recorded: Whether it is what a run wrote, maybe long ago: settings that did
      not exist then get the values that held before they did.

  Raises:
    ConfigError: As `from_json`.
  """
  where = where or cls.__name__
  check(isinstance(values, dict), f'{where} must be a JSON object.')
  fields = {field.name: field for field in dataclasses.fields(cls)}
  unknown = sorted(set(values) - set(fields))
  check(
    not unknown,
    f'{where} has no setting {", ".join(unknown)}; it knows '
    f'{", ".join(fields)}.',
  )
  missing = [name for name in fields if name not in values]
  if recorded:
    known = {name: value_before(fields[name]) for name in missing}
    missing = [k for k in missing if known[k] is dataclasses.MISSING]
    values = {**known, **values}
  check(not missing, f'{where} lacks {", ".join(missing)}.')
  hints = typing.get_type_hints(cls)
  return cls(
    **{
      name: _convert(fields[name], hints[name], value, where, recorded)
      for name, value in values.items()
    }
  )


def replace(config, changes: dict[str, str]):
  """A copy of `config` with some settings changed, all at once.

  Args:
    config: Any dataclass of `vim_tf.config`.
    changes: From a setting, with dots ('model.encoder.width'), to its new
      value as JSON; a bare word stands for a string.

  Raises:
    ConfigError: If there is no such setting or a value does not fit.
  """
  values = to_dict(config)
  for path, text in changes.items():
    *groups, name = path.split('.')
    group = values
    for i, key in enumerate([*groups, name]):
      where = '.'.join([type(config).__name__, *groups[:i]])
      check(
        isinstance(group, dict),
        f'{where} is a single value, with no setting below it.',
      )
      check(
        key in group,
        f'{where} has no setting {key!r}; it knows {", ".join(group)}.',
      )
      parent, group = group, group[key]
    check(
      not isinstance(group, dict),
      f'{path} is a group of settings; name one of them.',
    )
    try:
      parent[name] = json.loads(text)
    except json.JSONDecodeError:
      parent[name] = text
    if isinstance(group, str) and not isinstance(parent[name], str):
      parent[name] = text  # A folder named 2024 is still a string.
  return from_dict(type(config), values)


def _convert(field, hint, value, where: str, recorded: bool):
  """Checks a JSON value against a field's type."""
  where = f'{where}.{field.name}'
  if isinstance(hint, types.GenericAlias):  # The configs hold no lists.
    raise TypeError(f'{where} has an unsupported type {hint}.')
  if dataclasses.is_dataclass(hint):
    return from_dict(hint, value, where, recorded)
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  check(
    isinstance(value, hint) and (hint is bool or not isinstance(value, bool)),
    f'{where} is {value!r}, but must be of type {hint.__name__}.',
  )
  place = field.metadata.get('place')
  return place(value, where) if place else value
