"""How settings refuse what cannot be used: errors of one line."""


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


def check_least(config, least: float, *names: str):
  """Refuses settings of `config` below `least`, and those that are NaN."""
  for name in names:
    value = getattr(config, name)
    check(
      value >= least,
      f'{type(config).__name__}.{name} is {value}, but must be at least '
      f'{least}.',
    )
