"""Writes the codes of a data set into a cache; `codes` reads it."""

from collections.abc import Iterable, Iterator
import contextlib
import dataclasses
import json
import os
import pathlib

import numpy as np

from vim_tf import compat, files
from vim_tf.data import codes as codes_lib
from vim_tf.data.errors import DataError

Batch = dict[str, np.ndarray]
"""'codes' int `[count, num_codes]`, 'labels' and 'indices' int `[count]`."""


@dataclasses.dataclass(frozen=True)
class Part:
  """What a cache holds of one split.

  Attributes:
    split: Its name in the data set.
    fingerprint: That of the source.
    examples: Number of its examples.
    crops: Crops of each of them.
  """

  split: str
  fingerprint: str
  examples: int
  crops: int


@dataclasses.dataclass(frozen=True)
class Shard:
  """A run of examples with files of their own.

  Attributes:
    part: 'train' or 'evaluation'.
    examples: Their places in it.
    number: Which of the part's shards this is, such as '00000-of-00002'.
  """

  part: str
  examples: range
  number: str

  def file(self, kind: str) -> str:
    """Name of the file with its 'codes', 'labels' or 'indices'."""
    return f'{self.part}-{kind}-{self.number}.npy'


def plan(
  description: codes_lib.Description,
  parts: dict[str, Part],
  batch_size: int,
  shard_bytes: int,
) -> list[Shard]:
  """Which examples go into which files.

  Shards end where batches do: each can be encoded by itself, to the same codes.

  Args:
    description: What the codes are.
    parts: 'train' and 'evaluation'.
    batch_size: Examples that are encoded at once.
    shard_bytes: Size of a file at most; one batch at least goes into each.
  """
  width = np.dtype(description.dtypes['codes']).itemsize * description.num_codes
  shards = []
  for name, part in parts.items():
    batches = max(1, shard_bytes // (batch_size * part.crops * width))
    rows = batches * batch_size
    firsts = range(0, part.examples, rows)
    shards += [
      Shard(
        name,
        range(first, min(first + rows, part.examples)),
        f'{number:05d}-of-{len(firsts):05d}',
      )
      for number, first in enumerate(firsts)
    ]
  return shards


def write(
  folder: str | os.PathLike,
  description: codes_lib.Description,
  parts: dict[str, Part],
  crops: dict[str, list[Iterable[Batch]]],
  batch_size: int,
  shard_bytes: int,
):
  """Writes a cache.

  Args:
    folder: Where it shall be; must not exist.
    description: What its codes are.
    parts: 'train' and 'evaluation'.
    crops: For each of them and each of its crops the batches of all examples.
    batch_size: Examples of a batch.
    shard_bytes: See `plan`.

  Raises:
    DataError: If the folder exists or cannot be written, or the examples are
      not as many as announced.
    ValueError: If codes or labels are out of range.
  """
  left = {name: [iter(crop) for crop in found] for name, found in crops.items()}
  shards = plan(description, parts, batch_size, shard_bytes)
  with new_folder(folder) as temporary:
    for shard in shards:
      write_shard(temporary, description, shard, left[shard.part])
    for name, part in parts.items():
      for crop in left[name]:
        more = sum(len(batch['codes']) for batch in crop)
        _check_count(description, name, part.examples + more, part.examples)
    finish(temporary, description, parts, shards)


def check_new(folder: str | os.PathLike):
  """Raises a `DataError` if there is such a folder already."""
  if pathlib.Path(folder).exists():
    raise DataError(f'{folder} exists already; name a new folder.')


@contextlib.contextmanager
def new_folder(folder: str | os.PathLike) -> Iterator[pathlib.Path]:
  """A folder to write into, which gets its name when all is written.

  Raises:
    DataError: If there is one of that name, or it cannot be written.
  """
  check_new(folder)
  try:
    with files.new_folder(folder) as new:
      yield new
      check_new(folder)
  except OSError as error:
    raise DataError(f'Cannot write to {folder}: {error.strerror}.') from error


def write_shard(
  folder: pathlib.Path,
  description: codes_lib.Description,
  shard: Shard,
  crops: list[Iterator[Batch]],
):
  """Writes the files of a shard, which is held in memory until then.

  Args:
    folder: Where they go.
    description: What the codes are.
    shard: Which examples.
    crops: For each crop their batches; those of later examples are left in it.

  Raises:
    DataError: If there are not as many examples as announced.
    ValueError: If codes or labels are out of range.
  """
  rows = len(shard.examples)
  arrays = {
    kind: np.empty(
      [len(crops), rows, description.num_codes] if kind == 'codes' else [rows],
      dtype,
    )
    for kind, dtype in description.dtypes.items()
  }
  for codes, batches in zip(arrays['codes'], crops):
    out = {**arrays, 'codes': codes}
    first = 0
    for batch in batches:
      description.check_range(batch)
      stop = first + len(batch['codes'])
      for kind, array in out.items():
        array[first:stop] = batch[kind][: rows - first]
      first = stop
      if first >= rows:
        break
    start, stop = shard.examples.start, shard.examples.stop
    _check_count(description, shard.part, start + first, stop)
  for kind, array in arrays.items():
    # A shard may be tried twice at once.
    with (
      files.new_file(folder / shard.file(kind)) as new,
      open(new, 'wb') as file,
    ):
      # np.save would not notice that a disk is full.
      header = np.lib.format.header_data_from_array_1_0(array)
      np.lib.format.write_array_header_1_0(file, header)
      file.write(array.data)


def finish(
  folder: pathlib.Path,
  description: codes_lib.Description,
  parts: dict[str, Part],
  shards: list[Shard],
):
  """Writes the manifest of a folder in which all shards are."""
  files.remove_unfinished(folder)  # Of a worker that was lost.

  def entry(path):
    array = np.load(path, mmap_mode='r')
    return {
      'file': path.name,
      'shape': array.shape,
      'dtype': array.dtype.name,
      'bytes': path.stat().st_size,
      'sha256': files.sha256(path),
    }

  splits = {
    name: {
      **dataclasses.asdict(part),
      'shards': [
        {
          'examples': len(shard.examples),
          **{
            kind: entry(folder / shard.file(kind))
            for kind in description.dtypes
          },
        }
        for shard in shards
        if shard.part == name
      ],
    }
    for name, part in parts.items()
  }
  manifest = {
    'format': codes_lib.FORMAT,
    **dataclasses.asdict(description),
    'splits': splits,
    'versions': compat.versions(),
  }
  text = json.dumps(manifest, indent=2) + '\n'
  (folder / codes_lib.MANIFEST).write_text(text)


def _check_count(description, part: str, count: int, announced: int):
  if count != announced:
    least = 'at least ' if count < announced else ''
    raise DataError(
      f'{description.data.name!r} gave {count} examples for {part!r}, but '
      f'{least}{announced} were announced.'
    )
