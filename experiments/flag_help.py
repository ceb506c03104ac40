"""What `--help` and `--preset=help` print: all flags of a binary, in groups.

absl's own help shows the flags of the main file alone, and most of ours stand
in files that binaries share. `--helpfull` is still absl's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import operator
import os
import re
import shlex
import sys
import textwrap

from absl import flags

_HELP = ('--help', '-help', '-h', '--helpshort', '-helpshort', '-?')
_OWN = ('experiments', 'export', 'tools')
_MISSING = 'must have a value other than None'  # As absl says it.
_COLUMN = 30
_WIDTH = 80


@dataclasses.dataclass(frozen=True)
class Presets:
  """Where the settings of a training come from that no flag gives.

  Attributes:
    make: From a preset's name to its config.
    about: What each preset is, in a sentence, by name.
    main: The settings, with dots, that tell presets apart.
    inherited: What else gives settings, in words, by flag.
  """

  make: Callable[[str], object]
  about: Mapping[str, str]
  main: Sequence[str]
  inherited: Mapping[str, str] = dataclasses.field(default_factory=dict)


def parse(
  argv: Sequence[str], settings: Sequence = (), presets: Presets | None = None
) -> list[str]:
  """Parses flags for `absl.app.run`, or prints help and ends the process.

  Args:
    argv: The command line.
    settings: Those that flags stand for, each a `flags.Setting`.
    presets: Where those come from otherwise; None: from the run that the
      binary reads.

  Returns:
    What of the command line is no flag.
  """
  words = list(argv[1:])
  if '--' in words:
    words = words[: words.index('--')]
  if presets and re.search(r'(^| )--?preset[= ]help( |$)', ' '.join(words)):
    _end(_about_presets(presets))
  if any(word in _HELP for word in words):
    # For the preset; what is wrong or missing does not matter to help.
    with contextlib.suppress(flags.Error):
      flags.FLAGS([argv[0], *(word for word in words if word not in _HELP)])
    _end(text(sys.modules['__main__'].__doc__ or '', settings, presets))
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    what = ' '.join(str(error).split())
    missing = re.findall(rf'Flag (--\w+) {_MISSING}', what)
    if missing:
      what = f'{" and ".join(missing)} must be given'
    print(f'error: {what.rstrip(" .?")}; see --help.', file=sys.stderr)
    sys.exit(1)


def _end(told: str):
  """Prints, and ends the process; `head` and pagers may not read it all."""
  try:
    print(told, flush=True)
  except BrokenPipeError:  # Python would complain once more at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  sys.exit(0)


def text(about: str, settings: Sequence, presets: Presets | None) -> str:
  """The help of a binary whose flags are defined.

  Args:
    about: Its docstring.
    settings: As of `parse`.
    presets: As of `parse`.
  """
  # Python has joined the lines of a command that ended with a backslash.
  about = re.sub(r'(?<=\S) {3,}(?=--)', r' \\\n    ', about.strip())
  lines = [about, '', _what_defaults_are(presets)]
  values = _values(settings, presets)
  groups = {}
  for flag in _own():
    group, words = _group(flag)
    groups.setdefault(group, []).extend(_lines(flag, words, values))
  for group, rows in groups.items():
    lines += ['', f'[{group}]', *rows]
  return '\n'.join(lines)


def _own() -> Iterator[flags.Flag]:
  """The flags of our own files, in the order of their definition."""
  for module, found in flags.FLAGS.flags_by_module_dict().items():
    if module.partition('.')[0] in _OWN or module == sys.argv[0]:
      yield from found


def _is_required(flag: flags.Flag) -> bool:
  return any(_MISSING in str(v.message) for v in flag.validators)


def _what_defaults_are(presets) -> str:
  if presets:
    name = flags.FLAGS['preset'].value
    told = (
      f'Flags, with their defaults; those of settings are of --preset={name}. '
      '--preset=help tells of the others.'
    )
  else:
    told = 'Flags, with their defaults:'
  return textwrap.fill(told, _WIDTH)


def _values(settings, presets: Presets | None) -> dict[str, object]:
  """What each setting is unless a flag says it, by flag; in words: a tuple."""
  if presets is None:
    return {setting.flag: ("the run's",) for setting in settings}
  config = presets.make(flags.FLAGS['preset'].value)
  return {
    setting.flag: operator.attrgetter(setting.paths[0])(config)
    for setting in settings
    if setting.flag not in presets.inherited
  } | {flag: (words,) for flag, words in presets.inherited.items()}


def _group(flag: flags.Flag) -> tuple[str, str]:
  """The group of a flag and its help without that, with all choices."""
  words = flag.help.partition(';\n    repeat this option')[0]
  choices = getattr(flag.parser, 'enum_values', None)
  if choices:  # absl has put them in front.
    words = words.partition('>: ')[2]
  found = re.match(r'\[([^]]+)\] (.*)', words, re.DOTALL)
  group, words = found.groups() if found else ('flags', words)
  told = choices and f'One of {", ".join(choices)}.'
  if told and told not in words:  # A setting's help has it already.
    words += f' {told}'
  return group, words


def _lines(flag: flags.Flag, words: str, values: Mapping) -> list[str]:
  """A flag's lines: name and default on the left, help on the right."""
  value = values.get(flag.name)
  if isinstance(value, tuple):
    words += f' Default: {value[0]}.'
    value = None
  elif value is None:
    value = flag.default
  left = f'  --{flag.name}'
  if _is_required(flag):
    words += ' Must be given.'
  elif value is not None and value != []:
    left += f'={_shown(value)}'
  right = textwrap.wrap(words, _WIDTH - _COLUMN, break_on_hyphens=False)
  if len(left) > _COLUMN - 2:
    return [left, *(f'{"":{_COLUMN}}{line}' for line in right)]
  starts = [left, *[''] * (len(right) - 1)]
  return [f'{start:{_COLUMN}}{line}' for start, line in zip(starts, right)]


def _shown(value) -> str:
  """A value as one gives it on the command line."""
  if isinstance(value, bool):
    return str(value).lower()
  if isinstance(value, list):
    value = ','.join(map(str, value))
  return shlex.quote(str(value)) if value == '' else str(value)


def _about_presets(presets: Presets) -> str:
  lines = [f'Presets; --preset={flags.FLAGS["preset"].default} is the default.']
  for name, about in presets.about.items():
    config = presets.make(name)
    told = ' '.join(
      f'{path.removeprefix("model.")}={_shown(operator.attrgetter(path)(config))}'
      for path in presets.main
    )
    lines += ['', name]
    for part in (about, told):
      lines += textwrap.wrap(
        part,
        _WIDTH,
        initial_indent='  ',
        subsequent_indent='  ',
        break_on_hyphens=False,
      )
  return '\n'.join(lines)
