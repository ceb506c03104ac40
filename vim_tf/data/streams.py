"""Reads the records of large TFDS data sets from files, in seeded order."""

import tensorflow as tf
import tensorflow_datasets as tfds

_SHUFFLE_BUFFER = 8192  # Undecoded images of a streamed data set.
_CYCLE, _BLOCK = 16, 16  # Files read in turn, and images of each at a time.


def first_indices(builder: tfds.core.DatasetBuilder) -> dict[str, int]:
  """For each file the number of examples before it in its split."""
  firsts = {}
  for split in builder.info.splits.values():
    count = 0
    for instruction in split.file_instructions:
      firsts[instruction.filename] = count
      count += instruction.examples_in_shard
  return firsts


def explain(instructions, firsts: dict[str, int], index) -> tf.Tensor:
  """Names an example that cannot be read, by its file and place there.

  Args:
    instructions: As of `records`, as `firsts` is.
    firsts: See `first_indices`.
    index: What `records` gave with it, scalar int64.

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


def records(instructions, firsts, seed, epoch) -> tf.data.Dataset:
  """Reads the records of a split once.

  Empty records stand in for a damaged one and, because TFRecords give no other
  place to go on, for the rest of its file.

  Args:
    instructions: What to read of which file, as TFDS puts it.
    firsts: See `first_indices`.
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
