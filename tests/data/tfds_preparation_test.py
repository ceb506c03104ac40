"""Preparing TFDS data: two processes at once, and what is not there."""

import pathlib
import time

from absl import logging
from absl.testing import absltest
import numpy as np
import tensorflow  # noqa: F401, for the children to have it imported.
import tensorflow_datasets as tfds

from tests.faults import forks
from vim_tf.data import errors, tfds_preparation

_EXAMPLES = 3
_POLL_SECONDS = 0.02
_LONG_SECONDS = 60.0
_WAITS, _PREPARES = 'waiting for it', 'Generating dataset'


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
    tfds_preparation.prepare(builder, 'waiting_toy')
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
        tfds_preparation.prepare(builder, 'imagenet2012')
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
      tfds_preparation.prepare(builder, 'a_subset')
    text = str(raised.exception)
    self.assertNotIn('\n', text)
    self.assertIn(f'{self.root}/downloads/manual does not exist', text)
    self.assertIn('ILSVRC2012_img_val.tar', text)


if __name__ == '__main__':
  absltest.main()
