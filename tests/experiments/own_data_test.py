"""Walks through docs/own_data.md: its commands, in their order, made short."""

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

from tests.experiments import running
from tests.export import running as exporters
from vim_tf.training import workdir as workdir_lib

_PAGE = (
  pathlib.Path(os.path.realpath(__file__)).parents[2] / 'docs' / 'own_data.md'
)
_TINY = ('--preset=tiny', '--batch_size=4', '--steps=2')
_SHORTER = {
  'train_vit_vqgan': _TINY,
  'train_vim': _TINY,
  'train_probe': ('--preset=tiny', '--num_seeds=1'),
  'sample': ('--count=1',),
  '--job=reconstruction': ('--network=', '--noperceptual'),
}
"""What is added to the commands, by what they contain; the last one holds."""

# What would not end (serve_test runs it), and what differs in its length alone.
_NOT_RUN = ('serve', '--workdir=runs/longer')


def _blocks() -> list[str]:
  """The commands of the page, each in one line."""
  text = '\n'.join(re.findall(r'(?ms)^```sh\n(.*?)^```', _PAGE.read_text()))
  text = re.sub(r'\\\n\s*', ' ', text)
  return re.findall(r"(?m)^(?:\./bazelw .*|curl [^']*'[^']*')$", text)


def _photograph(seed: int, width: int, height: int) -> PIL.Image.Image:
  noise = np.random.default_rng(seed).integers(0, 256, [5, 6, 3], np.uint8)
  return PIL.Image.fromarray(noise).resize((width, height))


def _make_folder(folder: pathlib.Path):
  """Photographs, and what else there is in a phone's folder."""
  exif = PIL.Image.Exif()
  exif[0x0112] = 6
  for first, kind in enumerate(('cats', 'dogs')):
    (folder / kind).mkdir(parents=True)
    for number in range(1, 41):
      image = _photograph(100 * first + number, 48 + number, 40)
      image.save(folder / kind / f'{number:04}.jpg', exif=exif)
    image.save(folder / kind / 'Grüße aus Rom (1).WEBP')
    image.convert('CMYK').save(folder / kind / 'print.JPG')
  (folder / 'dogs' / 'film.MOV').write_bytes(b'\0\0\0\x14ftypqt  ')
  (folder / '.DS_Store').write_bytes(b'\0')


class OwnDataTest(absltest.TestCase):
  def test_the_page_from_photographs_to_exports(self):
    home = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    _make_folder(home / 'Pictures' / 'my photos')
    self.enterContext(mock.patch.dict(os.environ, {'HOME': str(home)}))
    self.enterContext(
      mock.patch.dict(os.environ, {'BUILD_WORKING_DIRECTORY': str(home)})
    )
    ran, asked = [], []
    for block in _blocks():
      words = [os.path.expandvars(word) for word in shlex.split(block)]
      if words[0] == 'curl':
        asked.append(json.loads(words[-1]))
        continue
      folder, _, name = words[2].removeprefix('//').partition(':')
      arguments = [name, *words[4:]]
      if set(arguments) & set(_NOT_RUN):
        continue
      for part in list(arguments):
        arguments += _SHORTER.get(part, ())
      del arguments[0]
      with self.subTest(block):
        if folder == 'export':
          status, error = exporters.run(name, *arguments)
        else:
          result = running.Binary(name).run(*arguments, folder=str(home))
          status, error = result.status, result.error
        self.assertEqual(status, 0, error)
      ran.append(name)
    self.assertEqual(
      ran,
      [
        'prepare_images',
        'train_vit_vqgan',
        'evaluate',
        'train_vim',
        'sample',
        'sample',
        'evaluate',
        'train_probe',
        'tokenizer',
        'sampler',
        'probe',
      ],
    )
    record = workdir_lib.read(home / 'runs' / 'vim')
    self.assertEqual(record['class_names'], ['cats', 'dogs'])
    self.assertLen(list((home / 'photos').rglob('*.*')), 84)
    self.assertTrue((home / 'samples' / 'completed' / 'grid.png').exists())
    (request,) = asked
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
