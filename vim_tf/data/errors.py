"""What can be wrong with the user's data: errors, and going on without it.

By default an image or a record that cannot be read ends the run, by its name.
Under `--on_bad_example=skip` a batch keeps its size and its place: for each
example that cannot be read, the sound one before it in the batch stands in, or
the next sound one of the run where the batch has none. So a run goes on from
any step as if it had never stopped. What was left out is counted in the batch
('broken') and told.
"""

from __future__ import annotations

from collections.abc import Callable
import re

from absl import logging
from etils import epy
import numpy as np

from vim_tf.config import UserError

with epy.lazy_imports():  # Flags, which know of these errors, do not wait.
  import tensorflow as tf

STOP, SKIP = 'stop', 'skip'

_UNREADABLE = (
  r'corrupted record at \d+|truncated record at \d+|'
  r'Unknown image file format|Input is empty|'
  r'(?:Invalid|Corrupt|Truncated|Expected)[^.\n]*(?:JPEG|PNG|image)'
)
"""How TensorFlow's readers and decoders tell of bad data."""


class DataError(UserError):
  """Data that cannot be used; the message is one line for the user."""


def find_data_error(error: Exception) -> DataError | None:
  """The `DataError` behind an error that a `tf.data` pipeline raised.

  A pipeline runs Python inside TensorFlow, which wraps what is raised there
  into a `tf.errors.OpError` with a traceback in its text.

  Returns:
    The error with its one line, or None if it was another one.
  """
  if isinstance(error, DataError):
    return error
  # In brackets, if it was an assertion of the graph that failed.
  found = re.search(r'DataError: (.+?)\]?$', str(error), re.MULTILINE)
  if found:
    return DataError(found.group(1).strip())
  found = re.search(_UNREADABLE, str(error))
  if found:
    return DataError(
      f'An image or a record of the data cannot be read ({found.group(0)}); '
      '--on_bad_example=skip leaves out such ones.'
    )
  return None


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


def refused(sound: tf.Tensor, explain: Callable[[], tf.Tensor]) -> tf.Tensor:
  """`sound`, or an error that says what is not; for use inside `tf.data`.

  Args:
    sound: Whether an example can be read, scalar bool.
    explain: What is wrong with it, in one line.

  Raises:
    DataError: If it is not sound; wrapped, see `find_data_error`.
  """

  def refuse():
    text = tf.strings.join(['DataError: ', explain()])
    with tf.control_dependencies([tf.debugging.Assert(False, [text])]):
      return tf.constant(False)

  return tf.cond(sound, lambda: tf.constant(True), refuse)


def fill_gaps(
  batches: tf.data.Dataset,
  following: Callable[[tf.Tensor], tf.data.Dataset],
  name: str,
) -> tf.data.Dataset:
  """Lets sound examples stand in for the others.

  Args:
    batches: Dictionaries of tensors `[batch, ...]`; among them 'sound', bool
      `[batch]`.
    following: From the number of a batch, counted from 0, scalar int64, to the
      single examples that come after it, with 'sound' too.
    name: What messages call the data.

  Returns:
    The batches with 'broken', float32 `[batch]`, instead of 'sound'.

  Raises:
    DataError: If no example that follows is sound; inside `tf.data` wrapped.
  """
  spec = batches.element_spec

  def fill(number, batch):
    sound = batch['sound']

    def from_within():
      rows = tf.numpy_function(stand_ins, [sound], tf.int64)
      return {key: tf.gather(x, rows) for key, x in batch.items()}

    def from_next():
      blank = {key: tf.zeros(x.shape[1:], x.dtype) for key, x in spec.items()}
      found = following(number).filter(lambda example: example['sound'])
      found = found.concatenate(tf.data.Dataset.from_tensors(blank))
      found = found.take(1).get_single_element()
      found['sound'] = refused(
        found['sound'],
        lambda: tf.constant(f'No example of {name} can be read.'),
      )
      return {
        key: tf.broadcast_to(x, tf.shape(batch[key]))
        for key, x in found.items()
      }

    def from_others():
      told = tf.numpy_function(lambda x: tell(x, name), [sound], tf.bool)
      return tf.cond(tf.reduce_any(told), from_within, from_next)

    filled = tf.cond(tf.reduce_all(sound), lambda: batch, from_others)
    filled = {
      key: tf.ensure_shape(x, spec[key].shape) for key, x in filled.items()
    }
    del filled['sound']
    return filled | {'broken': 1.0 - tf.cast(sound, tf.float32)}

  return batches.enumerate().map(fill)


def stand_ins(sound: np.ndarray) -> np.ndarray:
  """For each example itself, or the sound one before it.

  Args:
    sound: Whether each can be used, bool `[count]`; one of them at least.

  Returns:
    Places, int64 `[count]`; before the first sound example comes the last.
  """
  places = np.flatnonzero(sound)
  before = np.searchsorted(places, np.arange(len(sound)), 'right') - 1
  return places[before].astype(np.int64)  # -1 is the last one.


def tell(sound: np.ndarray, name: str) -> np.ndarray:
  """Logs how many examples of a batch are left out; gives back `sound`."""
  logging.warning(
    '%s: left out %d of the %d examples of a batch, which cannot be read.',
    name,
    np.sum(~sound),
    len(sound),
  )
  return sound
