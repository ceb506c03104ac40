"""Checkpoints that are complete or not there.

A checkpoint is a folder `step-<number>` written under another name and then
renamed. If the newest one cannot be read, that is said, and the one before it
is used.
"""

import os
import pathlib
import re
import shutil

from absl import logging
import tensorflow as tf

from vim_tf.config import UserError

_NAME = re.compile(r'step-(\d+)')
_TEMPORARY = 'writing-'


class CheckpointError(UserError):
  """A checkpoint that cannot be used."""


class Checkpoints:
  """The checkpoints of one run.

  Args:
    folder: Where they lie.
    contents: Everything to save, by name.
    keep: How many of the newest to keep.
  """

  def __init__(
    self, folder: os.PathLike, contents: dict[str, object], keep: int = 3
  ):
    self._folder = pathlib.Path(folder)
    self._checkpoint = tf.train.Checkpoint(**contents)
    self._keep = keep

  def save(self, step: int):
    """Saves everything as the state after `step` steps.

    Raises:
      CheckpointError: If it cannot be written (a full disk, say); what was
        there before is left as it was.
    """
    temporary = self._folder / f'{_TEMPORARY}{os.getpid()}'
    final = self._folder / f'step-{step:09d}'
    try:
      shutil.rmtree(temporary, ignore_errors=True)
      self._checkpoint.write(str(temporary / 'checkpoint'))
      if final.exists():  # The same step again, after a resume.
        shutil.rmtree(final)
      os.replace(temporary, final)
    except (OSError, tf.errors.OpError) as error:
      shutil.rmtree(temporary, ignore_errors=True)
      raise CheckpointError(
        f'Cannot save a checkpoint to {self._folder}: {_first_line(error)}'
      ) from error
    for old in steps(self._folder)[: -self._keep]:
      shutil.rmtree(_path(self._folder, old), ignore_errors=True)

  def restore(self) -> int:
    """Restores the newest readable checkpoint.

    Returns:
      Its step, or 0 if there is none at all.

    Raises:
      CheckpointError: If there are checkpoints, but none can be read.
    """
    for leftover in self._folder.glob(f'{_TEMPORARY}*'):
      shutil.rmtree(leftover, ignore_errors=True)
    found = steps(self._folder)
    for step in reversed(found):
      path = _path(self._folder, step)
      try:
        status = self._checkpoint.read(str(path / 'checkpoint'))
        status.assert_consumed()
      except AssertionError as error:
        raise _mismatch(path, error) from error
      except (OSError, ValueError, tf.errors.OpError) as error:
        if 'shape' in str(error).lower():
          raise _mismatch(path, error) from error
        logging.error(
          'The checkpoint %s cannot be read (%s); trying the one before.',
          path,
          _first_line(error),
        )
        continue
      return step
    if found:
      raise CheckpointError(
        f'None of the {len(found)} checkpoints in {self._folder} can be read.'
      )
    return 0


def steps(folder: os.PathLike) -> list[int]:
  """Steps of the complete checkpoints in a folder, oldest first."""
  folder = pathlib.Path(folder)
  names = os.listdir(folder) if folder.is_dir() else []
  return sorted(int(m[1]) for m in map(_NAME.fullmatch, names) if m)


def load(folder: os.PathLike, **parts: tf.Module) -> int:
  """Restores parts of the newest checkpoint of a finished or running run.

  Args:
    folder: A run's folder of checkpoints.
    **parts: Built models by the name under which they were saved.

  Returns:
    The checkpoint's step.

  Raises:
    CheckpointError: If there is none, or a part does not fit.
  """
  found = steps(folder)
  if not found:
    raise CheckpointError(f'There is no checkpoint in {folder}.')
  path = _path(pathlib.Path(folder), found[-1])
  try:
    status = tf.train.Checkpoint(**parts).read(str(path / 'checkpoint'))
    status.assert_existing_objects_matched().expect_partial()
  except (AssertionError, OSError, ValueError, tf.errors.OpError) as error:
    raise _mismatch(path, error) from error
  return found[-1]


def _path(folder: pathlib.Path, step: int) -> pathlib.Path:
  return folder / f'step-{step:09d}'


def _mismatch(path, error):
  return CheckpointError(
    f'The checkpoint {path} does not fit this config: {_first_line(error)}'
  )


def _first_line(error: Exception) -> str:
  return (str(error).splitlines() or [type(error).__name__])[0]
