"""Codes of a data set in files, so that stage 2 need not encode its images.

A cache is a folder of NumPy arrays and a `manifest.json` that describes them:

  codes = np.load('codes/train-codes-00000-of-00001.npy', mmap_mode='r')
  labels = np.load('codes/train-labels-00000-of-00001.npy')
  codes[k, i], labels[i]  # Crop k of example i, and its class.

Codes are `[crops, examples, num_codes]` in raster order, uint16, or int32 for
more than 65,536 of them; labels are int32 and indices, the identities of the
examples, int64 `[examples]`. A large split is cut into several such shards.

Crop k of an example is what a run whose seed is the cache's would draw the time
after k earlier ones. A run with that seed thus sees, for as many epochs as
there are crops, exactly the codes that it would make online; then they come
round again. Held-out examples are there in their centre crop.
"""

import dataclasses
import hashlib
import json
import os
import pathlib

from absl import logging
import numpy as np
import tensorflow as tf

from vim_tf import config as config_lib
from vim_tf import files as files_lib
from vim_tf.data import pipeline
from vim_tf.data.errors import DataError

FORMAT = 2
MANIFEST = 'manifest.json'
TRAIN, EVALUATION = 'train', 'evaluation'


@dataclasses.dataclass(frozen=True)
class Description:
  """What the codes of a cache are.

  Attributes:
    data: The images and how they were augmented.
    class_names: Names of the classes.
    licence: Licence and origin of the images, '' if unknown.
    tokenizer_fingerprint: Hash of the weights that made the codes.
    tokenizer_step: Steps that those were trained for.
    precision: What they computed in, 'float32' or 'bfloat16'.
    codebook_size: Number of codes.
    grid_size: Codes along one side of an image.
    crops_per_image: Augmented crops of each training image.
    seed: Seed of the augmentation.
  """

  data: config_lib.DataConfig
  class_names: tuple[str, ...]
  licence: str
  tokenizer_fingerprint: str
  tokenizer_step: int
  precision: str
  codebook_size: int
  grid_size: int
  crops_per_image: int
  seed: int

  @property
  def num_codes(self) -> int:
    """Codes of one image."""
    return self.grid_size**2

  @property
  def dtypes(self) -> dict[str, str]:
    """How NumPy calls the types of 'codes', 'labels' and 'indices'."""
    codes = '<u2' if self.codebook_size <= 2**16 else '<i4'
    return {'codes': codes, 'labels': '<i4', 'indices': '<i8'}

  def check_range(self, arrays: dict[str, np.ndarray]):
    """Raises a `ValueError` unless codes and labels are such as there are."""
    for kind, limit in (
      ('codes', self.codebook_size),
      ('labels', len(self.class_names)),
    ):
      x = arrays[kind]
      if x.size and not 0 <= x.min() <= x.max() < limit:
        found = f'{kind} range from {x.min()} to {x.max()}'
        raise ValueError(f'{found}, but must be in [0, {limit}).')


class Split:
  """One split of a cache.

  Attributes:
    split: Its name in the data set.
    fingerprint: That of the source.
    num_examples: Number of its examples.
    crops: Crops of each of them.
    labels: Class of each example, int32 `[num_examples]`.
    indices: Identity of each example, int64 `[num_examples]`.
  """

  def __init__(self, folder: pathlib.Path, description: Description, entry):
    self.split = str(entry['split'])
    self.fingerprint = str(entry['fingerprint'])
    self.num_examples = int(entry['examples'])
    self.crops = int(entry['crops'])
    self._num_codes = description.num_codes
    self.shards = []
    for files in entry['shards']:
      rows = int(files['examples'])
      shape = {'codes': (self.crops, rows, self._num_codes)}
      self.shards.append(
        {
          kind: _open(folder, files[kind], dtype, shape.get(kind, (rows,)))
          for kind, dtype in description.dtypes.items()
        }
      )
    rows = [len(shard['labels']) for shard in self.shards]
    self._firsts = np.cumsum([0, *rows])
    if not self.num_examples == sum(rows) > 0:
      raise ValueError(f'files of {sum(rows)} of {self.num_examples} examples')
    self.labels, self.indices = (
      np.concatenate([shard[kind] for shard in self.shards])
      for kind in ('labels', 'indices')
    )

  def read(self, examples: tf.Tensor, crops: tf.Tensor) -> tf.Tensor:
    """Codes of some crops of some examples; also for use inside `tf.data`.

    Args:
      examples: Places of the examples, int64 `[count]`.
      crops: Which crop of each, int64 `[count]`.

    Returns:
      int32 `[count, num_codes]`.
    """

    def find(examples, crops):
      shards = np.searchsorted(self._firsts, examples, 'right') - 1
      rows = examples - self._firsts[shards]
      found = np.empty([len(examples), self._num_codes], np.int32)
      for out, shard, crop, row in zip(found, shards, crops, rows):
        out[:] = self.shards[shard]['codes'][crop, row]
      return found

    found = tf.numpy_function(find, [examples, crops], tf.int32)
    return tf.ensure_shape(found, [examples.shape[0], self._num_codes])


class Cache:
  """A cache to read from.

  Args:
    folder: What `codes_writer.write` wrote.

  Attributes:
    path: The folder.
    description: What its codes are.
    train: The training split, in several crops.
    evaluation: The held-out split, in its centre crop.
    fingerprint: Hash of the manifest, which holds hashes of all files.

  Raises:
    DataError: If it is no cache, or a file is missing, cut short or of another
      shape. What is in the files is checked by `check_files` alone.
  """

  def __init__(self, folder: str | os.PathLike):
    self.path = pathlib.Path(folder)
    self._manifest = manifest = _read_manifest(self.path)
    try:
      self.description = _describe(manifest)
      self.train, self.evaluation = (
        Split(self.path, self.description, manifest['splits'][name])
        for name in (TRAIN, EVALUATION)
      )
    except (KeyError, TypeError, ValueError) as error:
      if isinstance(error, DataError):
        raise
      raise DataError(
        f'{self.path / MANIFEST} is damaged ({type(error).__name__}: {error}); '
        'encode the data set again.'
      ) from error
    text = json.dumps(manifest, sort_keys=True)
    self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]

  def check_files(self):
    """Refuses files that are not what was written.

    It reads all of them; drawn in random order, a run would do so within its
    first steps.

    Raises:
      DataError: If a hash differs, or codes or labels are out of range.
    """
    logging.info('Checking the hashes of %s.', self.path)
    for name, split in ((TRAIN, self.train), (EVALUATION, self.evaluation)):
      entries = self._manifest['splits'][name]['shards']
      for entry, arrays in zip(entries, split.shards):
        for kind in arrays:
          path = self.path / entry[kind]['file']
          if files_lib.sha256(path) != entry[kind]['sha256']:
            raise DataError(
              f'{path} is damaged: its hash is not that in {MANIFEST}; encode '
              'the data set again.'
            )
        try:
          self.description.check_range(arrays)
        except ValueError as error:
          path = self.path / entry['codes']['file']
          raise DataError(f'{path} cannot be used: {error}') from error

  def check_fits(
    self, config: config_lib.Stage2Config, tokenizer_fingerprint: str
  ):
    """Refuses a run for which these codes are the wrong ones.

    Args:
      config: The run's settings.
      tokenizer_fingerprint: That of its tokenizer.

    Raises:
      DataError: If sizes, classes, data or the tokenizer differ.
    """
    ours = self.description
    for name, found, wanted in (
      ('codebook_size', ours.codebook_size, config.model.codebook_size),
      ('grid_size', ours.grid_size, config.model.grid_size),
      ('tokenizer', ours.tokenizer_fingerprint, tokenizer_fingerprint),
    ):
      if found != wanted:
        what = 'fingerprint of the ' if name == 'tokenizer' else ''
        raise DataError(
          f'The codes in {self.path} are of another tokenizer: {what}{name} '
          f'is {found}, but {wanted} in this run; encode the data set with '
          "this run's tokenizer."
        )
    if config.model.num_classes not in (0, len(ours.class_names)):
      raise DataError(
        f'The codes in {self.path} are of {len(ours.class_names)} classes, '
        f'but model.num_classes is {config.model.num_classes}: set it to '
        f'{len(ours.class_names)}, or to 0 for an unconditional model.'
      )
    theirs = config_lib.to_dict(config.data)
    differing = {
      name: value
      for name, value in config_lib.to_dict(ours.data).items()
      # Neither changes what is in the cache.
      if name not in ('data_dir', 'balance_classes') and value != theirs[name]
    }
    if differing:
      flags = ' '.join(
        f'--set=data.{name}='
        f'{value if isinstance(value, str) else json.dumps(value)}'
        for name, value in differing.items()
      )
      raise DataError(
        f'The codes in {self.path} are of other images than this run is to '
        f'have: give {flags}, or encode the data set anew.'
      )


@tf.autograph.experimental.do_not_convert
def training_batches(
  cache: Cache,
  *,
  batch_size: int,
  seed: int,
  start_step: int = 0,
  balance_classes: bool = False,
  input_context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
  """Endless batches of codes, drawn as `pipeline.training_batches` draws.

  An example that was drawn r times before gives its crop r modulo the number
  of crops. For the arguments and errors see there.

  Returns:
    Dictionaries: `codes`, int32 `[batch, num_codes]`; `labels`, int32
    `[batch]`; `seeds`, uint32 `[batch]`. `batch` is `batch_size` divided by
    the number of input pipelines.
  """
  split = cache.train
  _, share = pipeline.own_share(batch_size, input_context)
  start = start_step * batch_size
  data = pipeline.draw_examples(
    split.num_examples,
    split.labels if balance_classes else None,
    seed=seed,
    epoch=start // split.num_examples,
  )
  data = data.skip(start % split.num_examples)
  labels = tf.constant(split.labels)

  def read(batch):
    batch = share(batch)
    return dict(
      codes=split.read(batch['index'], batch['round'] % split.crops),
      labels=tf.gather(labels, batch['index']),
      seeds=batch['seed'],
    )

  data = data.batch(batch_size, drop_remainder=True).map(read).prefetch(2)
  return data.with_options(pipeline.options())


@tf.autograph.experimental.do_not_convert
def evaluation_batches(
  cache: Cache, *, batch_size: int, max_examples: int | None = None
) -> tf.data.Dataset:
  """One pass over held-out codes in their order, at most some spread evenly.

  Returns:
    Dictionaries: `codes`, int32 `[batch_size, num_codes]`; `labels`, int32
    `[batch_size]`; `mask`, float32 `[batch_size]`: 1, or 0 for the copies
    that fill up the last batch.
  """
  split = cache.evaluation
  count = min(split.num_examples, max_examples or split.num_examples)
  places = np.arange(-(-count // batch_size) * batch_size)
  examples = places % count * split.num_examples // count
  data = tf.data.Dataset.from_tensor_slices(
    dict(
      examples=examples,
      labels=split.labels[examples],
      mask=(places < count).astype(np.float32),
    )
  )

  def read(batch):
    examples = batch.pop('examples')
    return dict(codes=split.read(examples, tf.zeros_like(examples)), **batch)

  data = data.batch(batch_size, drop_remainder=True).map(read).prefetch(1)
  return data.with_options(pipeline.options())


def _open(folder: pathlib.Path, entry: dict, dtype, shape) -> np.ndarray:
  """Maps a file into memory."""
  path, size = folder / entry['file'], entry['bytes']
  try:
    found_size = path.stat().st_size
    if found_size != size:
      raise ValueError(f'cut short or changed, {found_size} bytes, not {size}')
    found = np.lib.format.open_memmap(path, mode='r')
    if (found.dtype, found.shape) != (np.dtype(dtype), shape):
      raise ValueError(f'{found.dtype} {found.shape}, not {dtype} {shape}')
  except (OSError, ValueError) as error:
    reason = getattr(error, 'strerror', None) or error
    raise DataError(
      f'{path} cannot be used ({reason}): encode the data set again.'
    ) from error
  return np.asarray(found)  # A plain array gives rows sooner than its subclass.


def _read_manifest(folder: pathlib.Path) -> dict:
  file = folder / MANIFEST
  try:
    manifest = json.loads(file.read_text())
  except (FileNotFoundError, NotADirectoryError) as error:
    raise DataError(
      f'{folder} is not a cache of codes: it has no {MANIFEST}. '
      'experiments:encode_dataset writes one.'
    ) from error
  except (ValueError, OSError) as error:  # Not JSON, or not even text.
    raise DataError(f'Cannot read {file}: {error}.') from error
  found = manifest.get('format') if isinstance(manifest, dict) else None
  if found != FORMAT:
    what = ' (codes in TFRecords)' if found == 1 else ''
    raise DataError(
      f'{file} is of format {found!r}{what}, but {FORMAT} can be read: encode '
      'the data set again.'
    )
  return manifest


def _describe(manifest: dict) -> Description:
  values = {
    field.name: manifest[field.name]
    for field in dataclasses.fields(Description)
  }
  values['data'] = config_lib.from_dict(
    config_lib.DataConfig, values['data'], recorded=True
  )
  values['class_names'] = tuple(values['class_names'])
  return Description(**values)
