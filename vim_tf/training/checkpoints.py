"""Checkpoints that are complete or not there.

A checkpoint is a folder `step-<number>`. If the newest one cannot be read, that
is said, and the one before it is used.
"""

from collections.abc import Callable
import json
import os
import pathlib
import re
import shutil

from absl import logging
import tensorflow as tf

from vim_tf import files
from vim_tf.config import UserError, first_line

_NAME = re.compile(r'step-(\d+)')
_NOTES = 'notes.json'


class CheckpointError(UserError):
  """A checkpoint that cannot be used."""


class Checkpoints:
  """The checkpoints of one run: the newest ones of everything in `contents`."""

  def __init__(
    self, folder: os.PathLike, contents: dict[str, object], keep: int = 3
  ):
    self._folder = pathlib.Path(folder)
    self._checkpoint = tf.train.Checkpoint(**contents)
    self._keep = keep

  def save(self, step: int, notes: dict | None = None):
    """Saves everything as the state after `step` steps.

    Args:
      step: Steps done.
      notes: JSON that `notes` gives back.

    Raises:
      CheckpointError: If it cannot be written (a full disk, say); what was
        there before is left as it was.
    """
    final = _path(self._folder, step)
    try:
      with files.new_folder(final) as new:
        self._checkpoint.write(str(new / 'checkpoint'))
        (new / _NOTES).write_text(json.dumps(notes or {}))
        if final.exists():  # The same step again, after a resume.
          shutil.rmtree(final)
    except (OSError, tf.errors.OpError) as error:
      raise CheckpointError(
        f'Cannot save a checkpoint to {self._folder}: {first_line(error)}'
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
    files.remove_unfinished(self._folder)
    return _read_newest(
      self._folder, lambda path: self._checkpoint.read(path).assert_consumed()
    )

  def notes(self, step: int) -> dict:
    """What was noted with a checkpoint; nothing if that cannot be read."""
    try:
      found = json.loads((_path(self._folder, step) / _NOTES).read_text())
    except (OSError, ValueError):
      return {}
    return found if isinstance(found, dict) else {}


def steps(folder: os.PathLike) -> list[int]:
  """Steps of the complete checkpoints in a folder, oldest first."""
  folder = pathlib.Path(folder)
  names = os.listdir(folder) if folder.is_dir() else []
  return sorted(int(m[1]) for m in map(_NAME.fullmatch, names) if m)


def load(folder: os.PathLike, **parts: tf.Module) -> int:
  """Restores parts of the newest readable checkpoint of a run.

  Args:
    folder: A run's folder of checkpoints.
    **parts: Built models by the name under which they were saved.

  Returns:
    The checkpoint's step.

  Raises:
    CheckpointError: If there is none, or a part does not fit.
  """
  checkpoint = tf.train.Checkpoint(**parts)

  def read(path):
    status = checkpoint.read(path)
    status.assert_existing_objects_matched().expect_partial()

  step = _read_newest(pathlib.Path(folder), read)
  if not step:
    raise CheckpointError(f'There is no checkpoint in {folder}.')
  return step


def _read_newest(folder: pathlib.Path, read: Callable[[str], None]) -> int:
  """Reads the newest readable checkpoint; returns its step, or 0 if none is."""
  found = steps(folder)
  for step in reversed(found):
    path = _path(folder, step)
    try:
      read(str(path / 'checkpoint'))
    except (AssertionError, ValueError) as error:  # Names or shapes differ.
      raise CheckpointError(
        f'The checkpoint {path} does not fit this config: {first_line(error)}'
      ) from error
    except (OSError, IndexError, RuntimeError, tf.errors.OpError) as error:
      # TensorFlow's reader raises Python's own errors for some of the damage.
      logging.error(
        'The checkpoint %s cannot be read (%s); trying the one before.',
        path,
        first_line(error),
      )
    else:
      return step
  if found:
    raise CheckpointError(
      f'None of the {len(found)} checkpoints in {folder} can be read.'
    )
  return 0


def _path(folder: pathlib.Path, step: int) -> pathlib.Path:
  return folder / f'step-{step:09d}'
