"""Sources: folders good and bad, TFDS data sets in memory and streamed."""

import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized
import numpy as np
import PIL.Image
import tensorflow as tf
import tensorflow_datasets as tfds

from vim_tf import config
from vim_tf.data import errors, pipeline, sources


class _Toy(tfds.core.GeneratorBasedBuilder):
  """Images whose gray value is their number; subclasses choose features."""

  VERSION = tfds.core.Version('1.2.3')
  label: object = None

  def _info(self):
    features = {'image': tfds.features.Image(shape=(4, 6, 3))}
    if self.label is not None:
      features['label'] = self.label
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict(features)
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    return {
      'train': self._generate_examples(0, 50),
      'test': self._generate_examples(50, 61),
    }

  def _generate_examples(self, first, last):
    for number in range(first, last):
      example = {'image': np.full([4, 6, 3], number, np.uint8)}
      if self.label is not None:
        example['label'] = number % 2
        if not isinstance(self.label, tfds.features.ClassLabel):
          example['label'] = 10 + 7 * (number % 2)
      yield number, example


class NamedToy(_Toy):
  label = tfds.features.ClassLabel(names=['even', 'odd'])


class UnnamedToy(_Toy):
  label = tfds.features.ClassLabel(num_classes=2)


class NumberedToy(_Toy):
  label = tfds.features.Scalar(np.int64)


class UnlabeledToy(_Toy):
  pass


class NoImageToy(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict({'text': tfds.features.Text()}),
    )

  def _split_generators(self, dl_manager):
    raise AssertionError('Nothing may be prepared.')

  def _generate_examples(self):
    raise AssertionError('Nothing may be prepared.')


class UnreachableToy(_Toy):
  def _split_generators(self, dl_manager):
    raise ConnectionError('No route to host.\nAnd a long story.')


def _config(name: str, **settings) -> config.DataConfig:
  return config.DataConfig(name=name, image_size=4, **settings)


def _numbers(examples: tf.data.Dataset) -> list[int]:
  """The gray values of a source's images, in order."""
  return [
    int(tf.io.decode_image(example['image'])[0, 0, 0]) for example in examples
  ]


class TfdsTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.data_dir = tempfile.mkdtemp(dir=absltest.get_default_test_tmpdir())

  def load(self, name: str, split: str = 'train') -> sources.Source:
    return sources.load(_config(name, data_dir=self.data_dir), split)

  @parameterized.parameters(
    ('named_toy', ('even', 'odd')),
    ('unnamed_toy', ('class 0', 'class 1')),
    ('numbered_toy', ('class 10', 'class 17')),
    ('unlabeled_toy', ('image',)),
  )
  def test_labels(self, name, class_names):
    source = self.load(name)
    self.assertEqual(source.class_names, class_names)
    self.assertEqual(source.conditional, len(class_names) > 1)
    self.assertEqual(source.num_examples, 50)
    self.assertTrue(source.random_access)
    numbers = _numbers(source.examples())
    self.assertCountEqual(numbers, range(50))
    parity = np.array(numbers) % 2 if source.conditional else np.zeros(50)
    np.testing.assert_array_equal(source.labels, parity)
    self.assertEqual(numbers, _numbers(self.load(name).examples()))

  def test_part_of_a_split(self):
    source = self.load('named_toy', 'train[:20%]')
    self.assertEqual(source.num_examples, 10)
    self.assertLen(_numbers(source.examples()), 10)

  def test_fingerprint_tells_data_apart(self):
    prints = [
      self.load(name, split).fingerprint
      for name, split in (
        ('named_toy', 'train'),
        ('named_toy', 'test'),
        ('unnamed_toy', 'train'),
        ('named_toy', 'train[:20%]'),
      )
    ]
    self.assertLen(set(prints), len(prints))
    self.assertEqual(prints[0], self.load('named_toy').fingerprint)

  @parameterized.parameters(
    ('nothing_like_this', 'train', "There is no data set 'nothing_like_this'"),
    ('no_image_toy', 'train', 'has no images'),
    (
      'named_toy',
      'validation',
      "no split 'validation'; it has train, test: .* 'train",
    ),
    ('unreachable_toy', 'train', 'cannot be prepared .* No route to host'),
    ('a/b/c', 'train', "'a/b/c' cannot be opened"),
  )
  def test_refusals_are_one_line(self, name, split, message):
    with self.assertRaisesRegex(errors.DataError, message) as raised:
      self.load(name, split)
    self.assertNotIn('\n', str(raised.exception))

  def test_letters_and_digits_are_not_mirrored(self):
    with mock.patch.object(NamedToy, 'name', 'mnist'):
      builder = NamedToy(data_dir=self.data_dir)
      source = sources._from_builder(builder, 'mnist', 'train')
    self.assertEqual(source.flippable, (False, False))
    self.assertEqual(self.load('named_toy').flippable, (True, True))


class StreamTest(absltest.TestCase):
  """A small data set streamed as if it were a large one."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.data_dir = tempfile.mkdtemp(dir=absltest.get_default_test_tmpdir())
    builder = NamedToy(data_dir=cls.data_dir)
    builder.download_and_prepare(
      download_config=tfds.download.DownloadConfig(num_shards=5)
    )
    cls.config = _config('named_toy', data_dir=cls.data_dir, crop='center')
    with mock.patch.object(sources, 'MAX_MEMORY', 0):
      cls.source = sources.load(cls.config, 'train')
      cls.part = sources.load(cls.config, 'train[30%:70%]')

  def batches(self, count, seed=3, start_step=0, source=None, **settings):
    data = pipeline.training_batches(
      source or self.source,
      self.config,
      batch_size=8,
      seed=seed,
      start_step=start_step,
      **settings,
    )
    return list(data.take(count).as_numpy_iterator())

  def numbers(self, batches):
    gray = np.concatenate([batch['images'][:, 0, 0, 0] for batch in batches])
    return np.round(gray * 255).astype(int).tolist()

  def test_it_is_streamed_from_several_files(self):
    self.assertFalse(self.source.random_access)
    builder = NamedToy(data_dir=self.data_dir)
    self.assertGreater(builder.info.splits['train'].num_shards, 1)

  def test_streaming_calls_no_python(self):
    """The hosts of a TPU pod run input pipelines, and no Python."""

    def graph(source):
      data = pipeline.training_batches(
        source, self.config, batch_size=8, seed=3
      )
      return tf.raw_ops.DatasetToGraphV2(
        input_dataset=tf.data.experimental.to_variant(data)
      ).numpy()

    in_memory = sources.load(self.config, 'train')
    self.assertIn(b'PyFunc', graph(in_memory))
    self.assertNotIn(b'PyFunc', graph(self.source))

  def test_fixed_order_and_indices(self):
    examples = list(self.source.examples().as_numpy_iterator())
    self.assertCountEqual([int(e['index']) for e in examples], range(50))
    numbers = _numbers(self.source.examples())
    self.assertCountEqual(numbers, range(50))
    self.assertEqual(numbers, _numbers(self.source.examples()))
    self.assertEqual([e['label'] for e in examples], [n % 2 for n in numbers])

  def test_part_of_a_split_keeps_its_indices(self):
    by_index = {
      int(e['index']): e['image']
      for e in self.source.examples().as_numpy_iterator()
    }
    examples = list(self.part.examples().as_numpy_iterator())
    self.assertLen(examples, 20)
    for example in examples:
      self.assertEqual(example['image'], by_index[int(example['index'])])

  def test_every_epoch_is_another_permutation(self):
    numbers = self.numbers(self.batches(19))
    first, second, third = (numbers[50 * i : 50 * i + 50] for i in range(3))
    for epoch in (first, second, third):
      self.assertCountEqual(epoch, range(50))
    self.assertNotEqual(first, second)
    self.assertNotEqual(second, third)

  def test_order_follows_the_seed_alone(self):
    expected = self.numbers(self.batches(10))
    tf.random.set_seed(77)
    self.assertEqual(self.numbers(self.batches(10)), expected)
    self.assertNotEqual(self.numbers(self.batches(10, seed=4)), expected)

  def test_goes_on_from_any_step(self):
    everything = self.batches(16)
    for step in (6, 13):
      for ours, theirs in zip(
        self.batches(3, start_step=step), everything[step : step + 3]
      ):
        for name in ('images', 'labels', 'seeds'):
          np.testing.assert_array_equal(ours[name], theirs[name])

  def test_evaluation(self):
    batches = list(
      pipeline.evaluation_batches(self.source, self.config, batch_size=16)
    )
    self.assertLen(batches, 4)
    self.assertEqual(sum(float(tf.reduce_sum(b['mask'])) for b in batches), 50)

  def test_cannot_be_balanced(self):
    balanced = _config('named_toy', balance_classes=True)
    with self.assertRaisesRegex(errors.DataError, 'set balance_classes'):
      pipeline.training_batches(self.source, balanced, batch_size=8, seed=0)


class FolderTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.create_tempdir().full_path)

  def write(self, name: str, gray: int = 0, size=(6, 5)) -> pathlib.Path:
    path = self.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new('RGB', size, (gray, gray, gray)).save(path)
    return path

  def load(self, split: str = 'train') -> sources.Source:
    return sources.load(_config(f'folder:{self.root}'), split)

  def test_a_class_a_subfolder(self):
    for number in range(60):
      kind = 'cats' if number % 3 else 'birds'
      self.write(f'{kind}/{number}.png', number + 100 * (kind == 'cats'))
    (self.root / '.DS_Store').write_text('clutter')
    (self.root / 'README.txt').write_text('beside the classes')
    loaded = {split: self.load(split) for split in ('train', 'validation')}
    seen = []
    for source in loaded.values():
      self.assertEqual(source.class_names, ('birds', 'cats'))
      numbers = _numbers(source.examples())
      np.testing.assert_array_equal(source.labels, np.array(numbers) >= 100)
      seen += numbers
    self.assertLen(set(seen), 60)  # Disjoint, and none is lost.
    self.assertBetween(loaded['validation'].num_examples, 1, 15)
    self.assertEqual(
      loaded['train'].fingerprint, self.load('train').fingerprint
    )

  def test_images_alone_are_one_class(self):
    for number in range(5):
      self.write(f'{number}.png')
    self.assertEqual(self.load().class_names, ('image',))
    self.assertEqual(
      self.load().num_examples + self.load('validation').num_examples, 5
    )
    self.assertGreaterEqual(self.load('validation').num_examples, 1)

  def test_own_splits(self):
    for number in range(4):
      self.write(f'train/a/{number}.jpg')
      self.write(f'train/b/{number}.jpeg')
    self.write('validation/b/x.png')
    self.assertEqual(self.load().num_examples, 8)
    held_out = self.load('validation')
    self.assertEqual(held_out.class_names, ('a', 'b'))
    np.testing.assert_array_equal(held_out.labels, [1])

  def test_other_images_make_another_fingerprint(self):
    for number in range(8):
      self.write(f'{number}.png')
    before = self.load().fingerprint
    self.write('0.png', size=(60, 50))
    self.write('1.png', size=(60, 50))
    self.assertNotEqual(self.load().fingerprint, before)

  def assert_refused(self, message: str, split: str = 'train'):
    with self.assertRaisesRegex(errors.DataError, message) as raised:
      self.load(split)
    self.assertNotIn('\n', str(raised.exception))

  def test_missing_folder(self):
    self.root = self.root / 'nowhere'
    self.assert_refused('There is no folder .*nowhere')

  def test_empty_folder(self):
    self.assert_refused('has no images')

  def test_empty_class(self):
    self.write('a/0.png')
    (self.root / 'b').mkdir()
    self.assert_refused('/b has no images')

  def test_images_beside_classes(self):
    self.write('a/0.png')
    self.write('1.png')
    self.assert_refused('both beside and inside')

  def test_unknown_split(self):
    self.write('0.png')
    self.assert_refused("no split 'test'", 'test')

  def test_single_image(self):
    self.write('0.png')
    self.assert_refused('a single image')

  @parameterized.parameters('png', 'jpg')
  def test_truncated_image(self, extension):
    for number in range(20):
      noise = np.random.default_rng(0).integers(0, 256, [40, 40, 3], np.uint8)
      path = self.root / f'{number}.{extension}'
      PIL.Image.fromarray(noise).save(path)
    broken = pathlib.Path(self.load().records[3])
    encoded = broken.read_bytes()
    broken.write_bytes(encoded[: len(encoded) // 2])
    self.assert_refused(f'{broken.name} is .*broken')

  def test_text_that_claims_to_be_an_image(self):
    for number in range(20):
      self.write(f'{number}.png')
    fake = pathlib.Path(self.load().records[3])
    fake.write_text('not a picture')
    self.assert_refused(f'{fake.name} is not an image')

  def test_empty_file(self):
    for number in range(20):
      self.write(f'{number}.png')
    empty = pathlib.Path(self.load().records[0])
    empty.write_bytes(b'')
    self.assert_refused(f'{empty.name} is not an image')

  def test_stray_file_in_a_class(self):
    self.write('a/0.png')
    (self.root / 'a' / 'labels.csv').write_text('1,2')
    self.assert_refused('labels.csv is no JPEG or PNG image')

  def test_bad_files_are_counted_at_once(self):
    self.write('a/0.png')
    for name in ('b.heic', 'c.txt', 'd.gif'):
      (self.root / 'a' / name).write_text('?')
    self.assert_refused('b.heic is no JPEG or PNG.* 2 more.*prepare_images')
    for name in ('b.heic', 'c.txt', 'd.gif'):
      (self.root / 'a' / name).unlink()
    for number in range(20):
      self.write(f'a/{number}.png')
    for path in self.load().records[:4]:
      pathlib.Path(path).write_text('?')
    self.assert_refused('is not an image, or a broken one.* 3 more')

  def test_a_name_that_is_not_utf_8(self):
    for number in range(3):
      self.write(f'caf\udce9/{number}\udcff.png', 10 * number)
    source = self.load()
    self.assertRegex(source.fingerprint, '^[0-9a-f]{16}$')
    self.assertContainsSubset(_numbers(source.examples()), [0, 10, 20])
    pathlib.Path(source.records[0]).write_text('?')
    self.assert_refused(r'caf\\xe9/.\\xff.png is not an image')

  def test_what_systems_put_among_pictures_is_passed_over(self):
    for number in range(4):
      self.write(f'a/{number}.png')
      self.write(f'a/@eaDir/{number}.png/SYNOPHOTO_THUMB_M.jpg', size=(2, 2))
    self.write('__MACOSX/a/._1.png')
    self.write('@eaDir/a.png')
    for name in ('.DS_Store', 'a/Thumbs.db', 'a/desktop.ini', 'a/.picasa.ini'):
      (self.root / name).write_text('?')
    self.assertEqual(self.load().class_names, ('a',))
    count = sum(self.load(s).num_examples for s in ('train', 'validation'))
    self.assertEqual(count, 4)

  def test_large_folders_are_checked_when_read(self):
    for number in range(20):
      self.write(f'{number}.png')
    with mock.patch.object(sources.folders, 'MAX_CHECKED_FILES', 5):
      broken = pathlib.Path(self.load().records[3])
      broken.write_text('not a picture')
      source = self.load()
      data = pipeline.training_batches(
        source, _config('folder:'), batch_size=20, seed=0
      )
      with self.assertRaises(tf.errors.OpError) as raised:
        next(iter(data))
    found = errors.find_data_error(raised.exception)
    self.assertStartsWith(
      str(found), f'{broken} is not an image, or a broken one.'
    )


if __name__ == '__main__':
  absltest.main()
