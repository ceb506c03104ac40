"""Runs the notebook for TPUs from end to end on the CPU, in tiny."""

import pathlib
import sys
import types
from unittest import mock

from absl.testing import absltest
import PIL.Image

from tests import programs

_SHORT = ['--steps=2', '--batch_size=4', '--eval_examples=4']


class NotebookTest(absltest.TestCase):
  def test_from_end_to_end(self):
    root = self.create_tempdir().full_path
    shown = []
    display = types.SimpleNamespace(display=shown.append, Image=str)
    names = {}
    with (
      programs.inside(root),
      mock.patch.dict(
        sys.modules, {'IPython': types.SimpleNamespace(display=display)}
      ),
    ):
      for tags, text in programs.notebook_cells():
        exec(compile(text, 'tpu.ipynb', 'exec'), names)
        if 'parameters' in tags:
          names.update(
            FOLDER=str(programs.ROOT),
            STRATEGY='one_device',
            MORE_1=_SHORT,
            MORE_2=_SHORT,
          )
        elif 'PYTHON' in names and 'call' in names:
          names['PYTHON'] = sys.executable  # As if it was installed.
    folders = [pathlib.Path(picture).parts[-3:-1] for picture in shown]
    self.assertEqual(
      folders,
      [('tokenizer', 'samples'), ('vim', 'samples'), ('runs', 'samples')],
    )
    for picture in shown:
      with PIL.Image.open(picture) as image:
        image.verify()


if __name__ == '__main__':
  absltest.main()
