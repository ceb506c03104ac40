"""Runs the cells of the notebook for TPUs on the CPU, in tiny."""

import pathlib
import subprocess
import sys
import types
from unittest import mock

from absl.testing import absltest
import PIL.Image

from tests import programs, testing
from tests.experiments import running, tiny_runs

_BOTH = ('--preset=tiny', '--steps=1', '--batch_size=4', '--eval_examples=4')
_STAGE1 = (
  '--image_size=16',
  '--set=codebook.init_from_data=false',
  '--set=model.encoder.num_blocks=1',
  '--set=model.decoder.num_blocks=1',
)
_STAGE2 = ('--set=model.transformer.num_blocks=1',)
_RUN_HERE = ('train_vit_vqgan', 'train_vim', 'sample')


class NotebookTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self._commands, self._shown = [], []

  def _call(self, words, **_):
    """In place of a process; nothing is installed, and no device is tried."""
    program = words[2].removeprefix('experiments.')
    self._commands.append(words[-1] if '--no-deps' in words else program)
    if program in _RUN_HERE:
      found = running.Binary(program).run(*words[3:])
      self.assertEqual(found.status, 0, found.error)

  def _display(self, path):
    with PIL.Image.open(path) as image:
      image.verify()
    self._shown.append('/'.join(pathlib.Path(path).parts[-3:-1]))

  def test_from_end_to_end(self):
    root = pathlib.Path(self.create_tempdir().full_path)
    tiny_runs.make_images(root / 'images')
    both = (*_BOTH, f'--data=folder:{root / "images"}')
    display = types.SimpleNamespace(display=self._display, Image=str)
    ipython = {'IPython': types.SimpleNamespace(display=display)}
    names = {}
    with (
      testing.eagerly(),
      programs.inside(root),
      mock.patch.dict(sys.modules, ipython),
      mock.patch.object(subprocess, 'run', self._call),
    ):
      for tags, text in programs.notebook_cells():
        exec(compile(text, 'tpu.ipynb', 'exec'), names)
        if 'parameters' in tags:
          names.update(
            STRATEGY='one_device',
            MORE_1=[*both, *_STAGE1],
            MORE_2=[*both, *_STAGE2],
          )
    locks = ('requirements-tpu.lock', 'requirements-data.lock')
    self.assertEqual(self._commands[-6:], [*locks, 'check_device', *_RUN_HERE])
    self.assertEqual(
      self._shown, ['tokenizer/samples', 'vim/samples', 'runs/samples']
    )


if __name__ == '__main__':
  absltest.main()
