"""Tests of encode_dataset and of training on what it wrote, by running both."""

import json
import pathlib
import shutil

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import testing
from tests.experiments import running, tiny_runs
from tests.jobs import comparing
from vim_tf.data import codes as codes_lib
from vim_tf.data import pipeline, sources
from vim_tf.jobs import restore
from vim_tf.training import workdir as workdir_lib

_STEPS = 2
_CROPS = 2
_FACTS = ('class_names', 'data_fingerprint', 'tokenizer_fingerprint')


class EncodeDatasetTest(
  running.Refused, parameterized.TestCase, tf.test.TestCase
):
  leaves_folder = True  # Of `train_vim`.

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    # Of the trainings others test that they can be traced.
    cls.enter_context(testing.eagerly())
    cls.root = testing.new_folder('encode')
    cls.images = cls.root / 'images'
    tiny_runs.make_images(cls.images)
    names = ('encode_dataset', 'train_vim', 'sample')
    cls.binaries = {name: running.Binary(name) for name in names}
    cls.tokenizer, cls.codes = cls.root / 'tokenizer', cls.root / 'codes'
    cls.vim = cls.root / 'vim'
    cls.data = f'--data=folder:{cls.images}'
    cls.encode_flags = (f'--workdir={cls.tokenizer}', f'--crops={_CROPS}')
    cls.vim_flags = (
      '--preset=tiny',
      f'--steps={_STEPS}',
      '--batch_size=8',
      '--log_every=1',
      '--checkpoint_every=1',
      f'--tokenizer={cls.tokenizer}',
      '--num_classes=2',
    )
    tiny_runs.make_tokenizer(cls.tokenizer, cls.images)
    result = cls._encode(f'--out={cls.codes}')
    assert result.status == 0, result.error
    cls.before = running.snapshot(cls.tokenizer)
    result = cls._train(f'--workdir={cls.vim}', f'--codes={cls.codes}')
    assert result.status == 0, result.error

  @classmethod
  def _encode(cls, *arguments):
    return cls.binaries['encode_dataset'].run(*cls.encode_flags, *arguments)

  @classmethod
  def _train(cls, *arguments):
    return cls.binaries['train_vim'].run(*cls.vim_flags, *arguments)

  # ---------------------------------------------------------------- encoding

  def test_codes_are_the_tokenizers(self):
    cache = codes_lib.Cache(self.codes)
    tokenizer = restore.tokenizer(self.tokenizer)
    data = tokenizer.config.data
    self.assertEqual(cache.description.data, data)
    self.assertEqual(
      cache.description.tokenizer_fingerprint,
      restore.fingerprint(tokenizer.model),
    )
    self.assertEqual(cache.description.class_names, tiny_runs.CLASSES)
    self.assertEqual(cache.train.crops, _CROPS)
    encode = tf.function(tokenizer.model.encode, autograph=False)
    for split, name in (
      (cache.train, data.train_split),
      (cache.evaluation, data.eval_split),
    ):
      source = sources.load(data, name)
      self.assertEqual(split.num_examples, source.num_examples)
      self.assertEqual(split.fingerprint, source.fingerprint)
      self.assertAllEqual(split.labels, source.labels)
    images, _ = pipeline.evaluation_arrays(
      sources.load(data, data.eval_split), data
    )
    places = tf.range(len(images), dtype=tf.int64)
    found = cache.evaluation.read(places, tf.zeros_like(places))
    self.assertAllEqual(found, encode(tf.constant(images)))

  def test_centre_crops_are_the_images(self):
    with self.assertLogs('absl', 'INFO') as logs:
      result = self._encode(
        f'--out={self._new}', '--crop=center', '--flip=false', '--batch_size=5'
      )
    self.assertEqual((result.status, result.error_lines), (0, []))
    self.assertRegex('\n'.join(logs.output), 'Encoding: image .* left')
    cache = codes_lib.Cache(self._new)
    tokenizer = restore.tokenizer(self.tokenizer)
    data = cache.description.data
    self.assertEqual((data.crop, data.flip), ('center', False))
    images, labels = pipeline.evaluation_arrays(
      sources.load(data, data.train_split), data
    )
    expected = tokenizer.model.encode(tf.constant(images))
    places = tf.range(len(images), dtype=tf.int64)
    for crop in range(_CROPS):
      found = cache.train.read(places, tf.fill(places.shape, np.int64(crop)))
      self.assertAllEqual(found, expected)
    self.assertAllEqual(cache.train.labels, labels)

  def test_same_again(self):
    self.assertEqual(self._encode(f'--out={self._new}').status, 0)
    self.assertEqual(running.snapshot(self._new), running.snapshot(self.codes))

  def test_others_stand_in_for_bad_images(self):
    shutil.copytree(self.images, self._new.parent / 'bad')
    bad = next((self._new.parent / 'bad' / 'train').glob('*/00.png'))
    bad.write_text('no picture')
    data = f'--data=folder:{self._new.parent / "bad"}'
    self._assert_refused(self._encode(f'--out={self._new}', data), bad.name)
    result = self._encode(
      f'--out={self._new}', data, '--on_bad_example=skip', '--batch_size=1'
    )
    self.assertEqual(result.status, 0, result.error)
    ours, theirs = (codes_lib.Cache(x).train for x in (self._new, self.codes))
    kept = ours.indices == theirs.indices
    self.assertEqual(np.sum(~kept), 1)
    self.assertAllEqual(ours.labels[kept], theirs.labels[kept])
    places = np.flatnonzero(kept)
    for crop in np.arange(_CROPS):
      found, before = (
        split.read(tf.constant(places), tf.fill(places.shape, crop))
        for split in (ours, theirs)
      )
      self.assertAllEqual(found, before)

  # ---------------------------------------------------------------- training

  def test_weights_are_those_of_training_online(self):
    online = self._new
    self.assertEqual(self._train(f'--workdir={online}', self.data).status, 0)
    expected, found = (
      comparing.read_checkpoint(online),
      comparing.read_checkpoint(self.vim),
    )
    self.assertEqual(found.keys(), expected.keys())
    for key, value in expected.items():
      self.assertAllEqual(found[key], value, key)
    records = [workdir_lib.read(path) for path in (online, self.vim)]
    for fact in _FACTS:
      self.assertEqual(records[0][fact], records[1][fact])
    self.assertEqual(records[0]['config']['data'], records[1]['config']['data'])
    figures = [
      [row['eval/bits_per_code'] for row in rows if 'eval/bits_per_code' in row]
      for rows in map(workdir_lib.read_metrics, (online, self.vim))
    ]
    self.assertLen(figures[0], 1)
    self.assertAllClose(*figures, rtol=1e-6)

  def test_goes_on_to_the_same_weights(self):
    """As after a kill between the checkpoints of step 1 and step 2."""
    shutil.copytree(self.vim, self._new)
    shutil.rmtree(self._new / 'checkpoints' / f'step-{_STEPS:09d}')
    result = self._train(f'--workdir={self._new}', f'--codes={self.codes}')
    self.assertEqual(result.status, 0, result.error)
    found = comparing.read_checkpoint(self._new)
    for key, value in comparing.read_checkpoint(self.vim).items():
      self.assertAllEqual(found[key], value, key)

  def test_stage_1_is_unchanged(self):
    self.assertEqual(running.snapshot(self.tokenizer), self.before)

  def test_unconditional(self):
    workdir, out = self._new / 'vim', self._new / 'samples'
    result = self._train(
      f'--workdir={workdir}',
      f'--codes={self.codes}',
      '--num_classes=0',
      '--optimizer=adafactor',
      '--beta_1=0.8',
      '--decay=constant',
    )
    self.assertEqual(result.status, 0, result.error)
    record = workdir_lib.read(workdir)['config']
    self.assertEqual(record['optimizer']['name'], 'adafactor')
    self.assertEqual(record['optimizer']['beta_1'], 0.8)
    self.assertEqual(record['optimizer']['decay'], 'constant')
    sample = self.binaries['sample'].run(
      f'--workdir={workdir}', f'--out={out}', '--count=2'
    )
    self.assertEqual(sample.status, 0, sample.error)
    rows = workdir_lib.read_json(out / 'samples.json')['samples']
    self.assertLen(rows, 2)
    self.assertNotEqual(rows[0]['codes'], rows[1]['codes'])

  # ----------------------------------------------------------------- refused

  def test_bad_encoding(self):
    before = running.snapshot(self.root)
    out = f'--out={self._new}'
    file = self.create_tempfile(content='a file').full_path
    for arguments, texts in (
      ([f'--out={self.codes}'], (str(self.codes), 'exists already')),
      ([f'--out={file}/codes'], ('Cannot write', file)),
      ([out, f'--workdir={self.images}'], ('not a working directory',)),
      ([out, f'--workdir={self.vim}'], ("'vim', not 'vit_vqgan'",)),
      ([out, f'--data=folder:{self.root}/none'], ('There is no folder',)),
      ([out, '--crop=fisheye'], ("'fisheye'",)),
      ([out, 'stray'], ("'stray' is not a flag",)),
    ):
      self._assert_refused(self._encode(*arguments), *texts)
    result = self._encode(out, '--crops=0')
    self.assertEqual(result.status, 1)
    self.assertIn('crops', result.error)
    self.assertEqual(running.snapshot(self.root), before)

  def test_bad_caches(self):
    """One of each check; codes_refused_test has all that they look at."""
    damaged, other = self._new.parent / 'damaged', self._new.parent / 'other'
    for folder in (damaged, other):
      shutil.copytree(self.codes, folder)
    (shard,) = damaged.glob('train-codes-*.npy')
    shard.write_bytes(shard.read_bytes()[:-1] + b'?')
    manifest = json.loads((other / 'manifest.json').read_text())
    manifest['tokenizer_fingerprint'] = '0123456789abcdef'
    (other / 'manifest.json').write_text(json.dumps(manifest))
    for codes, texts in (
      (self.images, ('not a cache of codes',)),
      (other, ('another tokenizer', '0123456789abcdef')),
      (damaged, (f'{shard.name} is damaged',)),
    ):
      result = self._train(f'--workdir={self._new}', f'--codes={codes}')
      self._assert_refused(result, *texts)

  def test_another_cache_for_the_same_run(self):
    """A run goes on with the codes that it began with."""
    self.assertEqual(
      self._encode(f'--out={self._new / "codes"}', '--seed=1').status, 0
    )
    moved = pathlib.Path(self.create_tempdir()) / 'run'
    shutil.copytree(self.vim, moved)
    result = self._train(f'--workdir={moved}', f'--codes={self._new / "codes"}')
    self.assertEqual(result.status, 1)
    self.assertLen(result.error_lines, 1, result.error)
    self.assertIn('belongs to another run', result.error_lines[0])


if __name__ == '__main__':
  tf.test.main()
