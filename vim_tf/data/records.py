"""TFRecord files whose records are all of one length, read in any order.

The files are plain TFRecords. Because one record is as long as the next, the
place of each is computed: training draws them in any order without an index
or a shuffle buffer, and the size of a file tells whether it is whole. What is
read is held against the checksum that TFRecords carry.
"""

from collections.abc import Iterable, Sequence
import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
import struct
import weakref

import numpy as np
import tensorflow as tf

from vim_tf.data import bad_examples
from vim_tf.data.errors import DataError

FRAME_BYTES = 16
"""What a TFRecord adds: a length with its checksum, the data's checksum."""

_HEADER_BYTES = 12
_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), bits reversed.


@dataclasses.dataclass(frozen=True)
class Shard:
  """One file of records.

  Attributes:
    file: Its name, without the folder.
    records: Records in it.
    bytes: Its size.
    sha256: Hash of it, in hexadecimal.
  """

  file: str
  records: int
  bytes: int
  sha256: str


def plan(
  name: str, num_records: int, payload_bytes: int, shard_bytes: int
) -> list[tuple[str, range]]:
  """Which records go into which file.

  Args:
    name: What the files' names begin with.
    num_records: How many records there will be.
    payload_bytes: Length of each record's data.
    shard_bytes: Size of a file at most; one record at least goes into each.

  Returns:
    For each file its name and the numbers of its records.
  """
  most = max(1, shard_bytes // (payload_bytes + FRAME_BYTES))
  num_shards = max(1, -(-num_records // most))
  # Evenly, rather than full ones and a small one at the end.
  per_shard = -(-num_records // num_shards)
  firsts = range(0, num_records, per_shard)
  return [
    (
      f'{name}-{number:05d}-of-{len(firsts):05d}.tfrecord',
      range(first, min(first + per_shard, num_records)),
    )
    for number, first in enumerate(firsts)
  ]


def write_shard(path: os.PathLike, payloads: Iterable[bytes]) -> Shard:
  """Writes one file whole, under another name first.

  Raises:
    DataError: If it cannot be written.
  """
  path = pathlib.Path(path)
  temporary = path.with_name(f'{path.name}.{os.getpid()}')
  count = 0
  try:
    with tf.io.TFRecordWriter(str(temporary)) as file:
      for payload in payloads:
        file.write(payload)
        count += 1
    os.replace(temporary, path)
    return describe(path, count)
  except (OSError, tf.errors.OpError) as error:
    raise DataError(f'Cannot write {path}: {error}.') from error


def describe(path: pathlib.Path, count: int) -> Shard:
  """What there is to say of a file of so many records."""
  with open(path, 'rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  return Shard(path.name, count, path.stat().st_size, digest)


class Writer:
  """Spreads records over numbered files of about one size.

  Args:
    folder: Where the files go.
    name: What their names begin with.
    num_records: How many records there will be.
    payload_bytes: Length of each record's data.
    shard_bytes: Size of a file at most; one record at least goes into each.
  """

  def __init__(
    self,
    folder: os.PathLike,
    name: str,
    num_records: int,
    payload_bytes: int,
    shard_bytes: int,
  ):
    self._folder = pathlib.Path(folder)
    self._num_records = num_records
    self._payload_bytes = payload_bytes
    self._plan = plan(name, num_records, payload_bytes, shard_bytes)
    self._written = 0
    self._file = None
    self._shards = []

  def write(self, payload: bytes):
    """Appends one record.

    Raises:
      DataError: If it cannot be written (a full disk, say).
      ValueError: If it is of another length, or one too many.
    """
    if len(payload) != self._payload_bytes:
      raise ValueError(
        f'A record has {len(payload)} bytes, but all must have '
        f'{self._payload_bytes}.'
      )
    if self._written == self._num_records:
      raise ValueError(f'There are more than {self._num_records} records.')
    name, numbers = self._plan[len(self._shards)]
    path = self._folder / name
    try:
      if self._file is None:
        self._file = tf.io.TFRecordWriter(str(path))
      self._file.write(payload)
      self._written += 1
      if self._written == numbers.stop:
        self._file.close()
        self._file = None
        self._shards.append(describe(path, len(numbers)))
    except (OSError, tf.errors.OpError) as error:
      raise DataError(f'Cannot write {path}: {error}.') from error

  def finish(self) -> list[Shard]:
    """The files, once everything is written.

    Raises:
      ValueError: If records are missing.
    """
    if self._written != self._num_records:
      raise ValueError(
        f'There are {self._written} records instead of {self._num_records}.'
      )
    return self._shards


class Reader:
  """Reads records by their number, counted over all files.

  Args:
    folder: Where the files lie.
    shards: The files, as `Writer.finish` gave them.
    payload_bytes: Length of each record's data.
    whole: Whether to refuse a file that was cut short.

  Raises:
    DataError: If a file is missing, or not as long as its records.
  """

  def __init__(
    self,
    folder: os.PathLike,
    shards: Sequence[Shard],
    payload_bytes: int,
    whole: bool = True,
  ):
    self._paths = [pathlib.Path(folder) / shard.file for shard in shards]
    self._length = payload_bytes + FRAME_BYTES
    self._header = _header(payload_bytes)
    self._firsts = np.cumsum([0, *(shard.records for shard in shards)])
    self._files = {}
    self._open = contextlib.ExitStack()
    weakref.finalize(self, self._open.close)
    for path, shard in zip(self._paths, shards):
      self._check_size(path, shard, whole)

  def __len__(self) -> int:
    return int(self._firsts[-1])

  def read(self, positions: np.ndarray) -> np.ndarray:
    """The data of some records.

    Args:
      positions: Their numbers, int `[count]`, each below `len(self)`.

    Returns:
      Array of `bytes`, `[count]`.

    Raises:
      DataError: If one is damaged; it names the file and the record in it.
    """
    payloads, sound = self._find(positions)
    for wrong in np.flatnonzero(~sound)[:1]:
      raise self._damaged(*self._place(positions[wrong]))
    return payloads

  def read_sound(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Like `read`, but sound records stand in for damaged ones.

    Those of the same positions, or where none is sound the next one by number.

    Returns:
      Array of `bytes`, `[count]`, and whether each is another record's,
      float32 `[count]`.

    Raises:
      DataError: If no record at all is sound.
    """
    payloads, sound = self._find(positions)
    if not sound.all():
      bad_examples.tell(sound, str(self._paths[0].parent))
    if sound.any():
      payloads = payloads[bad_examples.stand_ins(sound)]
    else:
      payloads[:] = self._next_sound(int(positions[-1]))
    return payloads, 1.0 - sound.astype(np.float32)

  def _next_sound(self, position: int) -> bytes:
    for number in range(position + 1, position + len(self)):
      (payload,), (sound,) = self._find(np.array([number % len(self)]))
      if sound:
        return payload
    raise DataError(f'No record in {self._paths[0].parent} can be read.')

  def _place(self, positions):
    """Files and the numbers of records in them."""
    shards = np.searchsorted(self._firsts, positions, 'right') - 1
    return shards, positions - self._firsts[shards]

  def _find(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Records, `bytes` `[count]`, and whether each is sound, bool `[count]`."""
    frames = np.zeros([len(positions), self._length], np.uint8)
    for row, shard, number in zip(frames, *self._place(positions)):
      found = self._pread(shard, int(number) * self._length)
      row[: len(found)] = np.frombuffer(found, np.uint8)  # Or cut short.
    payloads = frames[:, _HEADER_BYTES:-4]
    sound = (frames[:, :_HEADER_BYTES] == self._header).all(axis=1)
    stored = np.ascontiguousarray(frames[:, -4:]).view('<u4')[:, 0]
    sound &= stored == masked_crc32c(payloads)
    out = np.empty(len(positions), object)
    out[:] = [payload.tobytes() for payload in payloads]
    return out, sound

  def _check_size(self, path: pathlib.Path, shard: Shard, whole: bool):
    try:
      size = path.stat().st_size
    except OSError as error:
      raise DataError(
        f'{path} cannot be read: {error.strerror}; encode the data set again.'
      ) from error
    if whole and size != shard.records * self._length:
      raise DataError(
        f'{path} has {size} bytes, but its {shard.records} records of '
        f'{self._length} bytes make {shard.records * self._length}: it was '
        'cut short or changed; encode the data set again.'
      )

  def _pread(self, shard: int, offset: int) -> bytes:
    path = self._paths[shard]
    try:
      if path not in self._files:
        self._files[path] = self._open.enter_context(
          open(path, 'rb', buffering=0)
        )
      return os.pread(self._files[path].fileno(), self._length, offset)
    except OSError as error:
      raise DataError(f'{path} cannot be read: {error.strerror}.') from error

  def _damaged(self, shard: int, number: int) -> DataError:
    return DataError(
      f'Record {number} of {self._paths[shard]} is damaged (counted from 0): '
      'encode the data set again.'
    )


def masked_crc32c(payloads: np.ndarray) -> np.ndarray:
  """The checksums that TFRecords carry, of many payloads at once.

  Args:
    payloads: uint8 `[count, length]`.

  Returns:
    uint32 `[count]`: CRC-32C, rotated and shifted as TFRecords want it.
  """
  table = _table()
  crc = np.full(len(payloads), 0xFFFFFFFF, np.uint32)
  for column in np.ascontiguousarray(payloads.T):
    crc = table[(crc ^ column) & 0xFF] ^ (crc >> 8)
  crc = ~crc
  return ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)


@functools.cache
def _table() -> np.ndarray:
  """CRC-32C of each byte, uint32 `[256]`."""
  values = np.arange(256, dtype=np.uint32)
  for _ in range(8):
    values = (values >> 1) ^ np.where(values & 1, np.uint32(_POLYNOMIAL), 0)
  return values.astype(np.uint32)


def _header(payload_bytes: int) -> np.ndarray:
  """What each record begins with, uint8 `[12]`."""
  length = np.frombuffer(struct.pack('<Q', payload_bytes), np.uint8)
  checksum = masked_crc32c(length[None]).astype('<u4').view(np.uint8)
  return np.concatenate([length, checksum])
