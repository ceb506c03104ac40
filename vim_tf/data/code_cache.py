"""Codes of a data set in files, so that stage 2 need not encode its images.

A cache is a folder of `manifest.json`, `train-*.tfrecord` and
`evaluation-*.tfrecord`. The training split is there in several augmented
crops: crop k of an example is what a run whose seed is the cache's would draw
the time after k earlier ones. A run with that seed thus sees, for as many
epochs as there are crops, exactly the codes that it would make online; then
they come round again.

Each record is a `tf.train.Example` whose features are raw little-endian
bytes, which makes all records equally long: `codes` (uint16, or int32 for
more than 65,536 codes; `[num_codes]`, raster order), `label` (int32), `index`
(int64, the example's identity) and `crop` (int32). Record `crop * examples + i`
is that of the i-th example.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib

import numpy as np
import tensorflow as tf

from vim_tf import config as config_lib
from vim_tf.data import bad_examples, pipeline, records
from vim_tf.data.errors import DataError

FORMAT = 1
MANIFEST = 'manifest.json'
TRAIN, EVALUATION = 'train', 'evaluation'

_READ_AT_ONCE = 4096


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
  def code_type(self) -> str:
    """How NumPy calls the type in which codes are stored."""
    return '<u2' if self.codebook_size <= 2**16 else '<i4'

  @property
  def record_bytes(self) -> int:
    """Length of a record's data."""
    return len(self.serialize(np.zeros(self.num_codes, int), 0, 0, 0))

  def serialize(self, codes, label: int, index: int, crop: int) -> bytes:
    """One record's data; `codes` are int `[num_codes]`."""
    values = {
      'codes': np.asarray(codes).astype(self.code_type),
      'label': np.array(label, '<i4'),
      'index': np.array(index, '<i8'),
      'crop': np.array(crop, '<i4'),
    }
    features = {
      name: tf.train.Feature(
        bytes_list=tf.train.BytesList(value=[value.tobytes()])
      )
      for name, value in values.items()
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


class Split:
  """One split of a cache.

  Args:
    folder: The cache.
    description: What its codes are.
    record: The split's part of the manifest.
    on_bad_example: Whether damaged records 'stop' the run, or it is to 'skip'
      them.

  Raises:
    DataError: If a file is missing or not as long as it should be, or the
      numbers of records do not agree.
  """

  def __init__(
    self,
    folder: os.PathLike,
    description: Description,
    record: dict,
    on_bad_example: str = bad_examples.STOP,
  ):
    self.split = str(record['split'])
    self.fingerprint = str(record['fingerprint'])
    self.num_examples = int(record['examples'])
    self.crops = int(record['crops'])
    self._description = description
    self._reader = records.Reader(
      folder,
      [records.Shard(**shard) for shard in record['shards']],
      description.record_bytes,
      whole=on_bad_example == bad_examples.STOP,
    )
    self._read = self._reader.read_sound
    if on_bad_example == bad_examples.STOP:
      self._read = lambda positions: (
        self._reader.read(positions),
        np.zeros(len(positions), np.float32),
      )
    expected = self.num_examples * self.crops
    if not expected or len(self._reader) != expected:
      raise DataError(
        f'{pathlib.Path(folder) / MANIFEST} is damaged: it lists '
        f'{len(self._reader)} records of {self.num_examples} examples in '
        f'{self.crops} crops each; encode the data set again.'
      )

  @functools.cached_property
  def labels(self) -> np.ndarray:
    """Class of each example, int32 `[num_examples]`."""
    parts = [
      self.read(tf.range(i, min(i + _READ_AT_ONCE, self.num_examples)))
      for i in range(0, self.num_examples, _READ_AT_ONCE)
    ]
    return np.concatenate([part['labels'] for part in parts])

  def read(self, positions: tf.Tensor) -> dict[str, tf.Tensor]:
    """Some records; also for use inside `tf.data`.

    Args:
      positions: Their numbers, int `[count]`.

    Returns:
      'codes' int32 `[count, num_codes]`, 'labels' int32 `[count]`, 'indices'
      int64 `[count]`, 'crops' int32 `[count]` and 'broken', float32
      `[count]`: 1 where another one stands in for a damaged record.

    Raises:
      DataError: If one is damaged and to stop the run, naming the file and
        record; inside `tf.data` wrapped, see `errors.find_data_error`.
    """
    count = positions.shape[0]
    positions = tf.cast(positions, tf.int64)
    if tf.executing_eagerly():
      serialized, broken = map(tf.constant, self._read(positions.numpy()))
    else:
      serialized, broken = tf.numpy_function(
        self._read, [positions], [tf.string, tf.float32]
      )
      serialized.set_shape([count])
      broken.set_shape([count])
    names = ('codes', 'label', 'index', 'crop')
    found = tf.io.parse_example(
      serialized, {name: tf.io.FixedLenFeature([], tf.string) for name in names}
    )
    types = {
      'codes': tf.as_dtype(np.dtype(self._description.code_type)),
      'label': tf.int32,
      'index': tf.int64,
      'crop': tf.int32,
    }
    found = {name: tf.io.decode_raw(found[name], types[name]) for name in names}
    codes = tf.ensure_shape(
      found['codes'], [count, self._description.num_codes]
    )
    return {
      'codes': tf.cast(codes, tf.int32),
      'labels': tf.reshape(found['label'], [count]),
      'indices': tf.reshape(found['index'], [count]),
      'crops': tf.reshape(found['crop'], [count]),
      'broken': broken,
    }


class CodeCache:
  """A cache to read from.

  Args:
    folder: What `code_cache_writer.write` wrote.
    on_bad_example: Whether damaged records 'stop' the run, or it is to 'skip'
      them.

  Attributes:
    description: What its codes are.
    train: The training split, in several crops.
    evaluation: The held-out split, in its centre crop.
    fingerprint: Hash of the manifest, which holds hashes of all files.

  Raises:
    DataError: If it is no cache, or something is missing or cut short. The
      contents of the records are checked when they are read.
  """

  def __init__(
    self, folder: str | os.PathLike, on_bad_example: str = bad_examples.STOP
  ):
    self.on_bad_example = on_bad_example
    self.path = pathlib.Path(folder)
    manifest = _read_manifest(self.path)
    try:
      self.description = _describe(manifest)
      self.train, self.evaluation = (
        Split(
          folder, self.description, manifest['splits'][name], on_bad_example
        )
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
  cache: CodeCache,
  *,
  batch_size: int,
  seed: int,
  start_step: int = 0,
  balance_classes: bool = False,
  input_context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
  """Endless batches of codes, drawn as `pipeline.training_batches` draws.

  An example that was drawn r times before gives its crop r modulo the number
  of crops.

  Args:
    cache: The codes.
    batch_size: Examples of one step, over all input pipelines.
    seed: The run's seed, at least 0.
    start_step: Step of the first batch.
    balance_classes: Whether every class is drawn equally often.
    input_context: Of `tf.distribute`: each input pipeline gives its
      contiguous share of every batch.

  Returns:
    Dictionaries: `codes`, int32 `[batch, num_codes]`; `labels`, int32
    `[batch]`; `seeds`, uint32 `[batch]`, and `broken`, as with images. `batch`
    is `batch_size` divided by the number of input pipelines.

  Raises:
    ValueError: If the batch does not divide among the input pipelines.
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

  def read(batch):
    batch = share(batch)
    crops = batch['round'] % split.crops
    found = split.read(crops * split.num_examples + batch['index'])
    batch = dict(
      codes=found['codes'], labels=found['labels'], seeds=batch['seed']
    )
    if cache.on_bad_example == bad_examples.SKIP:
      batch['broken'] = found['broken']
    return batch

  data = data.batch(batch_size, drop_remainder=True).map(read).prefetch(2)
  return data.with_options(pipeline.options())


@tf.autograph.experimental.do_not_convert
def evaluation_batches(
  cache: CodeCache, *, batch_size: int, max_examples: int | None = None
) -> tf.data.Dataset:
  """One pass over the held-out codes in their order.

  Args:
    cache: The codes.
    batch_size: Examples of a batch.
    max_examples: Most examples given out, spread evenly.

  Returns:
    Dictionaries: `codes`, int32 `[batch_size, num_codes]`; `labels`, int32
    `[batch_size]`; `mask`, float32 `[batch_size]`: 1, or 0 for the copies
    that fill up the last batch or stand in for damaged records.
  """
  split = cache.evaluation
  count = min(split.num_examples, max_examples or split.num_examples)
  total = -(-count // batch_size) * batch_size
  places = np.arange(total)
  data = tf.data.Dataset.from_tensor_slices(
    dict(
      position=places % count * split.num_examples // count,
      mask=(places < count).astype(np.float32),
    )
  )

  def read(batch):
    found = split.read(batch['position'])
    return dict(
      codes=found['codes'],
      labels=found['labels'],
      mask=batch['mask'] * (1.0 - found['broken']),
    )

  data = data.batch(batch_size, drop_remainder=True).map(read).prefetch(1)
  return data.with_options(pipeline.options())


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
    raise DataError(
      f'{file} is of format {found!r}, not {FORMAT}: encode the data set again.'
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
