"""Cached codes: what is given, against encoding online, and what refused."""

import dataclasses
import functools
import hashlib
import io
import json
import pathlib
import resource
import shutil

from absl.testing import parameterized
import numpy as np
import PIL.Image
import tensorflow as tf

from vim_tf import config as config_lib
from vim_tf import presets
from vim_tf.data import codes as codes_lib
from vim_tf.data import codes_writer, errors, pipeline, sources

_SIZE = 12
_GRID = 3
_CODES = 32
_LABELS = np.array([0] * 30 + [1] * 6 + [2] * 5, np.int32)
_CROPS = 3
_SEED = 5
_BATCH = 16
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


def _description(**changes) -> codes_lib.Description:
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
  return codes_lib.Description(**values | changes)


@functools.cache
def _crops(data, make_source=_source) -> dict[str, list]:
  source, settings = make_source(), dict(batch_size=_BATCH)
  return {
    'train': [
      _codes_of(
        pipeline.epoch_batches(source, data, seed=_SEED, epoch=crop, **settings)
      )
      for crop in range(_CROPS)
    ],
    'evaluation': [
      _codes_of(pipeline.evaluation_batches(source, data, **settings))
    ],
  }


def _parts(examples=41) -> dict[str, codes_writer.Part]:
  fingerprint = _source().fingerprint
  return {
    'train': codes_writer.Part('train', fingerprint, examples, _CROPS),
    'evaluation': codes_writer.Part('validation', 'e1', 41, 1),
  }


def _write(folder, crops=None, examples=41, **changes):
  """Writes a cache whose shards hold a batch each."""
  description = _description(**changes)
  crops = crops or _crops(description.data)
  codes_writer.write(folder, description, _parts(examples), crops, _BATCH, 1)


def _everything(split) -> np.ndarray:
  """All codes of a split, `[crops, examples, num_codes]`."""
  crops, examples = np.indices([split.crops, split.num_examples])
  found = split.read(tf.constant(examples.ravel()), tf.constant(crops.ravel()))
  return found.numpy().reshape([split.crops, split.num_examples, -1])


def _joined(batches) -> dict[str, np.ndarray]:
  batches = list(batches)
  return {key: np.concatenate([b[key] for b in batches]) for key in batches[0]}


def _train(cache, count, batch_size=8, **settings):
  settings = dict(seed=_SEED) | settings
  data = codes_lib.training_batches(cache, batch_size=batch_size, **settings)
  return _joined(data.take(count).as_numpy_iterator())


def _stage2(**data) -> config_lib.Stage2Config:
  config = presets.stage2('tiny')
  model = dataclasses.replace(
    config.model, grid_size=_GRID, codebook_size=_CODES, num_classes=3
  )
  return dataclasses.replace(config, model=model, data=_data(**data))


class CodesTest(parameterized.TestCase, tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = pathlib.Path(tf.compat.v1.test.get_temp_dir()) / 'cache-kept'
    shutil.rmtree(folder, ignore_errors=True)
    _write(folder)
    cls.cache = codes_lib.Cache(folder)

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
    cache = codes_lib.Cache(self._new)
    images, labels = pipeline.evaluation_arrays(_source(), _data())
    for split, crops in ((cache.train, _CROPS), (cache.evaluation, 1)):
      self.assertAllEqual(_everything(split), [_encode(images)] * crops)
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
    with self.assertRaisesRegex(ValueError, 'does not divide among 3'):
      _train(self.cache, 1, input_context=tf.distribute.InputContext(3, 0, 3))

  def test_types_and_shapes(self):
    training = codes_lib.training_batches(self.cache, batch_size=8, seed=0)
    held_out = codes_lib.evaluation_batches(self.cache, batch_size=8)
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
    found = codes_lib.evaluation_batches(self.cache, **settings)
    images = pipeline.evaluation_batches(_source(), _data(), **settings)
    found, images = (_joined(x.as_numpy_iterator()) for x in (found, images))
    self.assertAllEqual(found['mask'], images['mask'])
    keep = found['mask'] > 0
    self.assertAllEqual(found['codes'][keep], _encode(images['images'])[keep])
    self.assertAllEqual(found['labels'][keep], images['labels'][keep])

  def test_streamed_data_keep_their_numbers(self):
    _write(self._new, _crops(_data(), _streamed))
    split = codes_lib.Cache(self._new).train
    indices = np.arange(41) * 7 + 100
    self.assertAllEqual(split.indices, indices)
    self.assertAllEqual(split.labels, _LABELS)
    # Augmented by their numbers, as a streamed run would.
    images = next(
      iter(
        pipeline.epoch_batches(
          _streamed(), _data(), batch_size=41, seed=_SEED, epoch=1
        )
      )
    )['images']
    found = _everything(split)[1]
    self.assertAllEqual(found, _encode(images))
    self.assertNotAllEqual(found, _everything(self.cache.train)[1])

  # ----------------------------------------------------------------- on disk

  def test_files_are_as_documented(self):
    folder = self.cache.path
    manifest = json.loads((folder / 'manifest.json').read_text())
    self.assertEqual(manifest['class_names'], ['a', 'b', 'c'])
    self.assertEqual(manifest['tokenizer_fingerprint'], _TOKENIZER)
    self.assertEqual(manifest['licence'], 'CC0')
    self.assertEqual(manifest['data']['crop'], 'shift')
    self.assertEqual(manifest['versions']['numpy'], np.__version__)
    train = manifest['splits']['train']
    self.assertEqual(train['fingerprint'], _source().fingerprint)
    self.assertEqual((train['examples'], train['crops']), (41, _CROPS))
    for number, rows in enumerate([16, 16, 9]):
      shard, arrays = train['shards'][number], {}
      self.assertEqual(shard['examples'], rows)
      for kind in ('codes', 'labels', 'indices'):
        name = f'train-{kind}-{number:05d}-of-00003.npy'
        content = (folder / name).read_bytes()
        arrays[kind] = np.load(folder / name, mmap_mode='r')
        again = io.BytesIO()
        np.save(again, arrays[kind])
        self.assertEqual(content, again.getvalue())
        self.assertEqual(
          shard[kind],
          {
            'file': name,
            'shape': list(arrays[kind].shape),
            'dtype': arrays[kind].dtype.name,
            'bytes': len(content),
            'sha256': hashlib.sha256(content).hexdigest(),
          },
        )
      expected = _crops(_data())['train']
      for crop in range(_CROPS):
        for kind in arrays:
          found = arrays[kind][crop] if kind == 'codes' else arrays[kind]
          self.assertAllEqual(found, expected[crop][number][kind])
      self.assertEqual(arrays['codes'].dtype, np.uint16)
      self.assertEqual(arrays['codes'].shape, (_CROPS, rows, _GRID**2))
    names = {path.name for path in folder.iterdir()}
    self.assertLen(names, 2 * 3 * 3 + 1)
    self.assertEqual(self.cache.description, _description())

  @parameterized.parameters((2**16, np.uint16), (2**16 + 1, np.int32))
  def test_large_codebooks(self, size, dtype):
    codes = np.arange(9) * 2**12 + 7 + size - 2**16
    crops = {name: [] for name in ('train', 'evaluation')}
    for name, count in (('train', _CROPS), ('evaluation', 1)):
      batch = dict(
        codes=np.tile(codes, [_BATCH, 1]),
        labels=np.full([_BATCH], 2),
        indices=np.arange(_BATCH),
      )
      last = {kind: x[:9] for kind, x in batch.items()}
      crops[name] = [[batch, batch, last]] * count
    _write(self._new, crops, codebook_size=size)
    cache = codes_lib.Cache(self._new)
    cache.check_files()
    self.assertAllEqual(
      _everything(cache.train), np.tile(codes, [_CROPS, 41, 1])
    )
    path = self._new / 'train-codes-00000-of-00003.npy'
    self.assertEqual(np.load(path).dtype, dtype)

  @parameterized.parameters(
    (1, [16, 16, 9]),
    (2 * 16 * 9 * 2 * _CROPS - 1, [16, 16, 9]),
    (2 * 16 * 9 * 2 * _CROPS, [32, 9]),
    (10_000, [41]),
  )
  def test_shards_hold_whole_batches(self, shard_bytes, expected):
    parts = {'train': codes_writer.Part('train', '', 41, _CROPS)}
    shards = codes_writer.plan(_description(), parts, _BATCH, shard_bytes)
    self.assertEqual([len(shard.examples) for shard in shards], expected)
    places = [place for shard in shards for place in shard.examples]
    self.assertEqual(places, list(range(41)))

  def test_same_codes_same_fingerprint(self):
    for name, changes in (('a', {}), ('b', {}), ('c', {'seed': 6})):
      _write(self._new / name, **changes)
    first, again, other = (
      codes_lib.Cache(self._new / name).fingerprint for name in 'abc'
    )
    self.assertEqual(first, again)
    self.assertEqual(first, self.cache.fingerprint)
    self.assertNotEqual(first, other)

  def test_shards_that_are_written_one_by_one(self):
    """As by many workers, of which one was lost while it wrote."""
    description, parts = _description(), _parts()
    shards = codes_writer.plan(description, parts, _BATCH, 1)
    with codes_writer.new_folder(self._new) as folder:
      for shard in reversed(shards):
        own = slice(shard.examples.start // _BATCH, None)
        crops = [iter(crop[own]) for crop in _crops(_data())[shard.part]]
        codes_writer.write_shard(folder, description, shard, crops)
      (folder / 'train-codes-00000-of-00003.npy.writing-0').touch()
      codes_writer.finish(folder, description, parts, shards)
    names = sorted(path.name for path in self.cache.path.iterdir())
    self.assertEqual(sorted(path.name for path in self._new.iterdir()), names)
    for name in names:
      expected = (self.cache.path / name).read_bytes()
      self.assertEqual((self._new / name).read_bytes(), expected)

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

  def test_full_disk(self):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, old[1]))
    try:
      with self.assertRaisesRegex(
        errors.DataError, 'Cannot write to'
      ) as caught:
        _write(self._new)
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, old)
    self.assertNotIn('\n', str(caught.exception))
    self.assertNotIn('None', str(caught.exception))
    self._assert_nothing_left()

  @parameterized.parameters(
    (9, '16 .* but 9'),
    (25, '32 .* but 25'),
    (32, '41 .* but 32'),
    (40, '41 .* but 40'),
    (42, '41 .* but at least 42'),
    (60, '41 .* but at least 48'),
  )
  def test_other_number_of_examples(self, announced, text):
    with self.assertRaisesRegex(
      errors.DataError, f"'noise' gave {text} were announced"
    ):
      _write(self._new, examples=announced)
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
      codes_lib.Cache(self._new).check_files()
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
      (b'{"format": 99}', 'of format 99, but 2 can be read'),
      (b'{"format": 1}', 'of format 1 .codes in TFRecords., .* encode the'),
      (b'{"format": 2}', "damaged .KeyError: 'data'"),
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
      (lambda m: m.update(grid_size=4), r'train-codes-.* not <u2 .3, 16, 16.'),
      (lambda m: m.update(codebook_size=2**17), 'not <i4 .3, 16, 9.'),
      (lambda m: m['data'].update(what=1), 'has no setting what'),
      (lambda m: m['splits']['train'].update(examples=42), '41 of 42 examples'),
      (lambda m: m['splits']['train'].update(examples=0), '41 of 0 examples'),
      (lambda m: m['splits']['train'].update(crops=2), 'not <u2 .2, 16, 9.'),
      (lambda m: m['splits']['train']['shards'].pop(), '32 of 41 examples'),
      (
        lambda m: m['splits']['train']['shards'][1].update(examples=15),
        'train-codes-00001-of-00003.npy cannot be used .*not <u2 .3, 15, 9.',
      ),
    ):
      manifest = json.loads(json.dumps(whole))
      change(manifest)
      file.write_text(json.dumps(manifest))
      self._assert_refused(text)

  @parameterized.parameters('codes', 'labels', 'indices')
  def test_damaged_files(self, kind):
    shutil.copytree(self.cache.path, self._new)
    path = self._new / f'train-{kind}-00002-of-00003.npy'
    content = path.read_bytes()
    for short in (content[:-1], content[:20], b''):
      path.write_bytes(short)
      self._assert_refused(f'{path} .*cut short or changed, {len(short)} bytes')
    path.write_bytes(bytes(len(content)))
    self._assert_refused(f'{path} cannot be used .*magic')
    path.unlink()
    self._assert_refused(f'{path} cannot be used .No such file')
    for place in (len(content) - 1, 140):
      changed = bytearray(content)
      changed[place] ^= 1
      path.write_bytes(changed)
      self._assert_refused(f'^{path} is damaged: its hash')
    path.write_bytes(content)
    codes_lib.Cache(self._new).check_files()

  @parameterized.parameters(
    ('codes', _CODES, r'codes range from \d+ to 32, but .* \[0, 32\)'),
    ('labels', 3, r'labels range from \d+ to 3, but .* \[0, 3\)'),
    ('labels', -1, 'labels range from -1'),
  )
  def test_files_made_by_hand(self, kind, value, text):
    """Their hashes are right, what is in them is not."""
    shutil.copytree(self.cache.path, self._new)
    path = self._new / f'train-{kind}-00001-of-00003.npy'
    array = np.load(path)
    array.flat[-1] = value
    np.save(path, array)
    file = self._new / 'manifest.json'
    manifest = json.loads(file.read_text())
    entry = manifest['splits']['train']['shards'][1][kind]
    entry['sha256'] = hashlib.sha256(path.read_bytes()).hexdigest()
    file.write_text(json.dumps(manifest))
    self._assert_refused(f'train-codes-00001-of-00003.npy .*{text}')

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
