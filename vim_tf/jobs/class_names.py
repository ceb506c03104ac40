"""Classes as users write them: by name, by ImageNet's words, or by id."""

from collections.abc import Iterable, Sequence

from absl import logging

from vim_tf.config import ConfigError, VIMConfig
from vim_tf.data import imagenet

_SHOWN = 20  # Names in a message.


def parse(
  wanted: Sequence[str], names: Sequence[str], num_classes: int
) -> list[int]:
  """Ids of classes that are given by name, or by id.

  Where all that is given are names, they are names, even if they are numbers
  as well; otherwise all must be ids.

  Args:
    wanted: Names in any case, words of ImageNet's classes, or ids; none: all
      classes.
    names: Name of each class.
    num_classes: Of the model; 0: it has none.

  Returns:
    Ids, in the order of `wanted`.

  Raises:
    ConfigError: If a class is unknown or its name not the only one, names and
      ids are mixed, or the model has no classes.
  """
  if not num_classes:
    if wanted:
      raise ConfigError('Classes were given, but the model has none.')
    return [0]
  if not wanted:
    return list(range(num_classes))
  wanted = [text.strip() for text in wanted]
  named = {text: _find(text, names) for text in wanted}
  numbers = {
    text: int(text)
    for text in wanted
    if text.isdecimal() and int(text) < num_classes
  }
  for text in wanted:
    if named[text] is None and text not in numbers:
      more = ', ...' if len(names) > _SHOWN else ''
      shown = ', '.join(map(shown_name, names[:_SHOWN]))
      raise ConfigError(
        f'There is no class {text!r}; there are the ids 0 to '
        f'{num_classes - 1}: {shown}{more}.'
      )
  if None not in named.values():
    if any(numbers.get(text, id_) != id_ for text, id_ in named.items()):
      found = ', '.join(f'{text!r} (id {id_})' for text, id_ in named.items())
      logging.warning('The classes are taken as names: %s.', found)
    return [named[text] for text in wanted]
  if len(numbers) == len(named):
    if any(id_ is not None for id_ in named.values()):
      found = ', '.join(f'{id_} ({names[id_]!r})' for id_ in numbers.values())
      logging.warning('The classes are taken as ids: %s.', found)
    return [numbers[text] for text in wanted]
  name = next(text for text in wanted if text not in numbers)
  number = next(text for text in wanted if named[text] is None)
  raise ConfigError(
    f'There are names of classes, such as {name!r}, and ids, such as '
    f'{number!r}: give names alone or ids alone.'
  )


def of(ids: Iterable[int], names: Sequence[str], model: VIMConfig) -> list[str]:
  """Names to read of the classes of samples; none of a model without any."""
  return [shown_name(names[i]) for i in ids] if model.num_classes else []


def shown_name(name: str) -> str:
  """A class's name to read: 'tench' for ImageNet's 'n01440764'."""
  return next(iter(imagenet.words(name)), name)


def _find(text: str, names: Sequence[str]) -> int | None:
  """The id of the class with this name, if there is one.

  Raises:
    ConfigError: If there are several.
  """
  if text in names:
    return list(names).index(text)
  found = [i for i, n in enumerate(names) if text.lower() in _spellings(n)]
  if len(found) > 1:
    raise ConfigError(
      f'{text!r} may be any of the classes '
      f'{", ".join(names[i] for i in found)}: give one of these names.'
    )
  return found[0] if found else None


def _spellings(name: str) -> set[str]:
  """All that a class may be called, in lower case."""
  words = imagenet.words(name)
  return {text.lower() for text in (name, *words, ', '.join(words) or name)}
