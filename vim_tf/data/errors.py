"""The error of everything that can be wrong with the user's data."""

import re

from vim_tf.config import UserError

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

  Args:
    error: What iterating over a data set raised.

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
