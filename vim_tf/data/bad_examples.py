"""Images and records that cannot be read, among good ones.

Under `--on_bad_example=skip` a batch keeps its size and its place: for each
example that cannot be read, the sound one before it in the batch stands in. So
a run goes on from any step as if it had never stopped. What was left out is
counted in the batch ('broken') and told.
"""

from collections.abc import Callable

from absl import logging
import numpy as np
import tensorflow as tf

from vim_tf.data.errors import DataError

STOP, SKIP = 'stop', 'skip'


def guarded(make: Callable, inputs, blank):
  """`make(inputs)`, or `blank` if that fails; for use inside `tf.data`.

  Args:
    make: From `inputs` to tensors.
    inputs: Tensors, in any structure.
    blank: Tensors of the same structure and types as those that `make` gives.
  """
  # The one place where a graph goes on after an error is a data set.
  data = tf.data.Dataset.from_tensors({'inputs': inputs})
  data = data.map(lambda found: make(found['inputs'])).ignore_errors()
  blanks = tf.data.Dataset.from_tensors(blank)
  return data.concatenate(blanks).take(1).get_single_element()


def fill_gaps(batch: dict[str, tf.Tensor], name: str) -> dict[str, tf.Tensor]:
  """Lets sound examples of a batch stand in for the others.

  Args:
    batch: Tensors `[batch, ...]`; among them 'sound', bool `[batch]`.
    name: What the message calls the data.

  Returns:
    The batch with 'broken', float32 `[batch]`, instead of 'sound'.

  Raises:
    DataError: If no example is sound; inside `tf.data` wrapped.
  """
  batch = dict(batch)
  sound = batch.pop('sound')
  count = sound.shape[0]

  def find():
    rows = tf.numpy_function(
      lambda sound: stand_ins(sound, name), [sound], tf.int64
    )
    return tf.ensure_shape(rows, [count])

  rows = tf.cond(
    tf.reduce_all(sound), lambda: tf.range(count, dtype=tf.int64), find
  )
  batch = {key: tf.gather(x, rows) for key, x in batch.items()}
  batch['broken'] = 1.0 - tf.cast(sound, tf.float32)
  return batch


def stand_ins(sound: np.ndarray, name: str) -> np.ndarray:
  """For each example itself, or the sound one before it.

  Args:
    sound: Whether each can be used, bool `[count]`.
    name: What the message calls the data.

  Returns:
    Places, int64 `[count]`; before the first sound example comes the last.

  Raises:
    DataError: If none is sound.
  """
  places = np.flatnonzero(sound)
  if not places.size:
    raise DataError(f'None of {len(sound)} examples of {name} can be read.')
  logging.warning(
    '%s: left out %d of the %d examples of a batch, which cannot be read.',
    name,
    len(sound) - len(places),
    len(sound),
  )
  before = np.searchsorted(places, np.arange(len(sound)), 'right') - 1
  return places[before].astype(np.int64)  # -1 is the last one.
