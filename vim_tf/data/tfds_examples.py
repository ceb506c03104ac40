"""The examples of a TFDS split: in memory, or streamed from its files."""

import dataclasses

from absl import logging
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from vim_tf.data import bad_examples, streams
from vim_tf.data.errors import DataError


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
  for example in whole.examples().as_numpy_iterator():
    if example['image']:
      records.append(example['image'])
      labels.append(example['label'])
      places.append(example['index'])
    elif source.on_bad_example == bad_examples.STOP:
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
  """Lets a source read its files each time; arguments as of `in_memory`.

  Args:
    source: A source that has no examples yet.
    builder: The prepared data set.
    image_key: Key of the image.
    label_key: Key of the label.
    numbered: Whether it has labels without names, too.

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
    if source.on_bad_example == bad_examples.SKIP:
      return bad_examples.guarded(
        lambda pair: parse(*pair), (index, record), blank
      )
    return tf.cond(
      tf.equal(record, ''), lambda: blank, lambda: parse(index, record)
    )

  instructions = builder.info.splits[source.split].file_instructions
  for instruction in instructions:
    if not tf.io.gfile.exists(instruction.filename):
      raise DataError(f'{instruction.filename} is not there.')
  firsts = streams.first_indices(builder)
  return dataclasses.replace(
    source,
    stream=lambda seed, epoch: streams.records(
      instructions, firsts, seed, epoch
    ).map(parse_or_leave_out),
    explain=lambda index: streams.explain(instructions, firsts, index),
  )
