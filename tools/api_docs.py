"""Renders the docstrings of `vim_tf` as pages, by pdoc.

  ./bazelw run //tools:api_docs -- --out=api

Open `api/index.html`. Whatever pdoc warns of (a module that cannot be imported,
an annotation that cannot be resolved) ends it with status 1. It reads the
source tree, not what Bazel has built.
"""

import os
import pathlib
import sys
import warnings

from absl import app, flags

from experiments import flag_help

OUT = flags.DEFINE_string('out', None, 'Folder for the pages.')

PACKAGE = 'vim_tf'
_ELSEWHERE = 'vim_tf.jobs.encode_beam'  # Beam is an environment of its own.
# Inherited from TensorFlow Datasets, which imports the name for checkers only.
_FOREIGN = 'utils.VersionOrStr'
_ROOT = pathlib.Path(os.path.realpath(__file__)).parents[1]


def build(package: str, out: pathlib.Path) -> list[str]:
  """Renders a package with all of its modules; returns pdoc's warnings.

  Args:
    package: Its name, or a path.
    out: Folder for the pages.
  """
  # TensorFlow Datasets asks the machine for its processor as it is imported.
  os.environ['PDOC_ALLOW_EXEC'] = '1'
  import pdoc

  pdoc.render.configure(docformat='google', footer_text='vim_tf')
  with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter('always')
    try:
      pdoc.pdoc(package, f'!{_ELSEWHERE}', output_directory=out)
    except RuntimeError as error:  # A module that cannot be imported.
      return [f'{error}: {error.__cause__}']
  # Those of the libraries that are imported have kinds of their own.
  texts = [str(one.message) for one in found if one.category is UserWarning]
  expected = (_FOREIGN, f'import {_ELSEWHERE}')
  return [t for t in texts if not any(part in t for part in expected)]


def main(argv):
  """Renders what is in the source tree."""
  del argv
  os.chdir(os.environ.get('BUILD_WORKING_DIRECTORY', '.'))
  sys.path.insert(0, str(_ROOT))
  problems = build(PACKAGE, pathlib.Path(OUT.value))
  if problems:
    sys.exit('\n'.join(['error:', *problems]))
  print(f'The pages are in {OUT.value}; open {OUT.value}/index.html.')


if __name__ == '__main__':
  flags.mark_flag_as_required('out')  # Not of a test that imports this.
  app.run(main, flags_parser=flag_help.parse)
