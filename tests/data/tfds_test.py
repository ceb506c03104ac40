"""TFDS data: prepared once, in memory and streamed, and what is not there."""

from collections.abc import Iterable
import pathlib
import tempfile
import time
from unittest import mock

from absl import logging
from absl.testing import absltest, parameterized
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from tests.faults import forks
from vim_tf import config
from vim_tf.data import errors, pipeline, sources
from vim_tf.data import tfds as tfds_lib

_EXAMPLES = 3
_POLL_SECONDS = 0.02
_LONG_SECONDS = 60.0
_WAITS, _PREPARES = 'waiting for it', 'Generating dataset'


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
  return _numbers_of(example['image'] for example in examples)


def _numbers_of(images: Iterable[bytes]) -> list[int]:
  return [int(tf.io.decode_image(image)[0, 0, 0]) for image in images]


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
    numbers = _numbers_of(source.records)
    self.assertCountEqual(numbers, range(50))
    parity = np.array(numbers) % 2 if source.conditional else np.zeros(50)
    np.testing.assert_array_equal(source.labels, parity)
    self.assertEqual(numbers, _numbers_of(self.load(name).records))

  def test_part_of_a_split(self):
    source = self.load('named_toy', 'train[:20%]')
    self.assertEqual(source.num_examples, 10)
    self.assertLen(source.records, 10)

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
    cls.everything = cls.batches(19)

  @classmethod
  def batches(cls, count, seed=3, start_step=0):
    data = pipeline.training_batches(
      cls.source, cls.config, batch_size=8, seed=seed, start_step=start_step
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
    examples = list(self.source.stream(None, None).as_numpy_iterator())
    self.assertCountEqual([int(e['index']) for e in examples], range(50))
    numbers = _numbers(self.source.stream(None, None))
    self.assertCountEqual(numbers, range(50))
    self.assertEqual(numbers, _numbers(self.source.stream(None, None)))
    self.assertEqual([e['label'] for e in examples], [n % 2 for n in numbers])

  def test_part_of_a_split_keeps_its_indices(self):
    by_index = {
      int(e['index']): e['image']
      for e in self.source.stream(None, None).as_numpy_iterator()
    }
    examples = list(self.part.stream(None, None).as_numpy_iterator())
    self.assertLen(examples, 20)
    for example in examples:
      self.assertEqual(example['image'], by_index[int(example['index'])])

  def test_every_epoch_is_another_permutation(self):
    numbers = self.numbers(self.everything)
    first, second, third = (numbers[50 * i : 50 * i + 50] for i in range(3))
    for epoch in (first, second, third):
      self.assertCountEqual(epoch, range(50))
    self.assertNotEqual(first, second)
    self.assertNotEqual(second, third)

  def test_order_follows_the_seed_alone(self):
    expected = self.numbers(self.everything[:4])
    tf.random.set_seed(77)
    self.assertEqual(self.numbers(self.batches(4)), expected)
    self.assertNotEqual(self.numbers(self.batches(4, seed=4)), expected)

  def test_goes_on_from_any_step(self):
    resumed = self.batches(3, start_step=6)  # It holds the end of an epoch.
    for ours, theirs in zip(resumed, self.everything[6:9], strict=True):
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


class WaitingToy(tfds.core.GeneratorBasedBuilder):
  """Three images, made when a file appears."""

  VERSION = tfds.core.Version('1.0.0')
  go = pathlib.Path()

  def _info(self):
    features = {'image': tfds.features.Image(shape=(4, 6, 3))}
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict(features)
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    while not self.go.exists():
      time.sleep(_POLL_SECONDS)
    for number in range(_EXAMPLES):
      yield number, {'image': np.full([4, 6, 3], number, np.uint8)}


class PreparationTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.create_tempdir().full_path)
    self.go = WaitingToy.go = self.root / 'go'

  def prepare(self):
    logging.set_verbosity(logging.INFO)
    builder = WaitingToy(data_dir=self.root / 'data')
    tfds_lib.prepare(builder, 'waiting_toy')
    print('examples:', builder.info.splits['train'].num_examples)

  def start(self, name: str) -> forks.Fork:
    fork = forks.Fork(self.prepare, self.root / f'{name}.log')
    self.addCleanup(fork.kill)
    return fork

  def wait_for(self, fork: forks.Fork, *texts: str):
    """Waits until one of the texts is in its log."""

    def said():
      log = fork.log.read_text() if fork.log.exists() else ''
      return any(text in log for text in texts)

    fork.wait_until(said, _LONG_SECONDS)

  def assert_prepared(self, fork: forks.Fork):
    status, log = fork.wait(), fork.log.read_text()
    self.assertEqual(status, 0, log)
    self.assertIn(f'examples: {_EXAMPLES}\n', log)

  def test_the_second_of_two_processes_waits(self):
    both = [self.start('first'), self.start('second')]
    for fork in both:
      self.wait_for(fork, _WAITS, _PREPARES)
    self.go.touch()
    for fork in both:
      self.assert_prepared(fork)
    logs = [fork.log.read_text() for fork in both]
    self.assertEqual(''.join(logs).count(_PREPARES), 1)
    (waited,) = (log for log in logs if _PREPARES not in log)
    place = f'{self.root}/data/waiting_toy/1.0.0'
    self.assertIn(f"prepares data set 'waiting_toy' in {place}", waited)

  def test_one_that_dies_lets_the_other_go_on(self):
    first = self.start('first')
    self.wait_for(first, _PREPARES)
    second = self.start('second')
    self.wait_for(second, _WAITS, _PREPARES)
    self.assertNotIn(_PREPARES, second.log.read_text())
    first.kill()
    self.go.touch()
    self.assert_prepared(second)

  def test_what_is_prepared_needs_no_lock(self):
    self.go.touch()
    self.assert_prepared(self.start('first'))
    (lock,) = self.root.rglob('*.lock')
    lock.unlink()
    self.assert_prepared(self.start('second'))
    self.assertFalse(lock.exists())

  def test_archives_of_imagenet(self):
    builder = tfds.builder('imagenet2012', data_dir=self.root)
    folder = self.root / 'downloads' / 'manual'

    def refusal():
      with self.assertRaises(errors.DataError) as raised:
        tfds_lib.prepare(builder, 'imagenet2012')
      self.assertNotIn('\n', str(raised.exception))
      self.assertFalse(pathlib.Path(builder.data_dir).exists())
      return str(raised.exception)

    both = 'ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar'
    text = refusal()
    self.assertIn(f'needs {both} in {folder}, but {both} cannot be', text)
    self.assertIn('https://image-net.org', text)
    # With one of them TFDS would prepare a data set that lacks a split.
    folder.mkdir(parents=True)
    (folder / 'ILSVRC2012_img_train.tar').touch()
    self.assertIn('but ILSVRC2012_img_val.tar cannot be found', refusal())

  def test_other_data_that_are_fetched_by_hand(self):
    builder = tfds.builder('imagenet2012_subset/1pct', data_dir=self.root)
    with self.assertRaises(errors.DataError) as raised:
      tfds_lib.prepare(builder, 'a_subset')
    text = str(raised.exception)
    self.assertNotIn('\n', text)
    self.assertIn(f'{self.root}/downloads/manual does not exist', text)
    self.assertIn('ILSVRC2012_img_val.tar', text)


if __name__ == '__main__':
  absltest.main()
