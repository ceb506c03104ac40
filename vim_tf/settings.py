"""How a setting is declared, checked, named, read and written.

A setting is one field of a frozen dataclass. Its declaration says everything
about it: default, range, meaning, the paper's section, the flag that sets it,
and whether a run may go on with another value. Checks, JSON, flags, `--help`
and docs/settings.md are made from that.
"""

from collections.abc import Callable, Iterator
import dataclasses
import json
import types
import typing
from typing import Any

_REQUIRED = dataclasses.MISSING


class UserError(ValueError):
  """Bad input; the message is one line that says what would be right."""


class ConfigError(UserError):
  """A setting that cannot be used."""


def first_line(error: Exception) -> str:
  """What another library's error says, for a message of one line."""
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0]


def check(condition: bool, message: str):
  """Raises `ConfigError` with a message unless a condition holds."""
  if not condition:
    raise ConfigError(message)


def check_choice(name: str, value: str, choices: tuple[str, ...]):
  """Refuses a value that is not one of its choices."""
  check(
    value in choices,
    f'{name} is {value!r}, but must be one of {", ".join(choices)}.',
  )


# ------------------------------------------------------------------- declare


@dataclasses.dataclass(frozen=True)
class Range:
  """What values a setting takes; None: no bound.

  Attributes:
    least: Smallest value.
    above: A bound that must be passed.
    most: Largest value.
    below: A bound that must not be reached.
    choices: The words that are allowed; (): any.
  """

  least: float | None = None
  above: float | None = None
  most: float | None = None
  below: float | None = None
  choices: tuple[str, ...] = ()

  def holds(self, value) -> bool:
    """Whether a value lies within; NaN lies within no bounds."""
    return (
      (not self.choices or value in self.choices)
      and (self.least is None or value >= self.least)
      and (self.above is None or value > self.above)
      and (self.most is None or value <= self.most)
      and (self.below is None or value < self.below)
    )

  def __str__(self) -> str:
    if self.choices:
      return f'one of {", ".join(self.choices)}'
    lower = self.least if self.above is None else self.above
    upper = self.most if self.below is None else self.below
    if lower is None and upper is None:
      return ''
    if upper is None:
      return f'{"at least" if self.above is None else "above"} {lower:g}'
    if lower is None:
      return f'{"at most" if self.below is None else "below"} {upper:g}'
    first = '[' if self.above is None else '('
    return f'in {first}{lower:g}, {upper:g}' + (
      ']' if self.below is None else ')'
    )


@dataclasses.dataclass(frozen=True)
class Setting:
  """A setting, as it is declared and where it stands within a whole config.

  Attributes:
    help: What it is, with its unit, as a sentence.
    default: Its value where none is given, or `dataclasses.MISSING`.
    range: What values it takes.
    paper: Section or table of the paper that it comes from, or ''.
    flag: Name of its flag; '': it has none, and `--set` reaches it.
    may_change: Whether a run may go on with another value, since what has been
      learned does not depend on it.
    known_by: Of a path: the fact in a run's `config.json` by which what is
      there is recognised. The path may change while that fact is the same.
    place: Of a path: makes the one to use of it and of the setting's name, such
      as `places.local`.
    before: Its value in directories that were written before it existed.
    path: Its name with dots, such as 'model.encoder.width'.
    type: Type of its value.
    group: What `--help` calls the settings that it stands with.
    general_flag: Name of the flag that sets it where its own is not given.
  """

  help: str
  default: Any
  range: Range
  paper: str
  flag: str
  may_change: bool
  known_by: str
  place: Callable[[str, str], str] | None
  before: Any
  path: str = ''
  type: type = str
  group: str = ''
  general_flag: str = ''


def setting(
  help: str,
  default: Any = _REQUIRED,
  *,
  paper: str = '',
  flag: str = '',
  may_change: bool = False,
  known_by: str = '',
  place: Callable[[str, str], str] | None = None,
  before: Any = _REQUIRED,
  **bounds,
) -> Any:
  """Declares one setting of a config as a dataclass field; see `Setting`.

  The flag has the field's name where none is given, `before` is the default,
  and a path that is known by a fact may change. `bounds` are what a `Range`
  takes.
  """
  own = Setting(
    help=help,
    default=default,
    range=Range(**bounds),
    paper=paper,
    flag=flag,
    may_change=may_change or bool(known_by),
    known_by=known_by,
    place=place,
    before=default if before is _REQUIRED else before,
  )
  # MISSING is the field's own word for no default.
  return dataclasses.field(default=default, metadata={'setting': own})


@dataclasses.dataclass(frozen=True)
class Group:
  """What is declared of a config within another.

  Attributes:
    name: What `--help` calls the settings in it.
    flags: The fields in it that have flags; None: all.
    prefix: What the names of their flags begin with.
    follows: The fields in it that flags without that prefix set, too, where
      those with it are not given.
    fixed: Whether nothing in it may change once a run has begun, after all.
  """

  name: str
  flags: tuple[str, ...] | None = None
  prefix: str = ''
  follows: tuple[str, ...] = ()
  fixed: bool = False


def group(name: str, **about) -> Any:
  """Declares a field that is a config of its own; for `about` see `Group`."""
  return dataclasses.field(metadata={'group': Group(name, **about)})


@dataclasses.dataclass(frozen=True)
class Config:
  """Base of all configs: each setting is checked when one is made.

  Raises:
    ConfigError: If a value is out of range or values do not fit together, in
      one line that says what was wrong and what would be right.
  """

  def __post_init__(self):
    for field in dataclasses.fields(self):
      if 'setting' not in field.metadata:
        continue
      bounds = field.metadata['setting'].range
      value = getattr(self, field.name)
      check(
        bounds.holds(value),
        f'{type(self).__name__}.{field.name} is {value!r}, but must be '
        f'{bounds}.',
      )
    self.check()

  def check(self):
    """Checks what a single value does not show."""


# ---------------------------------------------------------------------- list


def settings_of(cls: type[Config], group: str = 'run') -> tuple[Setting, ...]:
  """All settings of a config and of those within it, in order.

  Args:
    cls: The config's class.
    group: What `--help` calls its own settings.
  """
  return tuple(_settings(cls, '', Group(group)))


def _settings(cls: type[Config], start: str, about: Group) -> Iterator[Setting]:
  """The settings of a config whose own path, with a dot, is `start`."""
  hints = typing.get_type_hints(cls)
  for field in dataclasses.fields(cls):
    path, name, hint = start + field.name, field.name, hints[field.name]
    if 'group' in field.metadata:
      within = field.metadata['group']
      if about.flags is not None:  # As the probe's, which has a few.
        within = dataclasses.replace(within, flags=())
      fixed = within.fixed or about.fixed
      within = dataclasses.replace(within, fixed=fixed)
      yield from _settings(hint, f'{path}.', within)
    elif 'setting' in field.metadata:  # Not the data of a protocol.
      own = field.metadata['setting']
      flag = own.flag or name
      has_flag = about.flags is None or name in about.flags
      yield dataclasses.replace(
        own,
        path=path,
        type=hint,
        group=about.name,
        flag=about.prefix + flag if has_flag else '',
        general_flag=flag if name in about.follows else '',
        may_change=own.may_change and not about.fixed,
      )


def flat(values: dict, prefix: str = '') -> dict:
  """Nested dictionaries as one, with dots: {'model.encoder.width': 512}."""
  found = {}
  for key, value in values.items():
    if isinstance(value, dict):
      found.update(flat(value, f'{prefix}{key}.'))
    else:
      found[prefix + key] = list(value) if isinstance(value, tuple) else value
  return found


# ------------------------------------------------------------ read and write


def to_dict(config: Config) -> dict:
  """A config as nested dictionaries of JSON values."""
  return dataclasses.asdict(config)


def to_json(config: Config) -> str:
  """A config as indented JSON."""
  return json.dumps(to_dict(config), indent=2) + '\n'


def from_json(cls: type[Config], text: str):
  """Reads a config of class `cls` from JSON.

  Args:
    cls: Class of the config.
    text: JSON as `to_json` writes it.

  Raises:
    ConfigError: If the text is not JSON, a key is unknown or missing, a value
      has another type or is out of range.
  """
  try:
    values = json.loads(text)
  except json.JSONDecodeError as error:
    raise ConfigError(f'The config is not valid JSON: {error}.') from error
  return from_dict(cls, values)


def from_dict(
  cls: type[Config], values: dict, where: str = '', recorded: bool = False
):
  """Like `from_json`, from nested dictionaries.

  Args:
    cls: Class of the config.
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
    before = {
      name: fields[name].metadata['setting'].before
      for name in missing
      if 'setting' in fields[name].metadata
    }
    before = {k: x for k, x in before.items() if x is not _REQUIRED}
    missing = [name for name in missing if name not in before]
    values = {**before, **values}
  check(not missing, f'{where} lacks {", ".join(missing)}.')
  hints = typing.get_type_hints(cls)
  return cls(
    **{
      name: _convert(fields[name], hints[name], value, where, recorded)
      for name, value in values.items()
    }
  )


def replace(config: Config, changes: dict[str, str]):
  """A copy of `config` with some settings changed, all at once.

  Args:
    config: Any config.
    changes: From a setting, with dots ('model.encoder.width'), to its new
      value as JSON; a bare word stands for a string.

  Raises:
    ConfigError: If there is no such setting or a value does not fit.
  """
  values = to_dict(config)
  for path, text in changes.items():
    *groups, name = path.split('.')
    part = values
    for i, key in enumerate([*groups, name]):
      where = '.'.join([type(config).__name__, *groups[:i]])
      check(
        isinstance(part, dict),
        f'{where} is a single value, with no setting below it.',
      )
      check(
        key in part,
        f'{where} has no setting {key!r}; it knows {", ".join(part)}.',
      )
      parent, part = part, part[key]
    check(
      not isinstance(part, dict),
      f'{path} is a group of settings; name one of them.',
    )
    try:
      parent[name] = json.loads(text)
    except json.JSONDecodeError:
      parent[name] = text
    if isinstance(part, str) and not isinstance(parent[name], str):
      parent[name] = text  # A folder named 2024 is still a string.
  return from_dict(type(config), values)


def _convert(field, hint, value, where: str, recorded: bool):
  """Checks a JSON value against a field's type."""
  where = f'{where}.{field.name}'
  if isinstance(hint, types.GenericAlias):  # The configs hold no lists.
    raise TypeError(f'{where} has an unsupported type {hint}.')
  if isinstance(hint, type) and issubclass(hint, Config):
    return from_dict(hint, value, where, recorded)
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  check(
    isinstance(value, hint) and (hint is bool or not isinstance(value, bool)),
    f'{where} is {value!r}, but must be of type {hint.__name__}.',
  )
  own = field.metadata.get('setting')
  return own.place(value, where) if own and own.place else value
