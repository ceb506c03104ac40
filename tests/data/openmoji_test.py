"""The OpenMoji data set: classes, splits by glyph, sizes."""

import collections
import dataclasses
import io
import tempfile

from absl.testing import absltest
import numpy as np
import PIL.Image

from tests.experiments import lighter
from vim_tf.config import DataConfig
from vim_tf.data import openmoji, pipeline, sources

_TONES = ('1F3FB', '1F3FC', '1F3FD', '1F3FE', '1F3FF')


class GlyphsTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.base = openmoji.list_glyphs('base')
    cls.variants = openmoji.list_glyphs('variants')
    cls.held_out = openmoji.held_out_bases()

  def test_number_of_glyphs_by_class(self):
    counts = collections.Counter(glyph.group for glyph in self.base)
    self.assertEqual(
      counts,
      {
        'People & Body': 385,
        'Flags': 269,
        'Objects': 262,
        'Symbols': 223,
        'Travel & Places': 218,
        'Smileys & Emotion': 168,
        'Animals & Nature': 153,
        'Food & Drink': 135,
        'Activities': 85,
      },
    )
    self.assertLen(self.variants, 3773)

  def test_subgroups(self):
    subgroups = openmoji.subgroups()
    self.assertLen(subgroups, 99)
    self.assertEqual({g.subgroup for g in self.variants}, set(subgroups))
    for glyph in self.variants:
      self.assertEqual(subgroups[glyph.subgroup], glyph.group)
    found = {glyph.codepoints: glyph.subgroup for glyph in self.variants}
    expected = {  # By Unicode's emoji-test.txt: first, inner and last ones.
      '1F600': 'face-smiling',
      '1F972': 'face-affection',
      '2764-FE0F': 'heart',
      '1F44D-1F3FD': 'hand-fingers-closed',
      '1F980': 'food-marine',
      '1F34E': 'food-fruit',
      '1F697': 'transport-ground',
      '1F567': 'time',
      '1F1FF-1F1FC': 'country-flag',
      '1F3F4-E0067-E0062-E0077-E006C-E0073-E007F': 'subdivision-flag',
    }
    self.assertEqual({key: found[key] for key in expected}, expected)

  def test_only_variants_have_skin_tones(self):
    def toned(glyph):
      return any(tone in glyph.codepoints.split('-') for tone in _TONES)

    self.assertFalse(any(map(toned, self.base)))
    self.assertTrue(
      all(map(toned, (g for g in self.variants if g.codepoints != g.base)))
    )

  def test_every_class_holds_out_the_same_share(self):
    self.assertBetween(len(self.held_out), 175, 190)
    counts = collections.Counter(glyph.group for glyph in self.base)
    held = collections.Counter(
      glyph.group for glyph in self.base if glyph.base in self.held_out
    )
    for group, count in counts.items():
      self.assertAlmostEqual(held[group] / count, 180 / 1898, delta=0.015)

  def test_no_picture_is_in_both_splits(self):
    pictures = {False: set(), True: set()}
    for glyph in self.base:
      picture = openmoji.render(glyph.path, 64)
      pictures[glyph.base in self.held_out].add(picture)
    self.assertLen(pictures[True] | pictures[False], 1865)
    self.assertEmpty(pictures[True] & pictures[False])


class BuilderTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.enter_context(lighter.drawings())
    cls.data = {}
    cls.folder = tempfile.mkdtemp(dir=absltest.get_default_test_tmpdir())
    for variant in openmoji.VARIANTS:
      builder = openmoji.OpenMoji(
        config=openmoji.make_config(variant, 20), data_dir=cls.folder
      )
      builder.download_and_prepare()
      cls.builder = builder
      for split in ('train', 'validation'):
        cls.data[variant, split] = list(
          builder.as_dataset(split=split).as_numpy_iterator()
        )

  def test_splits_are_disjoint_by_glyph(self):
    bases = {
      glyph.codepoints: glyph.base for glyph in openmoji.list_glyphs('variants')
    }
    seen = {
      key: {bases[example['codepoints'].decode()] for example in examples}
      for key, examples in self.data.items()
    }
    self.assertEmpty(seen['variants', 'train'] & seen['variants', 'validation'])
    for split in ('train', 'validation'):
      self.assertEqual(seen['base', split], seen['variants', split])
    self.assertEqual(
      seen['base', 'train'] | seen['base', 'validation'], {*bases.values()}
    )

  def test_glyphs_of_examples(self):
    found = openmoji.read_glyphs(self.builder, 'validation')
    shown = [
      example['codepoints'].decode()
      for example in self.data['variants', 'validation']
    ]
    self.assertEqual([glyph.codepoints for glyph in found], shown)
    self.assertEqual({g.base for g in found}, openmoji.held_out_bases())

  def test_subgroups_as_classes(self):
    """Each picture keeps its place, its group and what may be mirrored."""
    config = DataConfig(data_dir=self.folder, image_size=20)
    fine = dataclasses.replace(config, classes_of='subgroup')
    groups, subgroups = (sources.load(c, 'validation') for c in (config, fine))
    self.assertEqual(subgroups.records, groups.records)
    self.assertEqual(subgroups.class_names, tuple(openmoji.subgroups()))
    self.assertNotEqual(subgroups.fingerprint, groups.fingerprint)
    group_of = openmoji.subgroups()
    for label, fine_label in zip(groups.labels, subgroups.labels, strict=True):
      name = subgroups.class_names[fine_label]
      self.assertEqual(groups.class_names[label], group_of[name])
      self.assertEqual(groups.flippable[label], subgroups.flippable[fine_label])

  def test_flags_and_symbols_are_never_mirrored(self):
    config = DataConfig(
      data_dir=self.folder, image_size=20, crop='center', flip=True
    )
    source = sources.load(config, 'validation')
    self.assertIn('CC BY-SA 4.0', source.licence)
    shown, labels = pipeline.evaluation_arrays(source, config)
    originals = {image.tobytes() for image in shown}
    data = pipeline.training_batches(
      source, config, batch_size=source.num_examples, seed=0
    )
    directed = [source.class_names.index(name) for name in ('Flags', 'Symbols')]
    changed = 0
    for batch in data.take(6).as_numpy_iterator():
      for image, label in zip(batch['images'], batch['labels']):
        if label in directed:
          self.assertIn(image.tobytes(), originals)
        else:
          changed += image.tobytes() not in originals
    self.assertGreater(changed, 40)
    self.assertEqual(set(labels), set(range(9)))

  def test_examples(self):
    example = next(
      example
      for split in ('train', 'validation')
      for example in self.data['base', split]
      if example['codepoints'] == b'1F1E8-1F1F3'
    )
    self.assertEqual(example['name'], b'china flag')
    self.assertEqual(openmoji.CLASS_NAMES[example['label']], 'Flags')
    image = example['image']
    self.assertEqual(image.shape, (20, 20, 3))
    np.testing.assert_array_equal(image[0, 0], [255, 255, 255])
    red, green, blue = image[10, 10].astype(int)
    self.assertGreater(red, 180)
    self.assertLess(max(green, blue), 90)

  def test_renders_any_size(self):
    path = openmoji.list_glyphs('base')[0].path
    for size in (1, 33, 256):
      image = PIL.Image.open(io.BytesIO(openmoji.render(path, size)))
      self.assertEqual(image.size, (size, size))

  def test_refuses_unknown_variants(self):
    with self.assertRaisesRegex(ValueError, "no OpenMoji 'black'"):
      openmoji.make_config('black', 64)


if __name__ == '__main__':
  absltest.main()
