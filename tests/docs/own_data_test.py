"""Walks through docs/own_data.md: its commands, in their order, made short."""

import contextlib
import json
import os
import pathlib
import re
import shlex
import tempfile
from unittest import mock

from absl.testing import absltest
import numpy as np
import PIL.Image
import tensorflow as tf

from export import saved_model, signatures
from tests import programs, testing
from tests.experiments import running
from tests.export import served
from vim_tf.training import workdir as workdir_lib

_PAGE = programs.ROOT / 'docs' / 'own_data.md'

_TRAINING = {'steps': 5, 'batch_size': 4, 'eval_examples': 4}
_ADDED = {
  'train_vit_vqgan': _TRAINING,
  'train_vim': _TRAINING,
  'train_probe': {'preset': 'tiny', 'steps': 5, 'passes': 1, 'num_l2': 2},
  'evaluate --job=reconstruction': {'network': '', 'perceptual': 'false'},
  'evaluate --job=likelihood': {'passes': 1},
}
"""What makes a program short, unless the page gives the flag itself."""
_LOWERED = {
  'preset': 'tiny',
  **{'steps': 7, 'decay_end': 7},  # Longer than those above.
  **{'revival_steps': 2, 'count': 1, 'num_seeds': 1},
  **{'perceptual_start_step': 2, 'adversarial_start_step': 2},
}
"""What flags that the page gives are lowered to."""
_WITHOUT_END = 'serve'
_EXPORTED = ('sampler',)  # Of the others, what comes before the graph.


def _commands() -> list[list[str]]:
  """The words of each command in the page's shell blocks."""
  blocks = re.findall(r'(?s)```sh\n(.*?)```', _PAGE.read_text())
  lines = '\n'.join(blocks).replace('\\\n', ' ')
  return [
    shlex.split(os.path.expandvars(text))
    for text in re.split(r'\n(?=\./bazelw|curl)', lines)
  ]


def _shorten(name: str, words: list[str]) -> list[str]:
  given = dict(word.removeprefix('--').split('=', 1) for word in words)
  key = f'{name} --job={given["job"]}' if 'job' in given else name
  goes_on = set(given) <= {'workdir', 'steps', 'decay_end'}
  added = {} if goes_on else _ADDED.get(key, {})
  lowered = {flag: x for flag, x in _LOWERED.items() if flag in given}
  if 'adversarial_start_step' in given:
    added = {**added, 'perceptual_weight': 0.1, 'adversarial_weight': 0.1}
  flags = {**added, **given, **lowered}
  return [f'--{flag}={value}' for flag, value in flags.items()]


def _run(label: str, words: list[str]):
  """Runs a program in this process; raises if it fails."""
  folder, _, name = label.removeprefix('//').partition(':')
  arguments = _shorten(name, words)
  if folder == 'export':
    with contextlib.ExitStack() as stack:
      if name not in _EXPORTED:
        stack.enter_context(mock.patch.object(saved_model, 'write'))
        stack.enter_context(
          mock.patch.object(signatures.SignatureModule, 'add')
        )
      status, error = served.run(name, *arguments)
  else:
    result = running.Binary(name).run(*arguments, folder=os.getcwd())
    status, error = result.status, result.error
  assert status == 0, f'{label} {arguments}\n{error}'


def _make_folder(folder: pathlib.Path):
  """Photographs, and what else there is in a phone's folder."""
  exif = PIL.Image.Exif()
  exif[0x0112] = 6
  for first, kind in enumerate(('cats', 'dogs')):
    (folder / kind).mkdir(parents=True)
    for number in range(1, 41):
      random = np.random.default_rng(100 * first + number)
      image = PIL.Image.fromarray(random.integers(0, 256, [5, 6, 3], np.uint8))
      image = image.resize((48 + number, 40))
      image.save(folder / kind / f'{number:04}.jpg', exif=exif)
    image.save(folder / kind / 'Grüße aus Rom (1).WEBP')
    image.convert('CMYK').save(folder / kind / 'print.JPG')
  (folder / 'dogs' / 'film.MOV').write_bytes(b'\0\0\0\x14ftypqt  ')
  (folder / '.DS_Store').write_bytes(b'\0')


class OwnDataTest(absltest.TestCase):
  def test_the_page_from_photographs_to_exports(self):
    self.enter_context(testing.eagerly())
    home = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    self.enter_context(mock.patch.dict(os.environ, {'HOME': str(home)}))
    self.enter_context(programs.inside(home))
    _make_folder(home / 'Pictures' / 'my photos')
    for words in _commands():
      if words[0] == 'curl':
        request = json.loads(words[-1])
      elif not words[2].endswith(_WITHOUT_END):
        self.assertEqual((*words[:2], words[3]), ('./bazelw', 'run', '--'))
        with self.subTest(' '.join(words)):
          _run(words[2], words[4:])
    record = workdir_lib.read(home / 'runs' / 'tokenizer')
    self.assertEqual(record['changes'][-1]['setting'], 'run.num_steps')
    rows = workdir_lib.read_metrics(home / 'runs' / 'tokenizer')
    self.assertGreater(rows[-1]['step'], record['changes'][-1]['old'])
    record = workdir_lib.read(home / 'runs' / 'vim')
    self.assertEqual(record['class_names'], ['cats', 'dogs'])
    self.assertLen(list((home / 'photos').rglob('*.*')), 84)
    self.assertTrue((home / 'samples' / 'completed' / 'grid.png').exists())
    sampler = tf.saved_model.load(str(home / 'exports' / 'sampler' / '1'))
    signature = sampler.signatures['serving_default']
    kinds = signature.structured_input_signature[1]
    answer = signature(
      **{
        name: tf.constant(values, kinds[name].dtype)
        for name, values in request['inputs'].items()
      }
    )
    image = tf.io.decode_png(answer['png_bytes'][0])
    self.assertEqual(image.shape, [16, 16, 3])


if __name__ == '__main__':
  absltest.main()
