"""What a setting says of itself beside its value.

Every field of a config is fixed once a run has begun, because another value
would change what has been learned; `setting` declares the exceptions.
"""

from collections.abc import Callable
import dataclasses
import typing

from vim_tf import places


def setting(
  default=dataclasses.MISSING,
  *,
  may_change: bool = False,
  known_by: str = '',
  place: Callable[[str, str], str] | None = None,
  fixed: bool = False,
  before=dataclasses.MISSING,
):
  """A field of a config.

  Args:
    default: Its default; without one it must be given.
    may_change: Whether a run may have another value when it is started again.
    known_by: Of a place: the fact in a run's `config.json` by which what is
      there is recognised. The place may change while that fact is the same.
    place: Of a path: makes of it, and of the setting's name, the one to use; by
      default `places.local` where `known_by` is given.
    fixed: Of a group: that nothing below it may change after all.
    before: What held before the setting existed, for working directories from
      then; by default `default`.
  """
  return dataclasses.field(
    default=default,
    metadata={
      'may_change': may_change,
      'known_by': known_by,
      'place': place or (places.local if known_by else None),
      'fixed': fixed,
      'before': before,
    },
  )


@dataclasses.dataclass(frozen=True)
class Rule:
  """When a setting may have another value than at the last start of a run.

  Attributes:
    may_change: Whether it may at all.
    known_by: The fact that must be the same then; '': none.
  """

  may_change: bool = False
  known_by: str = ''


def rules(cls, prefix: str = '', fixed: bool = False) -> dict[str, Rule]:
  """The rule of each setting of a config, by its name with dots."""
  found = {}
  hints = typing.get_type_hints(cls)
  for field in dataclasses.fields(cls):
    name, meta = prefix + field.name, field.metadata
    still = fixed or meta.get('fixed', False)
    if dataclasses.is_dataclass(hints[field.name]):
      found.update(rules(hints[field.name], f'{name}.', still))
      continue
    known_by = meta.get('known_by', '')
    may_change = not still and (meta.get('may_change', False) or bool(known_by))
    found[name] = Rule(may_change, known_by)
  return found


def value_before(field: dataclasses.Field):
  """What held before a setting existed; `MISSING` if it has always been."""
  before = field.metadata.get('before', dataclasses.MISSING)
  return field.default if before is dataclasses.MISSING else before
