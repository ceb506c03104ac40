"""Tests of leaving out bad examples: folders, TFDS in memory and streamed."""

import functools
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

_COUNT = 24
_NAMED = r'^Record \d+ of /.*/bad_toy-train.tfrecord-00001-of-00003 \(.*\.$'
_RECORDS = 'bad_toy-train.tfrecord-*'


class BadToy(tfds.core.GeneratorBasedBuilder):
  """Images whose gray value is their number."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(shape=(4, 4, 3)),
          'label': tfds.features.ClassLabel(names=['even', 'odd']),
        }
      ),
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    for number in range(_COUNT):
      image = np.full([4, 4, 3], number, np.uint8)
      yield number, {'image': image, 'label': number % 2}


def _batches(source, settings, count=6, start_step=0, size=8):
  data = pipeline.training_batches(
    source, settings, batch_size=size, seed=3, start_step=start_step
  )
  return list(data.take(count).as_numpy_iterator())


def _numbers(batch):
  return np.round(batch['images'][:, 0, 0, 0] * 255).astype(int)


class BadExamplesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(
      tempfile.mkdtemp(dir=absltest.get_default_test_tmpdir())
    )

  def _settings(self, name, crop='center'):
    return config.DataConfig(
      name=name, image_size=4, data_dir=str(self.root), crop=crop, flip=False
    )

  def _assert_left_out(self, clean, found, bad):
    """Sound examples come as before; each bad one is counted where it was."""
    count = 0
    for ours, theirs in zip(found, clean, strict=True):
      broken = ours['broken'] > 0
      np.testing.assert_array_equal(broken, np.isin(_numbers(theirs), bad))
      for name in theirs:
        np.testing.assert_array_equal(
          ours[name][~broken], theirs[name][~broken]
        )
      self.assertEmpty(set(_numbers(ours)) & set(bad))
      np.testing.assert_array_equal(_numbers(ours) % 2, ours['labels'])
      count += broken.sum()
    self.assertGreater(count, 0)

  # What is cropped at random is not cached.
  @parameterized.parameters('center', 'random_resized')
  def test_folder(self, crop):
    for number in range(_COUNT):
      folder = self.root / ('odd' if number % 2 else 'even')
      folder.mkdir(exist_ok=True)
      PIL.Image.new('RGB', [4, 4], (number,) * 3).save(
        folder / f'{number:02}.png'
      )
    settings = self._settings(f'folder:{self.root}', crop)
    clean = _batches(sources.load(settings, 'train'), settings)
    files = [pathlib.Path(p) for p in sources.load(settings, 'train').records]
    bad = [int(file.stem) for file in files[5:8]]
    files[5].write_text('not a picture')
    files[6].write_bytes(files[6].read_bytes()[:-30])
    source = sources.load(settings, 'train', errors.SKIP)
    files[7].unlink()
    with self.assertLogs('absl', 'WARNING') as logs:
      found = _batches(source, settings)
    self._assert_left_out(clean, found, bad)
    self.assertRegex(logs.output[0], r'left out \d of the 8 examples')
    with self.assertRaisesRegex(errors.DataError, 'not an image, or a brok'):
      files[7].write_text('')
      sources.load(settings, 'train')
    shown = pipeline.evaluation_batches(source, settings, batch_size=16)
    masks = np.concatenate([b['mask'] for b in shown.as_numpy_iterator()])
    self.assertEqual(masks.sum(), source.num_examples - len(bad))
    if crop == 'center':
      self._check_single(source, settings, bad)
      self._check_filled(source, settings, bad, pipeline.evaluation_batches)
    else:
      make = functools.partial(pipeline.epoch_batches, seed=1, epoch=2)
      self._check_filled(source, settings, bad, make)

  def _damage_record(self):
    """Changes a byte in the sixth record of a file; returns the lost ones."""
    path = sorted(self.root.rglob(_RECORDS))[1]
    content = bytearray(path.read_bytes())
    starts = [0]
    while starts[-1] < len(content):
      length = int.from_bytes(content[starts[-1] :][:8], 'little')
      starts.append(starts[-1] + length + 16)
    content[starts[5] + 20] ^= 1
    path.write_bytes(content)
    return len(starts) - 1 - 5

  def _prepare(self):
    BadToy(data_dir=self.root).download_and_prepare(
      download_config=tfds.download.DownloadConfig(num_shards=3)
    )
    return self._settings('bad_toy')

  def test_streamed(self):
    settings = self._prepare()
    with mock.patch.object(sources, 'MAX_MEMORY', 0):
      whole = sources.load(settings, 'train')
      skipping = sources.load(settings, 'train', errors.SKIP)
    in_order = [
      int(e['image'].numpy()[0, 0, 0])
      for e in whole.stream(None, None).map(
        lambda e: {'image': pipeline.images.decode(e['image']) * 255}
      )
    ]
    clean = _batches(whole, settings)
    lost = self._damage_record()
    left = list(skipping.stream(None, None).as_numpy_iterator())
    bad = [
      number
      for number, example in zip(in_order, left, strict=True)
      if not example['image']
    ]
    self.assertLen(bad, lost)
    found = _batches(skipping, settings)
    # Which examples come is the same; their place after the buffer as well.
    self._assert_left_out(clean, found, bad)
    again = _batches(skipping, settings, 2, start_step=4)
    for ours, theirs in zip(again, found[4:], strict=True):
      for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name])
    with self.assertRaises(Exception) as caught:
      _batches(whole, settings)
    found = errors.find_data_error(caught.exception)
    self.assertRegex(str(found), _NAMED)

  def test_in_memory(self):
    settings = self._prepare()
    lost = self._damage_record()
    with self.assertRaisesRegex(errors.DataError, _NAMED):
      sources.load(settings, 'train')
    with self.assertLogs('absl', 'WARNING') as logs:
      source = sources.load(settings, 'train', errors.SKIP)
    self.assertIn(
      f'left out {lost} of {_COUNT} examples', ' '.join(logs.output)
    )
    self.assertEqual(source.num_examples, _COUNT - lost)
    for batch in _batches(source, settings):
      np.testing.assert_array_equal(_numbers(batch) % 2, batch['labels'])

  def _check_filled(self, source, settings, bad, make):
    """Passes in which others stand in, whole and in part, alike."""
    whole, rest = (
      np.concatenate(
        [
          _numbers(batch)[batch['mask'] > 0]
          for batch in make(
            source, settings, batch_size=2, part=part, fill_gaps=True
          ).as_numpy_iterator()
        ]
      )
      for part in (None, range(6, source.num_examples))
    )
    np.testing.assert_array_equal(whole[6:], rest)
    self.assertLen(whole, source.num_examples)
    self.assertEmpty(set(whole) & set(bad))

  def _check_single(self, source, settings, bad):
    """Batches of one, too, are the same wherever a run is started."""
    count = source.num_examples
    ones = _batches(source, settings, count, size=1)
    steps = np.flatnonzero([batch['broken'][0] for batch in ones])
    self.assertLen(steps, len(bad))
    numbers = [_numbers(batch)[0] for batch in ones]
    self.assertEmpty(set(numbers) & set(bad))
    for step in steps:  # The next sound one stands in.
      following = [k for k in range(step, count) if k not in steps]
      if following:
        self.assertEqual(numbers[step], numbers[following[0]])
    (again,) = _batches(source, settings, 1, steps[1], size=1)
    for name in again:
      np.testing.assert_array_equal(again[name], ones[steps[1]][name])

  def test_no_example_at_all(self):
    examples = tf.data.Dataset.range(3).map(lambda i: dict(x=i, sound=i > 5))
    data = errors.fill_gaps(examples.batch(1), lambda _: examples, 'toy')
    with self.assertLogs('absl', 'WARNING') as logs:
      with self.assertRaises(tf.errors.OpError) as raised:
        list(data)
    self.assertIn('left out 1 of the 1 examples', logs.output[0])
    self.assertEqual(
      str(errors.find_data_error(raised.exception)),
      'No example of toy can be read.',
    )

  def test_other_errors_are_not_the_data_s(self):
    self.assertIsNone(errors.find_data_error(RuntimeError('out of memory')))

  def test_stand_ins(self):
    places = errors.stand_ins(np.array([0, 0, 1, 0, 1, 1, 0], bool))
    self.assertEqual(places.tolist(), [5, 5, 2, 2, 4, 5, 5])


if __name__ == '__main__':
  absltest.main()
