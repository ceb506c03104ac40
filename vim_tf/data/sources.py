"""Where images come from: OpenMoji, digits, TFDS data sets, folders.

`load` gives a `Source`. Small ones are random-access: their encoded images
are in memory, or their paths are. Large TFDS data sets are streamed from
their files, in an order that is a function of (seed, epoch), too.
"""

from collections.abc import Callable
import dataclasses
import functools
import hashlib
import json
import os

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from vim_tf.config import DataConfig, first_line
from vim_tf.data import errors, folders
from vim_tf.data import tfds as tfds_lib
from vim_tf.data.errors import DataError

MAX_MEMORY = 512 * 2**20
"""Bytes up to which a TFDS split is held in memory, encoded."""

_KEPT = 4
"""Splits of OpenMoji, and of the digits, that a process keeps.

The parts of a run load the same two again and again, with groups or subgroups
as classes, and small as they are, that took a second or two each time."""

DIRECTED = (
  'binarized_mnist',
  'binary_alpha_digits',
  'cmaterdb',
  'digits',
  'emnist',
  'kmnist',
  'mnist',
  'mnist_corrupted',
  'omniglot',
  'svhn_cropped',
)
"""TFDS data sets of letters and digits, whose mirror images are wrong."""


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
  """One split of a data set.

  Attributes:
    name: Name as in `DataConfig.name`.
    split: Name of the split.
    version: Version of the data.
    class_names: Name of each class; ('image',) where the data have none.
    num_examples: Number of images.
    flippable: For each class whether its images may be mirrored.
    licence: Licence and origin, '' if unknown.
    labels: Class of each image, int32 `[num_examples]`; None if streamed.
    groups: Which images belong together, for instance as variants of one
      glyph, int `[num_examples]`; None where every image stands for itself.
    records: Encoded images, or paths, of a random-access source.
    records_are_paths: Which of both `records` holds.
    stream: From a seed and an epoch, or None twice for the order of the files,
      to the examples of a source that is not random-access: `image` (encoded,
      string), `index` (int64, its identity) and `label` (int32), scalars.
    explain: From the index of an example that cannot be read to what is wrong
      with it, naming its file, both scalar tensors; or it raises a `DataError`.
    on_bad_example: What the pipeline does about an image or a record that
      cannot be read: 'stop' or 'skip'.
    cache: What the pipeline keeps between uses (decoded images).
  """

  name: str
  split: str
  version: str
  class_names: tuple[str, ...]
  num_examples: int
  flippable: tuple[bool, ...]
  licence: str = ''
  labels: np.ndarray | None = None
  groups: np.ndarray | None = None
  records: list | None = None
  records_are_paths: bool = False
  stream: Callable[..., tf.data.Dataset] | None = None
  explain: Callable[[tf.Tensor], tf.Tensor] = functools.partial(
    tf.strings.format, 'Image {} cannot be decoded.'
  )
  on_bad_example: str = errors.STOP
  cache: dict = dataclasses.field(default_factory=dict)

  @property
  def random_access(self) -> bool:
    return self.records is not None

  @property
  def conditional(self) -> bool:
    """Whether there are classes to tell apart."""
    return len(self.class_names) > 1

  @functools.cached_property
  def fingerprint(self) -> str:
    """A hash by which a run recognises its data."""
    counts = [self.num_examples]
    if self.labels is not None:
      counts = np.bincount(
        self.labels, minlength=len(self.class_names)
      ).tolist()
    name = 'folder' if self.name.startswith('folder:') else self.name
    facts = [name, self.version, self.split, counts, list(self.class_names)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

  @functools.cached_property
  def _record_tensor(self) -> tf.Tensor:
    records = self.records
    if self.records_are_paths:  # Not all names are UTF-8.
      records = [os.fsencode(path) for path in records]
    # Lifted out of whatever `tf.data` function asks for it first.
    with tf.init_scope(), tf.device('CPU'):
      return tf.constant(records, tf.string)

  def read(self, index: tf.Tensor) -> tf.Tensor:
    """The encoded image at a scalar index; for use inside `tf.data`."""
    record = tf.gather(self._record_tensor, index)
    return tf.io.read_file(record) if self.records_are_paths else record


def load(
  config: DataConfig, split: str, on_bad_example: str = errors.STOP
) -> Source:
  """Loads one split of the data set that a config names.

  Args:
    config: The data's settings.
    split: Name of the split, as a rule `config.train_split` or
      `config.eval_split`.
    on_bad_example: Whether images and records that cannot be read 'stop' the
      run, or it is to 'skip' them.

  Raises:
    DataError: If there is no such data set or split, it cannot be fetched, or
      its images cannot be used.
  """
  if config.name.startswith('folder:'):
    return _load_folder(config.name, split, on_bad_example)
  if config.name in ('openmoji', 'openmoji_variants'):
    return _load_openmoji(
      config.name,
      config.classes_of,
      config.image_size,
      _data_dir(config),
      split,
    )
  if config.name == 'digits':
    return _load_digits(config.image_size, _data_dir(config), split)
  return _load_tfds(config, split, on_bad_example)


def _load_folder(name: str, split: str, on_bad_example: str) -> Source:
  folder = os.path.expanduser(name.removeprefix('folder:'))
  paths, labels, class_names = folders.list_images(folder, split)
  # Those to be left out are found when they are read.
  if on_bad_example == errors.STOP and len(paths) <= folders.MAX_CHECKED_FILES:
    folders.check_files(paths)
  return Source(
    name=name,
    split=split,
    version=folders.fingerprint(paths, folder),
    class_names=class_names,
    num_examples=len(paths),
    flippable=(True,) * len(class_names),
    labels=labels,
    records=paths,
    records_are_paths=True,
    explain=lambda index: tf.numpy_function(
      lambda i: folders.refuse(paths[i]), [index], tf.string
    ),
    on_bad_example=on_bad_example,
  )


@functools.lru_cache(_KEPT)
def _load_openmoji(
  name: str, classes_of: str, size: int, data_dir: str | None, split: str
) -> Source:
  from vim_tf.data import openmoji  # Its packages are needed only here.

  variant = 'base' if name == 'openmoji' else 'variants'
  builder = openmoji.OpenMoji(
    config=openmoji.make_config(variant, size), data_dir=data_dir
  )
  source = _from_builder(builder, name, split)
  glyphs = openmoji.read_glyphs(builder, split)
  groups = {name: name for name in openmoji.CLASS_NAMES}
  if classes_of == 'subgroup':
    groups = openmoji.subgroups()
    ids = {name: i for i, name in enumerate(groups)}
    source = dataclasses.replace(
      source,
      class_names=tuple(groups),
      labels=np.array([ids[glyph.subgroup] for glyph in glyphs], np.int32),
    )
  return dataclasses.replace(
    source,
    flippable=tuple(
      group not in openmoji.UNFLIPPABLE for group in groups.values()
    ),
    licence=openmoji.LICENCE,
    groups=np.unique([glyph.base for glyph in glyphs], return_inverse=True)[1],
  )


@functools.lru_cache(_KEPT)
def _load_digits(size: int, data_dir: str | None, split: str) -> Source:
  from vim_tf.data import digits  # Its package is needed only here.

  builder = digits.Digits(config=digits.make_config(size), data_dir=data_dir)
  return dataclasses.replace(
    _from_builder(builder, 'digits', split), licence=digits.LICENCE
  )


def _load_tfds(config: DataConfig, split: str, on_bad_example: str) -> Source:
  try:
    builder = tfds.builder(config.name, data_dir=_data_dir(config))
  except tfds.core.DatasetNotFoundError as error:
    raise DataError(
      f'There is no data set {config.name!r}: name openmoji, '
      'openmoji_variants, digits, folder:PATH or a data set of TFDS.'
    ) from error
  except Exception as error:
    raise DataError(
      f'Data set {config.name!r} cannot be opened: {first_line(error)}'
    ) from error
  return _from_builder(builder, config.name, split, on_bad_example)


def _from_builder(
  builder: tfds.core.DatasetBuilder,
  name: str,
  split: str,
  on_bad_example: str = errors.STOP,
) -> Source:
  """Prepares the data of a builder and loads one split."""
  image_key, label_key = tfds_lib.find_features(builder.info.features, name)
  tfds_lib.prepare(builder, name)
  try:
    info = builder.info.splits[split]
    num_examples = info.num_examples
  except (KeyError, ValueError) as error:
    raise DataError(
      f'Data set {name!r} in {builder.data_dir} has no split {split!r}; it has '
      f'{", ".join(builder.info.splits)}: name one of these, or a part such as '
      f"'{next(iter(builder.info.splits), 'train')}[90%:]', by --train_split "
      'and --eval_split.'
    ) from error
  if not num_examples:
    raise DataError(f'Split {split!r} of data set {name!r} is empty.')
  class_names = tfds_lib.class_names(builder.info.features, label_key)
  directed = builder.name in DIRECTED
  source = Source(
    name=name,
    split=split,
    version=str(builder.version),
    class_names=class_names,
    num_examples=num_examples,
    flippable=(not directed,) * len(class_names),
    licence=builder.info.redistribution_info.license or '',
    on_bad_example=on_bad_example,
  )
  if _num_bytes(builder, info) > MAX_MEMORY:
    return tfds_lib.streamed(source, builder, image_key, label_key)
  return tfds_lib.in_memory(source, builder, image_key, label_key)


def _num_bytes(builder: tfds.core.DatasetBuilder, info) -> float:
  """Size of a split, or of a part of one by its share."""
  whole = builder.info.splits.total_num_examples
  return builder.info.dataset_size * info.num_examples / max(whole, 1)


def _data_dir(config: DataConfig) -> str | None:
  return os.path.expanduser(config.data_dir) or None
