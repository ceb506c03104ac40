"""Walks through docs/own_data.md: its commands, in their order, made short."""

import json
import pathlib
import shlex
import tempfile

from absl.testing import absltest
import numpy as np
import PIL.Image
import tensorflow as tf

from tests import testing
from tests.docs import elsewhere, pages, walk
from vim_tf.training import workdir as workdir_lib

_PAGE = 'docs/own_data.md'


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
    self.enterContext(testing.eagerly())
    root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    walking = walk.Walk(root)
    home = walking.folder(_PAGE)
    _make_folder(home / 'Pictures' / 'my photos')
    text = (pages.ROOT / _PAGE).read_text()
    ran, asked = [], []
    for command in pages.of_document(_PAGE, text):
      if command.text.startswith('curl -s http://127.0.0.1'):
        asked.append(json.loads(shlex.split(command.text)[-1]))
      elif elsewhere.find(command).test == elsewhere.OWN_DATA:
        with self.subTest(str(command)):
          self.assertTrue(walking.run(command))
        ran.append(command.name)
    self.assertEqual(
      ran,
      [
        'prepare_images',
        'train_vit_vqgan',
        'evaluate',
        'train_vit_vqgan',
        'train_vit_vqgan',
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
    record = workdir_lib.read(home / 'runs' / 'tokenizer')
    self.assertEqual(record['changes'][-1]['setting'], 'run.num_steps')
    rows = workdir_lib.read_metrics(home / 'runs' / 'tokenizer')
    self.assertGreater(rows[-1]['step'], record['changes'][-1]['old'])
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
