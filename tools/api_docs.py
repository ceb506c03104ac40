"""Renders the docstrings of `vim_tf` as pages, by pdoc.

  ./bazelw run //tools:api_docs -- --out=api

Open `api/index.html`. Whatever pdoc warns of (a module that cannot be imported,
an annotation that cannot be resolved) ends it with status 1. It reads the
source tree, not what Bazel has built.
"""

import importlib.util
import os
import pathlib
import sys
import warnings

from absl import app, flags

from experiments import flag_help

OUT = flags.DEFINE_string('out', None, 'Folder for the pages; must not exist.')

PACKAGE = 'vim_tf'
_ELSEWHERE = 'vim_tf.jobs.encode_beam'  # Beam is an environment of its own.
# Inherited from TensorFlow Datasets, which imports the name for checkers only.
_FOREIGN = 'utils.VersionOrStr'
_ROOT = pathlib.Path(os.path.realpath(__file__)).parents[1]


class ApiDocsError(ValueError):
  """Pages that cannot be made; the message says why."""


def build(package: str, out: pathlib.Path):
  """Renders a package with all of its modules.

  Args:
    package: Its name, or a path.
    out: Folder for the pages.

  Raises:
    ApiDocsError: If the folder exists, pdoc is not installed, or it warns.
  """
  if out.exists():
    raise ApiDocsError(f'--out={out} exists already; name a new folder.')
  if importlib.util.find_spec('pdoc') is None:
    raise ApiDocsError('pdoc is not installed.')
  # TensorFlow Datasets asks the machine for its processor as it is imported.
  os.environ['PDOC_ALLOW_EXEC'] = '1'
  import pdoc

  pdoc.render.configure(docformat='google', footer_text='vim_tf')
  with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter('always')
    try:
      pdoc.pdoc(package, f'!{_ELSEWHERE}', output_directory=out)
    except RuntimeError as error:  # A module that cannot be imported.
      raise ApiDocsError(f'{error}: {error.__cause__}') from error
  # Those of the libraries that are imported have kinds of their own.
  texts = [str(one.message) for one in found if one.category is UserWarning]
  expected = (_FOREIGN, f'import {_ELSEWHERE}')
  texts = [t for t in texts if not any(part in t for part in expected)]
  if texts:
    raise ApiDocsError('\n'.join(texts))


def main(argv):
  """Renders what is in the source tree."""
  del argv
  os.chdir(os.environ.get('BUILD_WORKING_DIRECTORY', '.'))
  sys.path.insert(0, str(_ROOT))
  try:
    build(PACKAGE, pathlib.Path(OUT.value))
  except ApiDocsError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(1)
  print(f'The pages are in {OUT.value}; open {OUT.value}/index.html.')


if __name__ == '__main__':
  flags.mark_flag_as_required('out')  # Not of a test that imports this.
  app.run(main, flags_parser=flag_help.parse)
