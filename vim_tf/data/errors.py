"""The error of everything that can be wrong with the user's data."""

import re

from vim_tf.config import UserError


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
  found = re.search(r'DataError: (.+)', str(error))
  return DataError(found.group(1).strip()) if found else None
