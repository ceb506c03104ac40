"""Tests of the report: whole, self-contained, escaped, and honest in words."""

import base64
import html.parser
import io
import json
import pathlib
import urllib.parse
import xml.etree.ElementTree

from absl.testing import absltest, parameterized
import numpy as np
from PIL import Image

from experiments.quickstart import report as report_lib
from experiments.quickstart import report_text as words
from vim_tf.jobs import curves

_FIGURES = {
  'tokenizer': {
    'psnr': 17.725,
    'kmeans_psnr': 16.5,
    'usage': np.float32(0.843),
    'codebook_size': 1024,
    'train_images': 1718,
    'steps': np.int64(1500),
  },
  'vim': {
    'bits_per_code': 3.0,
    'order0_bits_per_code': 8.0,
    'order1_bits_per_code': 6.0,
    'sampling': {'temperature': 0.9, 'top_k': 0, 'top_p': 0.95, 'seed': 7},
  },
  'probe': {'top1': 0.613, 'pixels': 0.402, 'peak': 'It is highest inside.'},
  'seconds': {'tokenizer': 500.0, 'total': 901.8},
  'machine': {'cpu': 'a CPU', 'cores': 2},
}
_ROWS = [
  {'step': 10, 'loss': 2.0, 'bits_per_code': 2.9},
  {'step': 20, 'loss': 1.0, 'bits_per_code': 1.4},
  {'step': 20, 'eval/bits_per_code': 1.6},
]


def _images(count, seed=0, size=8):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, [count, size, size, 3], dtype=np.uint8)


def _report(**changes):
  values = {
    'title': 'a trial',
    'budget': 'short',
    'figures': _FIGURES,
    'reconstructions': _images(1, 1, 24)[0],
    'kmeans': _images(1, 2, 24)[0],
    'samples': {'Flags': _images(3, 3), 'Food & Drink': _images(3, 4)},
    'curves': {},
    'licence': 'Made up (https://example.org), CC0',
  }
  return report_lib.Report(**{**values, **changes})


class _Page(html.parser.HTMLParser):
  """Tags with their attributes, and the text between them."""

  def __init__(self, text):
    super().__init__()
    self.tags = []
    self.text = ''
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_data(self, data):
    self.text += data

  def all(self, name):
    return [attributes for tag, attributes in self.tags if tag == name]


class ReportTest(parameterized.TestCase):
  def _write(self, **changes):
    folder = pathlib.Path(self.create_tempdir()) / 'a' / 'run'
    report_lib.write(_report(**changes), folder)
    text = (folder / 'report.html').read_text()
    return folder, text, _Page(text)

  def test_files(self):
    folder, _, _ = self._write()
    self.assertSameElements(
      [path.name for path in folder.iterdir()],
      [
        'report.html',
        'report.json',
        'samples.png',
        'reconstructions.png',
        'curves.png',
      ],
    )
    figures = json.loads((folder / 'report.json').read_text())
    self.assertEqual(figures['tokenizer']['steps'], 1500)
    self.assertAlmostEqual(figures['tokenizer']['usage'], 0.843, places=6)
    self.assertEqual(figures['vim'], _FIGURES['vim'])

  def test_selected_samples(self):
    figures = {
      **_FIGURES,
      'vim': {
        **_FIGURES['vim'],
        'acceptance': 0.1,
        'recognised_selected': 0.75,
        'recognised_samples': 0.5,
        'recognised_held_out': 0.8,
      },
    }
    folder, _, page = self._write(
      figures=figures, selected={'Flags': _images(2, 5)}
    )
    with Image.open(folder / 'selected.png') as picture:
      # Two pictures of 8 pixels, each enlarged 16 times.
      self.assertGreater(picture.width, 2 * 128)
    text = ' '.join(page.text.split())
    for part in (
      'a classifier kept the 10 % that it was surest of',
      'recognises 75.0 % of them, 50.0 % of the first ones below, and 80.0 %',
    ):
      self.assertIn(part, text)
    described = [tag['alt'] for tag in page.all('img')]
    self.assertIn('Selected sample 2 of the class Flags', described)
    self.assertIn('Sample 3 of the class Flags', described)

  def test_probe(self):
    panel = curves.Panel(
      'Accuracy',
      '%',
      [curves.Line('VIM', [0, 1, 2], [50.0, 61.3, 55.0], [1.0, 0.5, 2.0])],
      {'raw pixels': 40.2},
      axis='block, from 0',
    )
    _, _, page = self._write(panels={'Linear probe': [panel]})
    for text in (
      'tells the class of 61.3 % of the held-out images',
      'on their raw pixels, of 40.2 %',
      'It is highest inside.',
    ):
      self.assertIn(text, page.text)
    described = [tag['alt'] for tag in page.all('img')]
    self.assertIn(
      'Accuracy, %: VIM from 50 at place 0 to 55 at place 2; raw pixels at '
      '40.2.',
      described,
    )

  def test_page_needs_nothing_from_outside(self):
    _, text, page = self._write(curves={'VIM': _ROWS})
    loaded = [tag['src'] for tag in page.all('img')]
    loaded += [tag['srcset'] for tag in page.all('source')]
    self.assertNotEmpty(loaded)
    for uri in loaded:
      self.assertStartsWith(uri, 'data:image/')
    for tag in ('script', 'link', 'iframe', 'object'):
      self.assertEmpty(page.all(tag))
    self.assertNotIn('url(', text)
    self.assertNotIn('@import', text)

  def test_curves_are_pictures_that_refer_to_nothing_outside(self):
    _, _, page = self._write(curves={'VIM': _ROWS})
    count = 0
    for tag in page.all('img') + page.all('source'):
      kind, _, content = tag.get('src', tag.get('srcset')).partition(',')
      if 'svg' not in kind:
        continue
      count += 1
      root = xml.etree.ElementTree.fromstring(base64.b64decode(content))
      self.assertEndsWith(root.tag, 'svg')
      for node in root.iter():
        for name, value in node.attrib.items():
          if name.endswith('href'):
            self.assertStartsWith(value, '#')
    self.assertEqual(count, 4)  # Loss and bits, for light and for dark.

  def test_page_carries_the_samples_bit_by_bit(self):
    samples = {'Flags': _images(3, 3), 'Food & Drink': _images(2, 4)}
    _, _, page = self._write(samples=samples)
    for name, images in samples.items():
      shown = [
        _decode(tag['src'])
        for tag in page.all('img')
        if tag['alt'].endswith(f'the class {name}')
      ]
      np.testing.assert_array_equal(shown, images)

  def test_every_picture_has_a_text(self):
    _, _, page = self._write(curves={'VIM': _ROWS})
    for tag in page.all('img'):
      self.assertGreater(len(tag['alt']), 10)
    self.assertEqual(page.all('html')[0]['lang'], 'en')

  def test_everything_is_escaped(self):
    evil = '<script>alert("x")</script>$\\frac'
    _, text, page = self._write(
      title=evil,
      budget=evil,
      figures={evil: {evil: evil}, 'machine': {'cpu': evil}, 'loose': evil},
      samples={evil: _images(2)},
      curves={evil: _ROWS},
      licence=f'{evil} javascript:alert(1) https://example.org/"x',
    )
    self.assertEmpty(page.all('script'))
    self.assertNotIn('<script', text)
    self.assertIn(f'Sample 1 of the class {evil}', page.all('img')[0]['alt'])
    for tag in page.all('a'):
      self.assertEqual(urllib.parse.urlsplit(tag['href']).scheme, 'https')

  def test_comparisons_are_in_the_page(self):
    _, _, page = self._write()
    text = ' '.join(page.text.split())
    self.assertIn('+1.23 dB', text)
    self.assertIn('1.23 dB above a k-means codebook', text)
    self.assertIn('84.3 %', text)
    self.assertIn('in 50 % of the bits', text)
    self.assertIn('15 min 2 s', text)
    self.assertIn('1,718 pictures', text)
    self.assertIn('temperature 0.9, top p 0.95, seed 7', text)
    self.assertIn('Made up (https://example.org), CC0', text)

  def test_a_tokenizer_that_loses_is_said_to_lose(self):
    figures = {'tokenizer': {'psnr': 15.0, 'kmeans_psnr': 16.5}}
    _, _, page = self._write(figures=figures)
    text = ' '.join(page.text.split())
    self.assertIn('1.50 dB below a k-means codebook', text)
    self.assertIn('−1.50 dB', text)

  @parameterized.parameters(
    {'figures': {}},
    {'figures': {'tokenizer': {'psnr': None, 'usage': float('nan')}}},
    {'figures': {'vim': {'bits_per_code': 'unknown', 'sampling': 'greedy'}}},
    {'figures': {'vim': {'bits_per_code': 1.0, 'order1_bits_per_code': 0.0}}},
    {'figures': {'seconds': {'total': 0}}},
    {'curves': {'VIM': []}},
    {'curves': {'VIM': [{'step': 1, 'loss': float('nan'), 'eval/x': None}]}},
    {'samples': {}},
    {'samples': {'Flags': _images(0)}},
    {'licence': ''},
  )
  def test_what_is_missing_is_left_out(self, **changes):
    folder, text, _ = self._write(**changes)
    self.assertEndsWith(text.strip(), '</html>')
    json.loads((folder / 'report.json').read_text(), parse_constant=self.fail)

  def test_unknown_figures_are_shown(self):
    figures = {
      'vim': {'top_5_accuracy': 0.123456},
      'power': {'watts': [1500, 2]},
      'remark': 'on a train',
    }
    _, _, page = self._write(figures=figures)
    for text in ('Top 5 accuracy', '0.1235', 'Power', '1,500, 2', 'on a train'):
      self.assertIn(text, page.text)

  def test_sheet_shows_every_sample_enlarged(self):
    samples = {'A': _images(2, 0, 64), 'B': _images(2, 1, 64)}
    sheet = report_lib.sample_sheet(samples)
    for images in samples.values():
      for image in images:
        large = image.repeat(2, axis=0).repeat(2, axis=1)
        rows, columns = np.nonzero((sheet == large[0, 0]).all(axis=-1))
        found = [
          np.array_equal(sheet[y : y + 128, x : x + 128], large)
          for y, x in zip(rows, columns)
        ]
        self.assertEqual(sum(found), 1)

  def test_sheet_makes_room_for_long_names(self):
    short = report_lib.sample_sheet({'A': _images(1)})
    long = report_lib.sample_sheet({'A' * 60: _images(1)})
    self.assertGreater(long.shape[1], short.shape[1] + 300)
    self.assertEqual(long.shape[0], short.shape[0])

  def test_commands_fit_the_folder(self):
    _, _, page = self._write()
    self.assertIn('quickstart -- --budget=long', page.text)
    folder, _, page = self._write(budget='long')
    self.assertNotIn('--budget=long', page.text)
    self.assertIn(f'//tools:tensorboard -- --logdir={folder}', page.text)

  def test_same_report_same_page(self):
    folder = pathlib.Path(self.create_tempdir())
    pages = []
    for _ in range(2):
      report_lib.write(_report(curves={'VIM': _ROWS}), folder)
      pages.append((folder / 'report.html').read_bytes())
    self.assertEqual(*pages)

  @parameterized.parameters(
    {'kmeans': np.zeros([8, 8, 3], np.float32)},
    {'reconstructions': np.zeros([8, 8], np.uint8)},
    {'samples': {'Flags': np.zeros([8, 8, 3], np.uint8)}},
  )
  def test_refuses_what_is_no_picture(self, **changes):
    folder = pathlib.Path(self.create_tempdir()) / 'run'
    with self.assertRaisesRegex(ValueError, 'must be uint8 '):
      report_lib.write(_report(**changes), folder)
    self.assertFalse(folder.exists())


class WordsTest(parameterized.TestCase):
  @parameterized.parameters(
    (9.54, '9.5 s'),
    (60, '1 min 0 s'),
    (901.8, '15 min 2 s'),
    (5400, '1 h 30 min'),
  )
  def test_duration(self, seconds, text):
    self.assertEqual(words.duration(seconds), text)

  @parameterized.parameters(
    (1234567, '1,234,567'),
    (0.000012345, '1.234e-05'),
    (True, 'True'),
    (None, '–'),
    (['a', 1], 'a, 1'),
    ({'top_k': 100}, 'top k 100'),
  )
  def test_plain(self, value, text):
    self.assertEqual(words.plain(value), text)

  def test_complete_keeps_what_was_measured(self):
    figures = {'tokenizer': {'psnr': 2.0, 'kmeans_psnr': 1.0, 'psnr_gain': 3.0}}
    self.assertEqual(words.complete(figures), figures)
    self.assertEqual(
      words.complete({'vim': _FIGURES['vim']})['vim']['share_of_order1'], 0.5
    )
    self.assertNotIn('share_of_order1', _FIGURES['vim'])


def _decode(uri):
  content = base64.b64decode(uri.partition(',')[2])
  return np.asarray(Image.open(io.BytesIO(content)))


if __name__ == '__main__':
  absltest.main()
