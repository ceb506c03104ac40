"""A tokenizer, a VIM on it and samples, by the programs, for several tests."""

import functools
import pathlib

from absl.testing import parameterized
import numpy as np
from PIL import Image
import tensorflow as tf

from tests import testing
from tests.experiments import running

CLASSES = ('circles', 'stripes')
STEPS = 4
SAMPLES = 3
SMALL = ('--batch_size=4', '--log_every=1', '--checkpoint_every=2')


def make_images(folder: pathlib.Path):
  """Fourteen images of each of two classes."""
  rng = np.random.default_rng(0)
  for name in CLASSES:
    (folder / name).mkdir(parents=True)
    for i in range(14):
      pixels = rng.integers(0, 256, [5, 5, 3], np.uint8)
      image = Image.fromarray(pixels.repeat(4, axis=0).repeat(4, axis=1))
      image.save(folder / name / f'{i}.png')


@functools.cache
def _runs() -> tuple[pathlib.Path, list[running.Result]]:
  """Where they are, and how the programs ended; made once a process."""
  root = testing.new_folder('trained')
  make_images(root / 'images')
  programs = Programs(root)
  results = [
    programs.stage1(f'--workdir={root / "tokenizer"}'),
    programs.stage2(f'--workdir={root / "vim"}'),
    programs.sample(
      f'--out={root / "samples"}', '--top_p=0.9', '--guidance_scale=2'
    ),
  ]
  for result in results:
    assert result.status == 0, result.error
  return root, results


class Programs:
  """The programs with the flags of those runs.

  Args:
    root: Where the runs are.
  """

  def __init__(self, root: pathlib.Path):
    self.binaries = {
      name: running.Binary(name)
      for name in ('train_vit_vqgan', 'train_vim', 'sample')
    }
    self._stage1_flags = (
      '--preset=tiny',
      f'--data=folder:{root / "images"}',
      '--codebook_size=24',
      '--set=model.encoder.num_blocks=1',
      '--set=model.decoder.num_blocks=1',
      '--init_from_data=false',  # A first step of a kind of its own.
      f'--steps={STEPS}',
      *SMALL,
    )
    # Neither the data nor sizes, which the tokenizer tells.
    self._stage2_flags = (
      '--preset=tiny',
      f'--tokenizer={root / "tokenizer"}',
      '--set=model.transformer.num_blocks=1',
      f'--steps={STEPS}',
      *SMALL,
    )
    self._sample_flags = (f'--workdir={root / "vim"}', f'--count={SAMPLES}')

  def stage1(self, *arguments: str) -> running.Result:
    return self.binaries['train_vit_vqgan'].run(*self._stage1_flags, *arguments)

  def stage2(self, *arguments: str) -> running.Result:
    return self.binaries['train_vim'].run(*self._stage2_flags, *arguments)

  def sample(self, *arguments: str) -> running.Result:
    return self.binaries['sample'].run(*self._sample_flags, *arguments)


class TestCase(running.Refused, parameterized.TestCase, tf.test.TestCase):
  """A test of the programs, op by op."""

  leaves_folder = True

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    # Of the trainings others test that they can be traced.
    cls.enter_context(testing.eagerly())
    cls.root, cls.results = _runs()
    cls.programs = Programs(cls.root)
    cls.binaries = cls.programs.binaries
    cls.images, cls.out = cls.root / 'images', cls.root / 'samples'
    cls.tokenizer, cls.vim = cls.root / 'tokenizer', cls.root / 'vim'
