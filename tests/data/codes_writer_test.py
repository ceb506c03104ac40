"""How a cache of codes is written, and when it is not."""

import hashlib
import io
import json
import resource

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests.data import noise
from vim_tf.data import codes as codes_lib
from vim_tf.data import codes_writer, errors


class CodesWriterTest(noise.TestCase):
  def test_files_are_as_documented(self):
    folder = self.cache.path
    manifest = json.loads((folder / 'manifest.json').read_text())
    self.assertEqual(manifest['class_names'], ['a', 'b', 'c'])
    self.assertEqual(manifest['tokenizer_fingerprint'], noise.TOKENIZER)
    self.assertEqual(manifest['licence'], 'CC0')
    self.assertEqual(manifest['data']['crop'], 'shift')
    self.assertEqual(manifest['versions']['numpy'], np.__version__)
    train = manifest['splits']['train']
    self.assertEqual(train['fingerprint'], noise.source().fingerprint)
    self.assertEqual((train['examples'], train['crops']), (41, noise.CROPS))
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
      expected = noise.crops(noise.data())['train']
      for crop in range(noise.CROPS):
        for kind in arrays:
          found = arrays[kind][crop] if kind == 'codes' else arrays[kind]
          self.assertAllEqual(found, expected[crop][number][kind])
      self.assertEqual(arrays['codes'].dtype, np.uint16)
      self.assertEqual(
        arrays['codes'].shape, (noise.CROPS, rows, noise.GRID**2)
      )
    names = {path.name for path in folder.iterdir()}
    self.assertLen(names, 2 * 3 * 3 + 1)
    self.assertEqual(self.cache.description, noise.description())

  @parameterized.parameters((2**16, np.uint16), (2**16 + 1, np.int32))
  def test_large_codebooks(self, size, dtype):
    codes = np.arange(9) * 2**12 + 7 + size - 2**16
    crops = {name: [] for name in ('train', 'evaluation')}
    for name, count in (('train', noise.CROPS), ('evaluation', 1)):
      batch = dict(
        codes=np.tile(codes, [noise.BATCH, 1]),
        labels=np.full([noise.BATCH], 2),
        indices=np.arange(noise.BATCH),
      )
      last = {kind: x[:9] for kind, x in batch.items()}
      crops[name] = [[batch, batch, last]] * count
    noise.write(self._new, crops, codebook_size=size)
    cache = codes_lib.Cache(self._new)
    cache.check_files()
    self.assertAllEqual(
      noise.everything(cache.train), np.tile(codes, [noise.CROPS, 41, 1])
    )
    path = self._new / 'train-codes-00000-of-00003.npy'
    self.assertEqual(np.load(path).dtype, dtype)

  @parameterized.parameters(
    (1, [16, 16, 9]),
    (2 * 16 * 9 * 2 * noise.CROPS - 1, [16, 16, 9]),
    (2 * 16 * 9 * 2 * noise.CROPS, [32, 9]),
    (10_000, [41]),
  )
  def test_shards_hold_whole_batches(self, shard_bytes, expected):
    parts = {'train': codes_writer.Part('train', '', 41, noise.CROPS)}
    shards = codes_writer.plan(
      noise.description(), parts, noise.BATCH, shard_bytes
    )
    self.assertEqual([len(shard.examples) for shard in shards], expected)
    places = [place for shard in shards for place in shard.examples]
    self.assertEqual(places, list(range(41)))

  def test_same_codes_same_fingerprint(self):
    for name, changes in (('a', {}), ('b', {}), ('c', {'seed': 6})):
      noise.write(self._new / name, **changes)
    first, again, other = (
      codes_lib.Cache(self._new / name).fingerprint for name in 'abc'
    )
    self.assertEqual(first, again)
    self.assertEqual(first, self.cache.fingerprint)
    self.assertNotEqual(first, other)

  def test_shards_that_are_written_one_by_one(self):
    """As by many workers, of which one was lost while it wrote."""
    description, parts = noise.description(), noise.parts()
    shards = codes_writer.plan(description, parts, noise.BATCH, 1)
    with codes_writer.new_folder(self._new) as folder:
      for shard in reversed(shards):
        own = slice(shard.examples.start // noise.BATCH, None)
        crops = [
          iter(crop[own]) for crop in noise.crops(noise.data())[shard.part]
        ]
        codes_writer.write_shard(folder, description, shard, crops)
      (folder / 'train-codes-00000-of-00003.npy.writing-0').touch()
      codes_writer.finish(folder, description, parts, shards)
    names = sorted(path.name for path in self.cache.path.iterdir())
    self.assertEqual(sorted(path.name for path in self._new.iterdir()), names)
    for name in names:
      expected = (self.cache.path / name).read_bytes()
      self.assertEqual((self._new / name).read_bytes(), expected)

  def _assert_nothing_left(self):
    parent = self._new.parent
    self.assertEmpty([p for p in parent.iterdir() if p.name != 'file'])

  def test_full_disk(self):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, old[1]))
    try:
      with self.assertRaisesRegex(
        errors.DataError, 'Cannot write to'
      ) as caught:
        noise.write(self._new)
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
      noise.write(self._new, examples=announced)
    self._assert_nothing_left()

  @parameterized.parameters(
    ({'codebook_size': noise.CODES - 1}, 'codes range'),
    ({'class_names': ('a', 'b')}, 'labels range'),
  )
  def test_out_of_range(self, changes, text):
    with self.assertRaisesRegex(ValueError, text):
      noise.write(self._new, **changes)
    self._assert_nothing_left()


if __name__ == '__main__':
  tf.test.main()
