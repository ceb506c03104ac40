"""Tests of the curves: which panels there are, and what they say."""

import io
import math
import xml.etree.ElementTree

from absl.testing import absltest
from PIL import Image

from vim_tf.jobs import curves

_ROWS = (
  {
    'step': 10,
    'loss': 3.0,
    'l2': 0.5,
    'gradient_norm': 1.0,
    'discriminator/gradient_norm': 2.0,
    'discriminator/real_logits': 0.4,
    'discriminator/fake_logits': -0.6,
    'discriminator/accuracy': 0.9,
  },
  {'step': 20, 'loss': 2.0, 'l2': 0.25, 'codebook': 0.1, 'commitment': 0.1},
  {'step': 20, 'eval/l2': 0.3, 'eval/mean_psnr': 12.0},
  {'step': 30, 'loss': float('nan'), 'perceptual': 0.2},
)


class CurvesTest(absltest.TestCase):
  def test_panels_of_the_tokenizer(self):
    rows = [
      {'step': 10, 'loss': 0.5, 'l1': 0.1},
      {'step': 10, 'eval/mean_psnr': 12.0, 'eval/usage': 0.25, 'eval/l1': 0.2},
    ]
    panels = curves.panels(rows, {'eval/mean_psnr': {'k-means': 11.0}})
    self.assertEqual(
      [panel.title for panel in panels],
      ['Training loss', 'PSNR', 'Codebook usage'],
    )
    self.assertEqual(panels[1].references, {'k-means': 11.0})
    self.assertEqual(panels[2].lines[0].values, [25.0])
    self.assertEqual(panels[2].unit, 'codes in use, %')

  def test_training_and_held_out_bits_share_axes(self):
    rows = [
      {'step': 10, 'loss': 2.0, 'bits_per_code': 2.9},
      {'step': 20, 'eval/bits_per_code': 1.6},
    ]
    loss, bits = curves.panels(rows)
    self.assertEqual(loss.unit, 'nats per code')
    self.assertEqual(
      [(line.name, line.values) for line in bits.lines],
      [('training batches', [2.9]), ('held-out images', [1.6])],
    )

  def test_every_metric_has_its_place(self):
    found = curves.all_panels(_ROWS)
    self.assertEqual(
      {title: [p.title for p in group] for title, group in found.items()},
      {
        '1': [
          'codebook',
          'commitment',
          'discriminator/accuracy',
          'discriminator/fake logits',
        ],
        '2': [
          'discriminator/gradient norm',
          'discriminator/real logits',
          'gradient norm',
          'l2',
        ],
        '3': ['loss', 'mean psnr', 'perceptual'],
      },
    )
    l2, loss = found['2'][-1], found['3'][0]
    self.assertEqual(
      [(line.name, line.steps, line.values) for line in l2.lines],
      [
        ('training batches', [10, 20], [0.5, 0.25]),
        ('held-out images', [20], [0.3]),
      ],
    )
    self.assertEqual(loss.lines[0].values, [3.0, 2.0])  # NaN is not drawn.

  def test_values_that_cannot_be_drawn_are_left_out(self):
    rows = [
      {'step': 3, 'loss': 1.0},
      {'step': 1, 'loss': 3.0},
      {'step': 2, 'loss': math.nan},
      {'step': 4, 'loss': None},
      {'loss': 9.0},
    ]
    (panel,) = curves.panels(rows, {'loss': {'none': None}})
    self.assertEqual(panel.lines[0].steps, [1, 3])
    self.assertEqual(panel.lines[0].values, [3.0, 1.0])
    self.assertEmpty(panel.references)
    self.assertIn('from 3 at step 1 to 1 at step 3', panel.describe())

  def test_svg_has_labels_and_the_palette(self):
    rows = [{'step': step, 'eval/mean_psnr': 10.0 + step} for step in (1, 2)]
    (panel,) = curves.panels(rows, {'eval/mean_psnr': {'a $ line': 11.0}})
    for palette in (curves.LIGHT, curves.DARK):
      text = curves.svg(panel, palette).decode()
      root = xml.etree.ElementTree.fromstring(text)
      labels = [''.join(x.itertext()) for x in root.iter() if 'text' in x.tag]
      for label in ('training steps', 'PSNR in dB', 'PSNR', 'a $ line'):
        self.assertIn(label, labels)
      self.assertIn(palette.accent, text)
      self.assertIn(palette.paper, text)

  def test_png_has_a_row_a_stage(self):
    panels = curves.panels([{'step': 1, 'loss': 1.0}, {'step': 2, 'loss': 0.5}])
    sizes = [
      Image.open(io.BytesIO(curves.png(stages))).size
      for stages in ({'a': panels}, {'a': panels, 'b': panels, 'none': []}, {})
    ]
    self.assertEqual(sizes[1], (sizes[0][0], 2 * sizes[0][1]))
    self.assertEqual(sizes[2], sizes[0])


if __name__ == '__main__':
  absltest.main()
