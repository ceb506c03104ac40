"""Writes the codes of a data set into a cache; `code_cache` reads it."""

from collections.abc import Iterable
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import shutil

import numpy as np

from vim_tf.data import code_cache, records
from vim_tf.data.errors import DataError

_VERSIONS_OF = ('tensorflow', 'keras', 'tensorflow-datasets', 'numpy')


@dataclasses.dataclass(frozen=True)
class Content:
  """One split to be written.

  Attributes:
    split: Its name in the data set.
    fingerprint: That of the source.
    examples: Number of its examples.
    crops: For each crop the batches of all examples in one order:
      dictionaries of arrays 'codes' int `[count, num_codes]`, 'labels' int
      `[count]` and 'indices' int `[count]`.
  """

  split: str
  fingerprint: str
  examples: int
  crops: list[Iterable[dict[str, np.ndarray]]]


def write(
  folder: str | os.PathLike,
  description: code_cache.Description,
  train: Content,
  evaluation: Content,
  shard_bytes: int,
):
  """Writes a cache under another name, then renames it.

  Args:
    folder: Where it shall be; must not exist.
    description: What its codes are.
    train: The training split.
    evaluation: The held-out split, in one crop.
    shard_bytes: Size of a file at most.

  Raises:
    DataError: If the folder exists or cannot be written, or the examples are
      not as many as announced.
    ValueError: If codes or labels are out of range.
  """
  folder = pathlib.Path(folder)
  check_new(folder)
  temporary = folder.with_name(f'{folder.name}.writing-{os.getpid()}')
  try:
    temporary.mkdir(parents=True)
    splits = {
      name: _write_split(temporary, description, name, content, shard_bytes)
      for name, content in (
        (code_cache.TRAIN, train),
        (code_cache.EVALUATION, evaluation),
      )
    }
    write_manifest(temporary, description, splits)
    check_new(folder)
    os.rename(temporary, folder)
  except OSError as error:
    raise DataError(f'Cannot write to {folder}: {error.strerror}.') from error
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def write_manifest(
  folder: pathlib.Path, description: code_cache.Description, splits: dict
):
  """Writes what makes a folder of TFRecords a cache.

  Args:
    folder: Where the records lie.
    description: What they are.
    splits: For 'train' and 'evaluation' what `split_record` gives.
  """
  manifest = {
    'format': code_cache.FORMAT,
    **dataclasses.asdict(description),
    'image_size': description.data.image_size,
    'code_type': np.dtype(description.code_type).name,
    'record_bytes': description.record_bytes,
    'splits': splits,
    'versions': {
      name: importlib.metadata.version(name) for name in _VERSIONS_OF
    },
  }
  text = json.dumps(manifest, indent=2) + '\n'
  (folder / code_cache.MANIFEST).write_text(text)


def split_record(
  split: str,
  fingerprint: str,
  examples: int,
  crops: int,
  shards: list[records.Shard],
) -> dict:
  """A split's part of the manifest; for the arguments see `Content`."""
  return {
    'split': split,
    'fingerprint': fingerprint,
    'examples': examples,
    'crops': crops,
    'shards': [dataclasses.asdict(shard) for shard in shards],
  }


def payloads(
  description: code_cache.Description,
  batch: dict[str, np.ndarray],
  crop: int,
) -> list[bytes]:
  """The records of a batch.

  Raises:
    ValueError: If codes or labels are out of range.
  """
  _check_range('codes', batch['codes'], description.codebook_size)
  _check_range('labels', batch['labels'], len(description.class_names))
  return [
    description.serialize(codes, label, index, crop)
    for codes, label, index in zip(
      batch['codes'], batch['labels'], batch['indices'], strict=True
    )
  ]


def check_new(folder: str | os.PathLike):
  """Raises a `DataError` if there is such a folder already."""
  if pathlib.Path(folder).exists():
    raise DataError(f'{folder} exists already; name a new folder.')


def _write_split(
  folder: pathlib.Path,
  description: code_cache.Description,
  name: str,
  content: Content,
  shard_bytes: int,
) -> dict:
  """Writes all records of a split; returns its part of the manifest."""
  writer = records.Writer(
    folder,
    name,
    content.examples * len(content.crops),
    description.record_bytes,
    shard_bytes,
  )
  for crop, batches in enumerate(content.crops):
    count = 0
    for batch in batches:
      count += len(batch['codes'])
      if count > content.examples:
        break
      for payload in payloads(description, batch, crop):
        writer.write(payload)
    if count != content.examples:
      raise DataError(
        f'Split {content.split!r} of {description.data.name!r} was to have '
        f'{content.examples} examples, but gave {count}'
        f'{" or more" if count > content.examples else ""}.'
      )
  return split_record(
    content.split,
    content.fingerprint,
    content.examples,
    len(content.crops),
    writer.finish(),
  )


def _check_range(name: str, values: np.ndarray, limit: int):
  if values.size and not 0 <= values.min() <= values.max() < limit:
    raise ValueError(
      f'{name} range from {values.min()} to {values.max()}, but must be in '
      f'[0, {limit}).'
    )
