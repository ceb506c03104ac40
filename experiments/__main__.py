"""Runs a program by its name: vim_tf train_vit_vqgan --workdir=runs/tokenizer.

`python -m experiments NAME FLAGS` does the same; without a name, or with
--help, it lists them.
"""

import ast
import pathlib
import runpy
import sys

_ROOT = pathlib.Path(__file__).absolute().parents[1]
_MAIN = "if __name__ == '__main__':"


def programs() -> dict[str, str]:
  """The module of each program, by its name."""
  found = {}
  for folder in ('experiments', 'export'):
    for path in sorted((_ROOT / folder).rglob('*.py')):
      parts = path.relative_to(_ROOT).with_suffix('').parts
      if path == pathlib.Path(__file__).absolute():
        continue
      if _MAIN in path.read_text():
        parts = tuple(part for part in parts if part != '__main__')
        prefix = 'export_' if parts[:-1] == ('export',) else ''
        found[prefix + parts[-1]] = '.'.join(parts)
  return found


def _about(module: str) -> str:
  path = _ROOT / module.replace('.', '/')
  file = path / '__main__.py' if path.is_dir() else path.with_suffix('.py')
  text = ast.get_docstring(ast.parse(file.read_text())) or ''
  return text.partition('\n')[0]


def main():
  """Runs the program that the command line names."""
  found = programs()
  name = sys.argv[1] if len(sys.argv) > 1 else '--help'
  if name in found:
    sys.argv = [f'vim_tf {name}', *sys.argv[2:]]
    runpy.run_module(found[name], run_name='__main__', alter_sys=True)
    return
  lines = [f'  {key:22}{_about(module)}' for key, module in found.items()]
  print(
    'vim_tf NAME FLAGS; each NAME --help lists its flags.', *lines, sep='\n'
  )
  if name not in ('--help', '-h', 'help'):
    sys.exit(f'error: there is no program {name!r}; the list above has them.')


if __name__ == '__main__':
  main()
