"""Writes docs/settings.md from the declarations in vim_tf/config.py.

./bazelw run //tools:settings_page
"""

import dataclasses
import os
import pathlib

from vim_tf import config as config_lib

PAGE = pathlib.Path(os.path.realpath(__file__)).parents[1] / 'docs/settings.md'

_RUNS = (
  ('A tokenizer: `train_vit_vqgan`', config_lib.Stage1Config),
  ('A VIM: `train_vim`', config_lib.Stage2Config),
  ('A linear probe: `train_probe`', config_lib.ProbeConfig),
  ('Sampling', config_lib.SamplingConfig),
)
_HEAD = """\
# Settings

Every setting of a run, as `vim_tf/config.py` declares it; this page is written
by `//tools:settings_page`. A setting has the flag that is named, or is reached
by `--set=PATH=VALUE`. Those marked * may change when a run is started again;
paths only if what they lead to is the same. Presets and their values:
`--preset=help`.
"""
_NO_DEFAULT = '(preset)'


def page() -> str:
  """The whole page."""
  parts = [_HEAD]
  for title, cls in _RUNS:
    parts.append(f'## {title}\n')
    parts.append('| setting | flag | default | what it is | paper |')
    parts.append('|---|---|---|---|---|')
    parts += [_row(one) for one in config_lib.settings_of(cls)]
    parts.append('')
  return '\n'.join(parts)


def _row(one: config_lib.Setting) -> str:
  default = one.default
  if default is dataclasses.MISSING:
    default = _NO_DEFAULT
  elif isinstance(default, bool):
    default = str(default).lower()
  told = f'{one.range}'
  meaning = one.help + (f' {told[0].upper()}{told[1:]}.' if told else '')
  mark = ' *' if one.may_change else ''
  flag = f'`--{one.flag}`' if one.flag else ''
  cells = (f'`{one.path}`{mark}', flag, f'{default}', meaning, one.paper)
  return f'| {" | ".join(cells)} |'


def main():
  """Writes the page."""
  PAGE.write_text(page())
  print(f'Wrote {PAGE}.')


if __name__ == '__main__':
  main()
