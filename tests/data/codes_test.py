"""Cached codes: what is given, against encoding online."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests.data import noise
from vim_tf.data import codes as codes_lib
from vim_tf.data import pipeline


def _joined(batches) -> dict[str, np.ndarray]:
  batches = list(batches)
  return {key: np.concatenate([b[key] for b in batches]) for key in batches[0]}


def _train(cache, count, batch_size=8, **settings):
  settings = dict(seed=noise.SEED) | settings
  data = codes_lib.training_batches(cache, batch_size=batch_size, **settings)
  return _joined(data.take(count).as_numpy_iterator())


class CodesTest(noise.TestCase):
  @parameterized.parameters((False, 3), (True, 1))
  def test_the_codes_are_those_made_online(self, balance, epochs):
    """With the cache's seed, for as many epochs as there are crops."""
    online = _joined(
      pipeline.training_batches(
        noise.source(),
        noise.data(balance_classes=balance),
        batch_size=41,
        seed=noise.SEED,
      )
      .take(epochs)
      .as_numpy_iterator()
    )
    found = _train(self.cache, epochs, batch_size=41, balance_classes=balance)
    self.assertAllEqual(found['codes'], noise.encode(online['images']))
    self.assertAllEqual(found['labels'], online['labels'])
    self.assertAllEqual(found['seeds'], online['seeds'])

  def test_without_augmentation_every_crop_is_the_image(self):
    noise.write(self._new, data=noise.data(crop='center', flip=False))
    cache = codes_lib.Cache(self._new)
    images, labels = pipeline.evaluation_arrays(noise.source(), noise.data())
    for split, crops in ((cache.train, noise.CROPS), (cache.evaluation, 1)):
      self.assertAllEqual(
        noise.everything(split), [noise.encode(images)] * crops
      )
      self.assertAllEqual(split.labels, labels)
      self.assertAllEqual(split.indices, range(41))

  def test_crops_differ_and_come_round_again(self):
    found = _train(self.cache, 4, batch_size=41, seed=9)
    by_example = {}
    for codes in found['codes'].reshape([4, 41, -1]):
      by_example.setdefault(len(by_example), {code.tobytes() for code in codes})
    self.assertLess(len(by_example[0] & by_example[1]), 10)
    self.assertEqual(by_example[0], by_example[3])  # In another order.
    first, fourth = found['codes'][:41], found['codes'][-41:]
    self.assertNotAllEqual(first, fourth)
    self.assertLen(set(found['seeds'].tolist()), 4 * 41)

  @parameterized.parameters(False, True)
  def test_goes_on_from_any_step(self, balance):
    everything = _train(self.cache, 24, balance_classes=balance)
    for step in (1, 5, 16):
      resumed = _train(self.cache, 3, start_step=step, balance_classes=balance)
      for key, value in resumed.items():
        self.assertAllEqual(value, everything[key][8 * step : 8 * step + 24])

  def test_input_pipelines_share_a_batch(self):
    whole = _train(self.cache, 1, start_step=4)
    parts = [
      _train(
        self.cache,
        1,
        start_step=4,
        input_context=tf.distribute.InputContext(2, place, 2),
      )
      for place in range(2)
    ]
    for key, value in _joined(parts).items():
      self.assertAllEqual(value, whole[key])

  def test_types_and_shapes(self):
    training = codes_lib.training_batches(self.cache, batch_size=8, seed=0)
    held_out = codes_lib.evaluation_batches(self.cache, batch_size=8)
    both = dict(
      codes=tf.TensorSpec([8, noise.GRID**2], tf.int32),
      labels=tf.TensorSpec([8], tf.int32),
    )
    self.assertEqual(
      training.element_spec, {**both, 'seeds': tf.TensorSpec([8], tf.uint32)}
    )
    self.assertEqual(
      held_out.element_spec, {**both, 'mask': tf.TensorSpec([8], tf.float32)}
    )

  @parameterized.parameters(None, 10, 100)
  def test_held_out_codes(self, limit):
    """Of the same examples as the pipeline's, in the same order."""
    settings = dict(batch_size=16, max_examples=limit)
    found = codes_lib.evaluation_batches(self.cache, **settings)
    images = pipeline.evaluation_batches(
      noise.source(), noise.data(), **settings
    )
    found, images = (_joined(x.as_numpy_iterator()) for x in (found, images))
    self.assertAllEqual(found['mask'], images['mask'])
    keep = found['mask'] > 0
    self.assertAllEqual(
      found['codes'][keep], noise.encode(images['images'])[keep]
    )
    self.assertAllEqual(found['labels'][keep], images['labels'][keep])

  def test_streamed_data_keep_their_numbers(self):
    noise.write(self._new, noise.crops(noise.data(), noise.streamed))
    split = codes_lib.Cache(self._new).train
    indices = np.arange(41) * 7 + 100
    self.assertAllEqual(split.indices, indices)
    self.assertAllEqual(split.labels, noise.LABELS)
    # Augmented by their numbers, as a streamed run would.
    images = next(
      iter(
        pipeline.epoch_batches(
          noise.streamed(),
          noise.data(),
          batch_size=41,
          seed=noise.SEED,
          epoch=1,
        )
      )
    )['images']
    found = noise.everything(split)[1]
    self.assertAllEqual(found, noise.encode(images))
    self.assertNotAllEqual(found, noise.everything(self.cache.train)[1])


if __name__ == '__main__':
  tf.test.main()
