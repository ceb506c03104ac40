"""Tests of the report: its figures, its pictures, and that it is safe."""

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
from vim_tf.jobs import curves

_FIGURES = {
  'tokenizer': {
    'psnr': 17.725,
    'kmeans_psnr': 16.5,
    'usage': 0.843,
    'codebook_size': 1024,
    'steps': 1500,
  },
  'vim': {
    'bits_per_code': 3.0,
    'order0_bits_per_code': 8.0,
    'order1_bits_per_code': 6.0,
    'share_of_order1': 0.5,
    'sampling': {'temperature': 0.9, 'top_k': 0, 'top_p': 0.95, 'seed': 7},
    'top_5_accuracy': 0.123456,
  },
  'probe': {'top1': 0.613, 'pixels': 0.402},
  'seconds': {'tokenizer': 500.0, 'total': 901.8},
  'machine': {'cpu': 'a CPU', 'cores': 2},
}
_ROWS = [
  {'step': 10, 'loss': 2.0, 'bits_per_code': 2.9},
  {'step': 20, 'loss': 1.0, 'bits_per_code': 1.4},
  {'step': 20, 'eval/bits_per_code': 1.6},
]
_PANEL = curves.Panel(
  'Accuracy', '%', [curves.Line('VIM', [0, 1], [50, 61])], {}
)


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
    'selected': {'Flags': _images(2, 5)},
    'curves': {'VIM': _ROWS},
    'panels': {'Linear probe': [_PANEL]},
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
    names = {path.name for path in folder.iterdir()}
    pictures = {'samples', 'selected', 'reconstructions', 'curves'}
    self.assertEqual(
      names, {'report.html', 'report.json', *(f'{x}.png' for x in pictures)}
    )
    figures = json.loads((folder / 'report.json').read_text())
    self.assertEqual(figures['tokenizer']['steps'], 1500)
    self.assertAlmostEqual(figures['tokenizer']['usage'], 0.843, places=6)
    self.assertEqual(figures['vim'], _FIGURES['vim'])
    pages = [(folder / 'report.html').read_bytes()]
    report_lib.write(_report(), folder)  # The same report, the same page.
    self.assertEqual([(folder / 'report.html').read_bytes()], pages)

  def test_the_page_carries_its_pictures(self):
    samples = {'Flags': _images(3, 3), 'Food & Drink': _images(2, 4)}
    _, text, page = self._write(samples=samples, selected={})
    for name, images in samples.items():
      shown = [
        _decode(tag['src'])
        for tag in page.all('img')
        if tag['alt'].endswith(f'the class {name}')
      ]
      np.testing.assert_array_equal(shown, images)
    loaded = [tag['src'] for tag in page.all('img')]
    loaded += [tag['srcset'] for tag in page.all('source')]
    for uri in loaded:
      self.assertStartsWith(uri, 'data:image/')
    drawn = [uri.partition(',')[2] for uri in loaded if 'svg' in uri[:20]]
    self.assertLen(drawn, 6)  # Loss, bits and probe, for light and for dark.
    for content in drawn:
      root = xml.etree.ElementTree.fromstring(base64.b64decode(content))
      for node in root.iter():
        for name, value in node.attrib.items():
          if name.endswith('href'):
            self.assertStartsWith(value, '#')
    for tag in ('script', 'link', 'iframe', 'object'):
      self.assertEmpty(page.all(tag))
    self.assertNotIn('url(', text)
    self.assertNotIn('@import', text)
    self.assertTrue(all(tag['alt'] for tag in page.all('img')))

  def test_everything_is_escaped(self):
    evil = '<script>alert("x")</script>$\\frac'
    _, text, page = self._write(
      title=evil,
      budget=evil,
      figures={**_FIGURES, 'machine': {'cpu': evil, evil: evil}},
      samples={evil: _images(2)},
      curves={evil: _ROWS},
      licence=f'{evil} javascript:alert(1) https://example.org/"x',
    )
    self.assertEmpty(page.all('script'))
    self.assertNotIn('<script', text)
    for tag in page.all('a'):
      self.assertEqual(urllib.parse.urlsplit(tag['href']).scheme, 'https')

  @parameterized.parameters(
    {'curves': {'VIM': []}},
    {'curves': {'VIM': [{'step': 1, 'loss': float('nan'), 'eval/x': None}]}},
    {'samples': {'Flags': _images(0)}},
    {'licence': ''},
  )
  def test_what_is_missing_is_left_out(self, **changes):
    folder, text, _ = self._write(**{'curves': {}, 'panels': {}, **changes})
    self.assertEndsWith(text.strip(), '</html>')
    json.loads((folder / 'report.json').read_text(), parse_constant=self.fail)

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
    longer = report_lib.sample_sheet({'A' * 60: samples['A']})
    self.assertGreater(longer.shape[1], sheet.shape[1] + 300)


def _decode(uri):
  content = base64.b64decode(uri.partition(',')[2])
  return np.asarray(Image.open(io.BytesIO(content)))


if __name__ == '__main__':
  absltest.main()
