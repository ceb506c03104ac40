"""The pipeline: order, resume, augmentation, balance, shares of a batch."""

import dataclasses
import functools
import io
from unittest import mock

from absl.testing import parameterized
import numpy as np
import PIL.Image
import tensorflow as tf

from vim_tf import config
from vim_tf.data import images, order, pipeline, sources

_SIZE = 12
_LABELS = np.array([0] * 30 + [1] * 6 + [3] * 5, np.int32)  # 2 is absent.
_FLIPPABLE = (True, False, True, True)
_KEYS = ('images', 'labels', 'seeds')


def _pixels(index: int) -> np.ndarray:
  """uint8 `[_SIZE, _SIZE, 3]`, different for each example."""
  return np.random.default_rng(index).integers(
    0, 256, [_SIZE, _SIZE, 3], np.uint8
  )


@functools.cache
def _source() -> sources.Source:
  records = []
  for index in range(len(_LABELS)):
    file = io.BytesIO()
    PIL.Image.fromarray(_pixels(index)).save(file, 'PNG')
    records.append(file.getvalue())
  return sources.Source(
    name='noise',
    split='train',
    version='1',
    class_names=('a', 'b', 'c', 'd'),
    num_examples=len(records),
    flippable=_FLIPPABLE,
    labels=_LABELS,
    records=records,
  )


def _config(**settings) -> config.DataConfig:
  settings = dict(crop='shift', max_shift=2, flip=True) | settings
  return config.DataConfig(image_size=_SIZE, **settings)


def _batches(count, data_config=None, batch_size=8, **settings):
  settings = dict(seed=5) | settings
  data = pipeline.training_batches(
    _source(), data_config or _config(), batch_size=batch_size, **settings
  )
  return list(data.take(count).as_numpy_iterator())


def _joined(batches) -> dict[str, np.ndarray]:
  return {key: np.concatenate([b[key] for b in batches]) for key in _KEYS}


def _which(shown: np.ndarray) -> list[int]:
  """Numbers of the examples in unaugmented images."""
  numbers = {_pixels(i).tobytes(): i for i in range(len(_LABELS))}
  return [numbers[images.to_uint8(image).numpy().tobytes()] for image in shown]


class TrainingTest(tf.test.TestCase, parameterized.TestCase):
  def assert_same(self, ours, theirs):
    for key in _KEYS:
      self.assertAllEqual(ours[key], theirs[key])

  def test_every_epoch_has_every_example_once(self):
    plain = _config(crop='center', flip=False)
    batches = _joined(_batches(16, plain))  # 128 draws of 41 examples.
    drawn = _which(batches['images'])
    self.assertAllEqual(batches['labels'], _LABELS[drawn])
    epochs = [drawn[41 * i : 41 * i + 41] for i in range(3)]
    for epoch in epochs:
      self.assertCountEqual(epoch, range(41))
    self.assertNotEqual(epochs[0], epochs[1])
    self.assertLen(set(batches['seeds'].tolist()), 128)

  def test_types_and_shapes(self):
    data = pipeline.training_batches(_source(), _config(), batch_size=8, seed=0)
    self.assertEqual(
      data.element_spec,
      dict(
        images=tf.TensorSpec([8, _SIZE, _SIZE, 3], tf.float32),
        labels=tf.TensorSpec([8], tf.int32),
        seeds=tf.TensorSpec([8], tf.uint32),
      ),
    )

  def test_seed_decides(self):
    self.assert_same(_joined(_batches(3)), _joined(_batches(3)))
    other = _joined(_batches(3, seed=6))
    self.assertNotAllEqual(_joined(_batches(3))['labels'], other['labels'])

  @parameterized.parameters(
    ('center', False), ('shift', True), ('random_resized', False)
  )
  def test_goes_on_from_any_step(self, crop, balance):
    settings = _config(crop=crop, balance_classes=balance)
    everything = _batches(20, settings)
    # 41 examples: batch 5 holds the end of an epoch, 20 * 8 > 3 * 41.
    for step in (5, 11):
      resumed = _batches(3, settings, start_step=step)
      self.assert_same(_joined(resumed), _joined(everything[step : step + 3]))

  @parameterized.parameters('shift', 'random_resized')
  def test_augmentation_does_not_depend_on_the_batch_size(self, crop):
    settings = _config(crop=crop)
    expected = _joined(_batches(12, settings, batch_size=8))
    larger = _joined(_batches(1, settings, batch_size=96))  # Above an epoch.
    self.assert_same(larger, expected)

  @parameterized.parameters('shift', 'random_resized')
  def test_augmentation_changes_with_the_epoch(self, crop):
    batches = _joined(_batches(2, _config(crop=crop), batch_size=41))
    first = {image.tobytes() for image in batches['images'][:41]}
    second = {image.tobytes() for image in batches['images'][41:]}
    self.assertLess(len(first & second), 10)

  def test_cache_makes_no_difference(self):
    expected = _joined(_batches(6))
    with mock.patch.object(pipeline, 'MAX_CACHE', 0):
      self.assert_same(_joined(_batches(6)), expected)

  def test_shift_moves_whole_pixels_and_repeats_edges(self):
    """Every shift within the range occurs, and nothing else."""
    settings = _config(max_shift=1, flip=False)
    plain = _joined(_batches(30, _config(crop='center', flip=False)))
    shifted = images.to_uint8(_joined(_batches(30, settings))['images'])
    seen = set()
    for number, image in zip(_which(plain['images']), shifted.numpy()):
      padded = np.pad(_pixels(number), [(1, 1), (1, 1), (0, 0)], 'edge')
      found = [
        (y, x)
        for y in range(3)
        for x in range(3)
        if (padded[y : y + _SIZE, x : x + _SIZE] == image).all()
      ]
      self.assertLen(found, 1)
      seen.add(found[0])
    self.assertLen(seen, 9)

  def test_flips_only_where_allowed(self):
    settings = _config(crop='center', flip=True)
    plain = _joined(_batches(30, _config(crop='center', flip=False)))
    flipped = images.to_uint8(_joined(_batches(30, settings))['images'])
    mirrored = {label: [] for label in (0, 1, 3)}
    for number, image in zip(_which(plain['images']), flipped.numpy()):
      pixels = _pixels(number)
      is_mirrored = (image == pixels[:, ::-1]).all()
      self.assertTrue(is_mirrored or (image == pixels).all())
      mirrored[_LABELS[number]].append(is_mirrored)
    self.assertBetween(np.mean(mirrored[0]), 0.35, 0.65)
    self.assertGreater(np.sum(mirrored[3]), 0)
    self.assertEqual(np.sum(mirrored[1]), 0)

  def test_random_resized_crops_the_share_asked_for(self):
    """On a ramp, the range of values tells how much of it is left."""
    ramp = np.linspace(0, 255, 240).round().astype(np.uint8)
    ramp = np.stack(
      [np.tile(ramp[:, None], [1, 240]), np.tile(ramp, [240, 1])] * 2, -1
    )[..., :3]
    file = io.BytesIO()
    PIL.Image.fromarray(ramp).save(file, 'PNG')
    source = dataclasses.replace(
      _source(), records=[file.getvalue()] * len(_LABELS)
    )
    settings = _config(crop='random_resized', min_scale=0.5, flip=False)
    settings = dataclasses.replace(settings, image_size=32)
    data = pipeline.training_batches(source, settings, batch_size=64, seed=0)
    shown = next(iter(data))['images'].numpy()
    # Rows run along channel 0, columns along channel 1; half pixels aside.
    heights = np.ptp(shown[..., 0], axis=(1, 2)) * 32 / 31
    widths = np.ptp(shown[..., 1], axis=(1, 2)) * 32 / 31
    areas = heights * widths
    self.assertAllInRange(areas, 0.48, 1.03)
    self.assertLess(areas.min(), 0.6)
    self.assertGreater(areas.max(), 0.9)
    self.assertAllInRange(widths / heights, 0.73, 1.37)
    self.assertGreater(np.std(np.log(widths / heights)), 0.05)

  def test_min_scale_one_keeps_square_images_whole(self):
    settings = _config(crop='random_resized', min_scale=1.0, flip=False)
    plain = _config(crop='center', flip=False)
    self.assertAllClose(
      _joined(_batches(3, settings))['images'],
      _joined(_batches(3, plain))['images'],
      atol=1e-6,
    )

  @parameterized.parameters(False, True)
  def test_input_pipelines_share_a_batch(self, balance):
    settings = _config(balance_classes=balance)
    whole = _batches(9, settings, start_step=4)
    parts = [
      _batches(
        9,
        settings,
        start_step=4,
        input_context=tf.distribute.InputContext(2, place, 2),
      )
      for place in range(2)
    ]
    for batch, *shares in zip(whole, *parts):
      self.assert_same(_joined(shares), batch)


class BalanceTest(tf.test.TestCase):
  def test_classes_come_equally_often(self):
    total = np.zeros(4, int)
    for epoch in range(5):
      indices, _ = order.balanced_order(1, epoch, _LABELS)
      counts = np.bincount(_LABELS[indices], minlength=4)
      self.assertEqual(counts[2], 0)
      present = counts[[0, 1, 3]]
      self.assertLessEqual(np.ptp(present), 1)
      total += counts
    self.assertLessEqual(np.ptp(total[[0, 1, 3]]), 1)

  def test_each_class_runs_through_permutations_of_its_own(self):
    """No example is drawn again before its class has been through."""
    draws = np.zeros(len(_LABELS), int)
    for epoch in range(5):
      indices, rounds = order.balanced_order(1, epoch, _LABELS)
      pairs = set(zip(indices.tolist(), rounds.tolist()))
      self.assertLen(pairs, len(indices))
      draws += np.bincount(indices, minlength=len(_LABELS))
      for label in (0, 1, 3):
        self.assertLessEqual(np.ptp(draws[_LABELS == label]), 1)

  def test_pipeline_balances(self):
    plain = _config(crop='center', flip=False, balance_classes=True)
    labels = _joined(_batches(1, plain, batch_size=41))['labels']
    self.assertCountEqual(np.bincount(labels), [14, 14, 13, 0])


class EvaluationTest(tf.test.TestCase):
  def test_fixed_order_and_mask_of_the_last_batch(self):
    batches = list(
      pipeline.evaluation_batches(_source(), _config(), batch_size=16)
    )
    self.assertLen(batches, 3)
    masks = np.concatenate([batch['mask'] for batch in batches])
    self.assertAllEqual(masks, [1] * 41 + [0] * 7)
    shown = np.concatenate([batch['images'] for batch in batches])
    self.assertEqual(_which(shown[:41]), list(range(41)))
    self.assertAllEqual(shown[41:], np.zeros([7, _SIZE, _SIZE, 3]))
    labels = np.concatenate([batch['labels'] for batch in batches])
    self.assertAllEqual(labels[:41], _LABELS)

  def test_shapes_are_static(self):
    data = pipeline.evaluation_batches(_source(), _config(), batch_size=16)
    self.assertEqual(data.element_spec['images'].shape, [16, _SIZE, _SIZE, 3])
    self.assertEqual(data.element_spec['mask'].shape, [16])

  def test_limit_is_spread_over_the_classes(self):
    shown, labels = pipeline.evaluation_arrays(_source(), _config(), 10)
    self.assertLen(shown, 10)
    self.assertEqual(set(labels), {0, 1, 3})

  def test_arrays(self):
    shown, labels = pipeline.evaluation_arrays(_source(), _config())
    self.assertEqual(shown.dtype, np.float32)
    self.assertAllEqual(labels, _LABELS)
    self.assertAllEqual(
      images.from_uint8(np.stack([_pixels(i) for i in range(41)])), shown
    )


if __name__ == '__main__':
  tf.test.main()
