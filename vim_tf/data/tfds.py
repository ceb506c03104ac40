"""TFDS data sets: prepared once, held in memory or streamed from their files.

However many runs start at the same time, one of them prepares a data set.
Large ones are streamed in an order that is a function of (seed, epoch).
"""

import contextlib
import dataclasses
import fcntl
import os
import pathlib

from absl import logging
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from vim_tf.config import first_line
from vim_tf.data import errors
from vim_tf.data.errors import DataError

# Without one of them TFDS would prepare the rest, for hours, and for good.
_ARCHIVES = {
  'imagenet2012': ('ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar')
}
_SHUFFLE_BUFFER = 8192  # Undecoded images of a streamed data set.
_CYCLE, _BLOCK = 16, 16  # Files read in turn, and images of each at a time.


def prepare(builder: tfds.core.DatasetBuilder, name: str):
  """Downloads and prepares a data set, unless that is done.

  Of several processes that come at once one prepares, and the others wait for
  it by a lock beside the data, which ends with the process that holds it.

  Args:
    builder: The data set; its `info` tells of the splits afterwards.
    name: What messages call it.

  Raises:
    DataError: If it cannot be prepared, for instance because the network is
      down, or files that must be fetched by hand are not there.
  """
  if builder.is_prepared():
    return
  _check_archives(builder, name)
  with _locked(builder, name):
    if builder.is_prepared():  # By the process that was waited for.
      builder.info.read_from_directory(builder.data_dir)
      return
    try:
      builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
      )
    except Exception as error:
      if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        reason = ': ' + ' '.join(str(error).split())
      else:
        reason = f' (is the network down?): {first_line(error)}'
      raise DataError(
        f'Data set {name!r} cannot be prepared in {builder.data_dir}{reason}'
      ) from error


def find_features(features, name: str) -> tuple[str, str]:
  """Keys of the image and of the label ('' if there is none).

  Raises:
    DataError: If no feature is an image of 8 bits.
  """
  features = features if isinstance(features, dict) else dict(features.items())
  found = [
    key
    for key, feature in features.items()
    if isinstance(feature, tfds.features.Image) and feature.np_dtype == np.uint8
  ]
  if not found:
    raise DataError(f'Data set {name!r} has no images of 8 bits.')
  image_key = 'image' if 'image' in found else found[0]
  label = features.get('label')
  if isinstance(label, tfds.features.ClassLabel) and label.num_classes:
    return image_key, 'label'
  whole_number = (
    label is not None
    and label.shape == ()
    and np.issubdtype(label.np_dtype, np.integer)
  )
  return image_key, 'label' if whole_number else ''


def class_names(features, label_key: str) -> tuple[str, ...]:
  """Names of the classes; for labels without any they come with the data."""
  label = features[label_key] if label_key else None
  if not isinstance(label, tfds.features.ClassLabel):
    return ('image',)
  names = tuple(label.names)
  if names == tuple(map(str, range(len(names)))):
    return tuple(f'class {name}' for name in names)
  return names


@tf.autograph.experimental.do_not_convert
def in_memory(source, builder, image_key: str, label_key: str):
  """Reads all examples.

  Args:
    source: A `sources.Source` that has no examples yet.
    builder: The prepared data set.
    image_key: What `find_features` gave, as the next one.
    label_key: '' if there are no labels.

  Returns:
    The source with encoded images and labels. Labels without names get theirs.

  Raises:
    DataError: If a record cannot be read, which is named, or, where such ones
      are left out, none can; or a label lacks.
  """
  whole = streamed(source, builder, image_key, label_key, numbered=True)
  records, labels, places = [], [], []
  for example in whole.stream(None, None).as_numpy_iterator():
    if example['image']:
      records.append(example['image'])
      labels.append(example['label'])
      places.append(example['index'])
    elif source.on_bad_example == errors.STOP:
      raise DataError(whole.explain(example['index']).numpy().decode())
  lost = source.num_examples - len(records)
  if not records:
    raise DataError(f'No record of data set {source.name!r} can be read.')
  if lost:
    logging.warning(
      '%s: left out %d of %d examples, which cannot be read.',
      source.name,
      lost,
      source.num_examples,
    )
  labels = np.array(labels, np.int64)
  class_names, flippable = source.class_names, source.flippable
  if label_key and class_names == ('image',):
    values, labels = np.unique(labels, return_inverse=True)
    class_names = tuple(f'class {value}' for value in values)
    flippable = flippable * len(values)
  if labels.min() < 0:
    raise DataError(
      f'Split {source.split!r} of data set {source.name!r} has images '
      'without a label.'
    )
  return dataclasses.replace(
    source,
    class_names=class_names,
    flippable=flippable,
    labels=labels.astype(np.int32),
    records=records,
    num_examples=len(records),
    explain=lambda index: whole.explain(tf.gather(places, index)),
  )


def streamed(
  source, builder, image_key: str, label_key: str, numbered: bool = False
):
  """Lets a source read its files each time; labels without names if `numbered`.

  Raises:
    DataError: If the files are not TFRecords, or one to be read is not there.
  """
  if builder.info.file_format.value != 'tfrecord':
    raise DataError(
      f'Data set {source.name!r} is stored as '
      f'{builder.info.file_format.value}; only tfrecord can be read.'
    )
  if source.class_names == ('image',) and not numbered:
    label_key = ''  # Numbers without names: unknown before all are read.
  keys = [key for key in (image_key, label_key) if key]
  features = tfds.decode.PartialDecoding(
    dict.fromkeys(keys, True)
  ).extract_features(builder.info.features)

  def parse(index, record):
    example = features.deserialize_example(
      record, decoders={image_key: tfds.decode.SkipDecoding()}
    )
    label = example[label_key] if label_key else tf.constant(0)
    return dict(
      image=example[image_key], index=index, label=tf.cast(label, tf.int32)
    )

  def parse_or_leave_out(index, record):
    # No image is a bad one, about which the pipeline decides.
    blank = dict(image=tf.constant(''), index=index, label=tf.constant(0))
    if source.on_bad_example == errors.SKIP:
      return errors.guarded(lambda pair: parse(*pair), (index, record), blank)
    return tf.cond(
      tf.equal(record, ''), lambda: blank, lambda: parse(index, record)
    )

  instructions = builder.info.splits[source.split].file_instructions
  for instruction in instructions:
    if not tf.io.gfile.exists(instruction.filename):
      raise DataError(f'{instruction.filename} is not there.')
  firsts = _first_indices(builder)
  return dataclasses.replace(
    source,
    stream=lambda seed, epoch: _records(instructions, firsts, seed, epoch).map(
      parse_or_leave_out
    ),
    explain=lambda index: _explain(instructions, firsts, index),
  )


def _first_indices(builder: tfds.core.DatasetBuilder) -> dict[str, int]:
  """For each file the number of examples before it in its split."""
  firsts = {}
  for split in builder.info.splits.values():
    count = 0
    for instruction in split.file_instructions:
      firsts[instruction.filename] = count
      count += instruction.examples_in_shard
  return firsts


def _explain(instructions, firsts: dict[str, int], index) -> tf.Tensor:
  """Names an example that cannot be read, by its file and place there.

  Args:
    instructions: As of `_records`, as `firsts` is.
    firsts: See `_first_indices`.
    index: What `_records` gave with it, scalar int64.

  Returns:
    Scalar string; by TensorFlow's ops alone, for hosts that run no Python.
  """
  files = [i.filename for i in instructions]
  starts = tf.constant([firsts[file] for file in files], tf.int64)
  number = tf.cast(index, tf.int64) - starts
  sizes = tf.constant([i.examples_in_shard for i in instructions], tf.int64)
  place = tf.argmax((number >= 0) & (number < sizes))
  return tf.strings.join(
    [
      'Record ',
      tf.strings.as_string(number[place]),
      ' of ',
      tf.gather(files, place),
      ' (counted from 0), or one before it, is damaged or no JPEG or PNG '
      'image; --on_bad_example=skip leaves out such ones.',
    ]
  )


def _records(instructions, firsts, seed, epoch) -> tf.data.Dataset:
  """Reads the records of a split once.

  Empty records stand in for a damaged one and, because TFRecords give no other
  place to go on, for the rest of its file.

  Args:
    instructions: What to read of which file, as TFDS puts it.
    firsts: See `_first_indices`.
    seed: The run's seed, or None for the order of the files.
    epoch: Scalar int64, or None; with a seed this runs inside `tf.data`.

  Returns:
    Pairs of index (int64, unique in the split) and record (string).
  """
  files = tf.constant([i.filename for i in instructions])
  skips = tf.constant([i.skip for i in instructions], tf.int64)
  takes = tf.constant([i.take for i in instructions], tf.int64)
  starts = tf.constant([firsts[i.filename] for i in instructions], tf.int64)
  order = tf.range(len(instructions))
  if seed is not None:
    key = tf.stack([tf.cast(seed, tf.int64), epoch])
    order = tf.random.experimental.stateless_shuffle(order, key, alg='philox')

  def read(file, skip, take, first):
    found = tf.data.TFRecordDataset(file).skip(skip).take(take)
    empty = tf.data.Dataset.from_tensors('').repeat()
    found = found.ignore_errors().concatenate(empty).take(take)
    return found.enumerate(first + skip)

  columns = [tf.gather(x, order) for x in (files, skips, takes, starts)]
  data = tf.data.Dataset.from_tensor_slices(tuple(columns)).interleave(
    read, cycle_length=_CYCLE, block_length=_BLOCK, deterministic=True
  )
  if seed is None:
    return data
  # Of the function being traced here, not of the program: otherwise the
  # program's global seed would have a part in the order, too.
  tf.random.set_seed(1)
  draw = tf.random.stateless_uniform(
    [], key, maxval=2**31 - 1, dtype=tf.int64, alg='philox'
  )
  return data.shuffle(
    _SHUFFLE_BUFFER, seed=draw, reshuffle_each_iteration=False
  )


def _check_archives(builder: tfds.core.DatasetBuilder, name: str):
  """Refuses a data set of which archives are missing that users must fetch."""
  folder = pathlib.Path(builder.data_dir_root) / 'downloads' / 'manual'
  archives = _ARCHIVES.get(builder.name, ())
  missing = [file for file in archives if not (folder / file).exists()]
  if missing:
    raise DataError(
      f'Data set {name!r} needs {" and ".join(archives)} in {folder}, but '
      f'{" and ".join(missing)} cannot be found there: register at '
      'https://image-net.org/download-images, download what is missing and put '
      'it there, or name the folder that has downloads/manual by --data_dir.'
    )


@contextlib.contextmanager
def _locked(builder: tfds.core.DatasetBuilder, name: str):
  """Keeps other processes out; waits for the one that is inside."""
  place = pathlib.Path(builder.data_dir)
  with contextlib.ExitStack() as stack:
    # Where no lock can be had, preparing fails by itself, or is remote.
    if '://' not in str(builder.data_dir):
      with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        file = stack.enter_context(
          open(place.parent / f'.{place.name}.lock', 'a')
        )
        _lock(file, name, place)
    yield


def _lock(file, name: str, place: os.PathLike):
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    logging.info(
      'Another process prepares data set %r in %s: waiting for it.', name, place
    )
    fcntl.flock(file, fcntl.LOCK_EX)
