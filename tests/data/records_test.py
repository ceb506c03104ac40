"""Records of one length: what is written, read in any order, and refused."""

import dataclasses
import hashlib
import pathlib

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from vim_tf.data import errors, records

_LENGTH = 21


def _payloads(count: int) -> list[bytes]:
  rng = np.random.default_rng(3)
  return [rng.bytes(_LENGTH) for _ in range(count)]


class RecordsTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self._folder = pathlib.Path(self.create_tempdir().full_path)

  def _write(self, count: int, per_shard: int = 4) -> list[records.Shard]:
    size = per_shard * (_LENGTH + records.FRAME_BYTES)
    writer = records.Writer(self._folder, 'part', count, _LENGTH, size)
    for payload in _payloads(count):
      writer.write(payload)
    return writer.finish()

  def _reader(self, shards) -> records.Reader:
    return records.Reader(self._folder, shards, _LENGTH)

  @parameterized.parameters(
    (9, 4, [3, 3, 3]), (10, 4, [4, 4, 2]), (4, 4, [4]), (3, 0, [1, 1, 1])
  )
  def test_shards_are_plain_tfrecords(self, count, per_shard, expected):
    shards = self._write(count, per_shard)
    self.assertEqual([shard.records for shard in shards], expected)
    number = len(expected)
    self.assertEqual(
      [shard.file for shard in shards],
      [f'part-{i:05d}-of-{number:05d}.tfrecord' for i in range(number)],
    )
    paths = [self._folder / shard.file for shard in shards]
    data = tf.data.TFRecordDataset([str(path) for path in paths])
    self.assertEqual(list(data.as_numpy_iterator()), _payloads(count))
    for path, shard in zip(paths, shards):
      content = path.read_bytes()
      self.assertLen(content, shard.bytes)
      self.assertEqual(hashlib.sha256(content).hexdigest(), shard.sha256)

  def test_reads_in_any_order(self):
    reader = self._reader(self._write(10))
    self.assertLen(reader, 10)
    expected = _payloads(10)
    order = np.array([9, 0, 4, 3, 3, 7])
    self.assertEqual(list(reader.read(order)), [expected[i] for i in order])

  def test_checksum_is_that_of_the_standard(self):
    # RFC 3720, B.4: 32 bytes of zeros, of ones and counting up.
    data = np.stack(
      [np.zeros(32, np.uint8), np.full(32, 255, np.uint8), np.arange(32)]
    )
    expected = np.array([0x8A9136AA, 0x62A8AB43, 0x46DD794E], np.uint32)
    masked = ((expected >> 15) | (expected << 17)) + np.uint32(0xA282EAD8)
    found = records.masked_crc32c(data.astype(np.uint8))
    self.assertAllEqual(found, masked)

  @parameterized.parameters(*range(0, _LENGTH + records.FRAME_BYTES, 3))
  def test_any_changed_byte_is_found(self, place):
    shards = self._write(10)
    path = self._folder / shards[1].file
    content = bytearray(path.read_bytes())
    content[2 * (_LENGTH + records.FRAME_BYTES) + place] ^= 4
    path.write_bytes(content)
    reader = self._reader(shards)
    for sound in ([0, 1, 2, 3, 4, 5], [7, 8, 9]):
      reader.read(np.array(sound))
    with self.assertRaisesRegex(
      errors.DataError, f'^Record 2 of {path} is damaged'
    ):
      reader.read(np.array([3, 6, 8]))

  def test_files_of_another_size_are_refused_at_once(self):
    shards = self._write(10)
    path = self._folder / shards[1].file
    whole = path.read_bytes()
    for content in (whole[:-1], b'', whole + whole[:37]):
      path.write_bytes(content)
      with self.assertRaisesRegex(
        errors.DataError,
        f'{path} has {len(content)} bytes, but its 4 records .* make 148',
      ):
        self._reader(shards)
    path.write_bytes(whole)
    wrong = dataclasses.replace(shards[2], records=3)
    with self.assertRaisesRegex(errors.DataError, 'its 3 records'):
      self._reader([*shards[:2], wrong])
    path.unlink()
    with self.assertRaisesRegex(errors.DataError, f'{path} cannot be read'):
      self._reader(shards)

  def test_a_file_cut_short_while_it_is_read(self):
    shards = self._write(10)
    reader = self._reader(shards)
    path = self._folder / shards[0].file
    path.write_bytes(path.read_bytes()[:50])
    with self.assertRaisesRegex(errors.DataError, f'Record 1 of {path}'):
      reader.read(np.array([0, 1]))

  def test_writer_wants_what_was_announced(self):
    writer = records.Writer(self._folder, 'part', 1, _LENGTH, 1000)
    with self.assertRaisesRegex(ValueError, '20 bytes, but all must have 21'):
      writer.write(bytes(20))
    with self.assertRaisesRegex(ValueError, '0 records instead of 1'):
      writer.finish()
    writer.write(bytes(_LENGTH))
    with self.assertRaisesRegex(ValueError, 'more than 1 records'):
      writer.write(bytes(_LENGTH))


if __name__ == '__main__':
  tf.test.main()
