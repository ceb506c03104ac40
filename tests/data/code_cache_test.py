"""The cache of codes: what it gives, against encoding online, and refuses."""

import dataclasses
import functools
import io
import json
import pathlib
import shutil

from absl.testing import parameterized
import numpy as np
import PIL.Image
import tensorflow as tf

from vim_tf import config as config_lib
from vim_tf import presets
from vim_tf.data import (
  code_cache,
  code_cache_writer,
  errors,
  pipeline,
  records,
  sources,
)

_SIZE = 12
_GRID = 3
_CODES = 32
_LABELS = np.array([0] * 30 + [1] * 6 + [2] * 5, np.int32)
_CROPS = 3
_SEED = 5
_TOKENIZER = 'f1f2'


@functools.cache
def _source() -> sources.Source:
  rng = np.random.default_rng(0)
  encoded = []
  for _ in _LABELS:
    file = io.BytesIO()
    pixels = rng.integers(0, 256, [_SIZE, _SIZE, 3], np.uint8)
    PIL.Image.fromarray(pixels).save(file, 'PNG')
    encoded.append(file.getvalue())
  return sources.Source(
    name='noise',
    split='train',
    version='1',
    class_names=('a', 'b', 'c'),
    num_examples=len(encoded),
    flippable=(True, False, True),
    licence='CC0',
    labels=_LABELS,
    records=encoded,
  )


def _streamed() -> sources.Source:
  """The same images, streamed, with numbers that are not their places."""

  def stream(seed, epoch):
    del seed, epoch
    return tf.data.Dataset.from_tensor_slices(
      dict(
        image=_source().records,
        index=np.arange(len(_LABELS)) * 7 + 100,
        label=_LABELS,
      )
    )

  return dataclasses.replace(
    _source(), labels=None, records=None, stream=stream
  )


def _data(**settings) -> config_lib.DataConfig:
  settings = dict(crop='shift', max_shift=2, flip=True) | settings
  return config_lib.DataConfig(name='noise', image_size=_SIZE, **settings)


def _encode(images) -> np.ndarray:
  """A stand-in for a tokenizer: the brightness of each patch."""
  patch = _SIZE // _GRID
  pixels = np.asarray(images).reshape([-1, _GRID, patch, _GRID, patch, 3])
  values = pixels[:, :, 0, :, 1].sum(axis=-1).reshape([-1, _GRID**2])
  return (values * 1000).astype(int) % _CODES


def _codes_of(batches) -> list[dict[str, np.ndarray]]:
  out = []
  for batch in batches.as_numpy_iterator():
    keep = batch['mask'] > 0
    out.append(
      {
        'codes': _encode(batch['images'])[keep],
        'labels': batch['labels'][keep],
        'indices': batch['indices'][keep],
      }
    )
  return out


def _description(**changes) -> code_cache.Description:
  values = dict(
    data=_data(),
    class_names=('a', 'b', 'c'),
    licence='CC0',
    tokenizer_fingerprint=_TOKENIZER,
    tokenizer_step=20,
    precision='float32',
    codebook_size=_CODES,
    grid_size=_GRID,
    crops_per_image=_CROPS,
    seed=_SEED,
  )
  return code_cache.Description(**values | changes)


@functools.cache
def _contents(data, make_source=_source):
  source = make_source()
  train = code_cache_writer.Content(
    'train',
    source.fingerprint,
    source.num_examples,
    [
      _codes_of(
        pipeline.epoch_batches(
          source, data, batch_size=16, seed=_SEED, epoch=crop
        )
      )
      for crop in range(_CROPS)
    ],
  )
  held_out = code_cache_writer.Content(
    'validation',
    'e1',
    source.num_examples,
    [_codes_of(pipeline.evaluation_batches(source, data, batch_size=16))],
  )
  return train, held_out


def _write(folder, description=None, per_shard=50, **changes):
  description = description or _description(**changes)
  code_cache_writer.write(
    folder,
    description,
    *_contents(description.data),
    per_shard * (description.record_bytes + records.FRAME_BYTES),
  )


def _joined(batches) -> dict[str, np.ndarray]:
  batches = list(batches)
  return {key: np.concatenate([b[key] for b in batches]) for key in batches[0]}


def _train(cache, count, batch_size=8, **settings):
  settings = dict(seed=_SEED) | settings
  data = code_cache.training_batches(cache, batch_size=batch_size, **settings)
  return _joined(data.take(count).as_numpy_iterator())


def _stage2(**data) -> config_lib.Stage2Config:
  config = presets.stage2('tiny')
  model = dataclasses.replace(
    config.model, grid_size=_GRID, codebook_size=_CODES, num_classes=3
  )
  return dataclasses.replace(config, model=model, data=_data(**data))


class CodeCacheTest(parameterized.TestCase, tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = pathlib.Path(tf.compat.v1.test.get_temp_dir()) / 'cache-kept'
    if not folder.exists():
      _write(folder)
    cls.cache = code_cache.CodeCache(folder)

  def setUp(self):
    super().setUp()
    self._new = pathlib.Path(self.create_tempdir().full_path) / 'new'

  # ----------------------------------------------------------------- reading

  @parameterized.parameters((False, 3), (True, 1))
  def test_the_codes_are_those_made_online(self, balance, epochs):
    """With the cache's seed, for as many epochs as there are crops."""
    online = _joined(
      pipeline.training_batches(
        _source(), _data(balance_classes=balance), batch_size=41, seed=_SEED
      )
      .take(epochs)
      .as_numpy_iterator()
    )
    found = _train(self.cache, epochs, batch_size=41, balance_classes=balance)
    self.assertAllEqual(found['codes'], _encode(online['images']))
    self.assertAllEqual(found['labels'], online['labels'])
    self.assertAllEqual(found['seeds'], online['seeds'])

  def test_without_augmentation_every_crop_is_the_image(self):
    _write(self._new, data=_data(crop='center', flip=False))
    cache = code_cache.CodeCache(self._new)
    images, labels = pipeline.evaluation_arrays(_source(), _data())
    expected = _encode(images)
    for split in (cache.train, cache.evaluation):
      found = split.read(tf.range(split.num_examples * split.crops))
      self.assertAllEqual(found['codes'], np.tile(expected, [split.crops, 1]))
      self.assertAllEqual(found['labels'], np.tile(labels, split.crops))
      self.assertAllEqual(found['indices'], list(range(41)) * split.crops)
      self.assertAllEqual(found['crops'], np.repeat(range(split.crops), 41))

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
    with self.assertRaisesRegex(ValueError, 'does not divide among 3'):
      _train(self.cache, 1, input_context=tf.distribute.InputContext(3, 0, 3))

  def test_types_and_shapes(self):
    training = code_cache.training_batches(self.cache, batch_size=8, seed=0)
    held_out = code_cache.evaluation_batches(self.cache, batch_size=8)
    both = dict(
      codes=tf.TensorSpec([8, _GRID**2], tf.int32),
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
    found = code_cache.evaluation_batches(self.cache, **settings)
    images = pipeline.evaluation_batches(_source(), _data(), **settings)
    found, images = (_joined(x.as_numpy_iterator()) for x in (found, images))
    self.assertAllEqual(found['mask'], images['mask'])
    keep = found['mask'] > 0
    self.assertAllEqual(found['codes'][keep], _encode(images['images'])[keep])
    self.assertAllEqual(found['labels'][keep], images['labels'][keep])

  def test_streamed_data_keep_their_numbers(self):
    source = _streamed()
    description = _description()
    code_cache_writer.write(
      self._new, description, *_contents(_data(), _streamed), 10_000
    )
    split = code_cache.CodeCache(self._new).train
    found = split.read(tf.range(41, 82))
    indices = np.arange(41) * 7 + 100
    self.assertAllEqual(found['indices'], indices)
    self.assertAllEqual(split.labels, _LABELS)
    # Augmented by their numbers, as a streamed run would.
    seeds = pipeline.example_seeds(_SEED, tf.constant(1), indices)
    expected = next(
      iter(
        pipeline.epoch_batches(
          source, _data(), batch_size=41, seed=_SEED, epoch=1
        )
      )
    )
    self.assertLen(set(seeds.numpy().tolist()), 41)
    self.assertAllEqual(found['codes'], _encode(expected['images']))
    placed = self.cache.train.read(tf.range(41, 82))['codes']
    self.assertNotAllEqual(found['codes'], placed)

  # ----------------------------------------------------------------- on disk

  def test_records_are_as_documented(self):
    paths = sorted(self.cache.path.glob('train-*.tfrecord'))
    self.assertLen(paths, 3)
    examples = [
      tf.train.Example.FromString(record)
      for record in tf.data.TFRecordDataset(
        [str(path) for path in paths]
      ).as_numpy_iterator()
    ]
    self.assertLen(examples, 41 * _CROPS)
    expected = self.cache.train.read(tf.range(41 * _CROPS))
    for place in (0, 40, 41, 122):
      feature = examples[place].features.feature
      values = {
        name: np.frombuffer(feature[name].bytes_list.value[0], dtype)
        for name, dtype in (
          ('codes', '<u2'),
          ('label', '<i4'),
          ('index', '<i8'),
          ('crop', '<i4'),
        )
      }
      self.assertAllEqual(values['codes'], expected['codes'][place])
      self.assertAllEqual(values['label'], [_LABELS[place % 41]])
      self.assertAllEqual(values['index'], [place % 41])
      self.assertAllEqual(values['crop'], [place // 41])

  def test_large_codebooks(self):
    description = _description(codebook_size=2**18)
    codes = np.arange(9) * 2**14 + 7
    batch = {
      'codes': codes[None],
      'labels': np.array([2]),
      'indices': np.array([0]),
    }
    contents = [
      code_cache_writer.Content(split, '', 1, [[batch]])
      for split in ('train', 'validation')
    ]
    code_cache_writer.write(self._new, description, *contents, 10_000)
    found = code_cache.CodeCache(self._new).train.read(tf.range(1))
    self.assertAllEqual(found['codes'], codes[None])

  def test_manifest(self):
    manifest = json.loads((self.cache.path / 'manifest.json').read_text())
    self.assertEqual(manifest['class_names'], ['a', 'b', 'c'])
    self.assertEqual(manifest['tokenizer_fingerprint'], _TOKENIZER)
    self.assertEqual(manifest['licence'], 'CC0')
    self.assertEqual(manifest['data']['crop'], 'shift')
    train = manifest['splits']['train']
    self.assertEqual(train['fingerprint'], _source().fingerprint)
    self.assertEqual((train['examples'], train['crops']), (41, _CROPS))
    self.assertEqual([s['records'] for s in train['shards']], [41] * 3)
    self.assertEqual(self.cache.description, _description())
    self.assertEqual(self.cache.evaluation.crops, 1)

  def test_same_codes_same_fingerprint(self):
    for name, changes in (('a', {}), ('b', {}), ('c', {'seed': 6})):
      _write(self._new / name, **changes)
    first, again, other = (
      code_cache.CodeCache(self._new / name).fingerprint for name in 'abc'
    )
    self.assertEqual(first, again)
    self.assertEqual(first, self.cache.fingerprint)
    self.assertNotEqual(first, other)

  # -------------------------------------------------------- refused: writing

  def _assert_nothing_left(self):
    parent = self._new.parent
    self.assertEmpty([p for p in parent.iterdir() if p.name != 'file'])

  def test_existing_folder(self):
    self._new.mkdir()
    with self.assertRaisesRegex(errors.DataError, 'exists already'):
      _write(self._new)
    self.assertEmpty(list(self._new.iterdir()))

  def test_unwritable(self):
    file = self._new.parent / 'file'
    file.write_text('a file')
    with self.assertRaisesRegex(errors.DataError, f'Cannot write to {file}/x'):
      _write(file / 'x')
    self._assert_nothing_left()

  @parameterized.parameters((-1, 'gave 41 or more'), (1, 'gave 41.'))
  def test_other_number_of_examples(self, more, text):
    train, held_out = _contents(_data())
    train = dataclasses.replace(train, examples=41 + more)
    with self.assertRaisesRegex(errors.DataError, text):
      code_cache_writer.write(
        self._new, _description(), train, held_out, 10_000
      )
    self._assert_nothing_left()

  @parameterized.parameters(
    ({'codebook_size': _CODES - 1}, 'codes range'),
    ({'class_names': ('a', 'b')}, 'labels range'),
  )
  def test_out_of_range(self, changes, text):
    with self.assertRaisesRegex(ValueError, text):
      _write(self._new, **changes)
    self._assert_nothing_left()

  # -------------------------------------------------------- refused: reading

  def _assert_refused(self, text):
    with self.assertRaisesRegex(errors.DataError, text) as caught:
      code_cache.CodeCache(self._new)
    self.assertNotIn('\n', str(caught.exception))

  def test_not_a_cache(self):
    self._assert_refused('is not a cache of codes')
    self._new.mkdir()
    self._assert_refused('is not a cache of codes')
    manifest = self._new / 'manifest.json'
    for content, text in (
      (b'{', 'Cannot read'),
      (b'\xff\xfe', 'Cannot read'),
      (b'[]', 'of format None'),
      (b'{"format": 99}', 'of format 99, not 1'),
      (b'{"format": 1}', "damaged .KeyError: 'data'"),
    ):
      manifest.write_bytes(content)
      self._assert_refused(text)

  def test_damaged_manifest(self):
    shutil.copytree(self.cache.path, self._new)
    file = self._new / 'manifest.json'
    whole = json.loads(file.read_text())
    for change, text in (
      (lambda m: m['splits'].pop('evaluation'), "'evaluation'"),
      (lambda m: m.update(grid_size='three'), 'damaged'),
      (lambda m: m.update(grid_size=4), 'was cut short or changed'),
      (lambda m: m['data'].pop('crop'), 'lacks crop'),
      (lambda m: m['splits']['train'].update(examples=42), '123 records of 42'),
      (lambda m: m['splits']['train']['shards'].pop(), '82 records of 41'),
      (
        lambda m: m['splits']['train']['shards'][1].update(records=40),
        'train-00001-of-00003.tfrecord has .* its 40 records',
      ),
    ):
      manifest = json.loads(json.dumps(whole))
      change(manifest)
      file.write_text(json.dumps(manifest))
      self._assert_refused(text)

  def test_damaged_shards(self):
    shutil.copytree(self.cache.path, self._new)
    path = self._new / 'train-00002-of-00003.tfrecord'
    content = path.read_bytes()
    path.write_bytes(content[:-200])
    self._assert_refused(f'{path} has .* bytes, .* cut short')
    path.unlink()
    self._assert_refused(f'{path} cannot be read: No such file')
    changed = bytearray(content)
    changed[len(content) // 2] ^= 1
    path.write_bytes(changed)
    cache = code_cache.CodeCache(self._new)
    for batches in (code_cache.training_batches(cache, batch_size=41, seed=0),):
      with self.assertRaises(tf.errors.OpError) as caught:
        for _ in batches.take(3):
          pass
      found = errors.find_data_error(caught.exception)
      self.assertRegex(str(found), f'^Record 20 of {path} is damaged')
      self.assertNotIn('\n', str(found))

  def test_damaged_records_are_left_out(self):
    shutil.copytree(self.cache.path, self._new)
    path = self._new / 'train-00002-of-00003.tfrecord'
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content[:-200])
    cache = code_cache.CodeCache(self._new, 'skip')
    clean, found = _train(self.cache, 20), _train(cache, 20)
    broken = found.pop('broken') > 0
    self.assertBetween(broken.sum(), 2, 10)
    for name, value in clean.items():
      self.assertAllEqual(found[name][~broken], value[~broken])
      if name != 'seeds':  # Those are the example's that was drawn.
        self.assertNotAllEqual(found[name][broken], value[broken])
    # One by one, the next sound record stands in.
    count = cache.train.num_examples * cache.train.crops
    single = [cache.train.read(tf.constant([i])) for i in range(count)]
    marks = [float(one['broken'][0]) for one in single]
    self.assertIn(1.0, marks)
    for i in np.flatnonzero(marks):
      (after, *_) = [
        k % count for k in range(i, 2 * count) if not marks[k % count]
      ]
      self.assertAllEqual(single[i]['codes'], single[after]['codes'])
      self.assertAllEqual(single[i]['indices'], single[after]['indices'])

  def test_another_run(self):
    self.cache.check_fits(_stage2(), _TOKENIZER)
    self.cache.check_fits(
      _stage2(data_dir='elsewhere', balance_classes=True), _TOKENIZER
    )
    right = dataclasses.replace(_stage2(), label_drop=0.0)

    def model(**changes):
      return dataclasses.replace(
        right, model=dataclasses.replace(right.model, **changes)
      )

    for config, fingerprint, text in (
      (right, 'a0', 'another tokenizer: fingerprint .* is f1f2, but a0'),
      (model(codebook_size=64), _TOKENIZER, 'codebook_size is 32, but 64'),
      (model(grid_size=4), _TOKENIZER, 'grid_size is 3, but 4'),
      (model(num_classes=9), _TOKENIZER, 'of 3 classes, but .* is 9'),
      (_stage2(crop='center'), _TOKENIZER, '--set=data.crop=shift,'),
      (
        _stage2(flip=False, max_shift=1),
        _TOKENIZER,
        '--set=data.max_shift=2 --set=data.flip=true',
      ),
    ):
      with self.assertRaisesRegex(errors.DataError, text):
        self.cache.check_fits(config, fingerprint)
    self.cache.check_fits(model(num_classes=0), _TOKENIZER)


if __name__ == '__main__':
  tf.test.main()
