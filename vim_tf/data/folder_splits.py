"""Which images of a folder are trained on, and which are held out.

Splits are subfolders with the usual names, such as `train` and `val`, in any
case; without them a share of each class is held out by a hash of the files'
names.
"""

from collections.abc import Callable, Sequence
import hashlib
import pathlib

import numpy as np

from vim_tf.data.errors import DataError

TRAIN, HELD_OUT, TEST = 'train', 'validation', 'test'

NAMES = {
  'train': TRAIN,
  'training': TRAIN,
  'validation': HELD_OUT,
  'valid': HELD_OUT,
  'val': HELD_OUT,
  'dev': HELD_OUT,
  'eval': HELD_OUT,
  'test': TEST,
  'testing': TEST,
}
"""Folders that are splits, by their names in lower case."""

_SHARE = 0.1


def find(
  root: pathlib.Path,
  subfolders: Sequence[pathlib.Path],
  has_images: Callable[[pathlib.Path], bool],
) -> dict[str, pathlib.Path]:
  """Finds the folder of each split.

  Args:
    root: The folder of the data.
    subfolders: Its subfolders.
    has_images: Whether an image is in a folder or below it.

  Returns:
    'train' and 'validation', and 'test' where there is one; `test` stands in
    for a `validation` that is not there. 'train' alone if the folder has no
    splits of its own: its folder is then `root`, or the only subfolder if
    that is a `train`.

  Raises:
    DataError: If it is not clear what is a split and what a class.
  """
  named: dict[str, list[pathlib.Path]] = {TRAIN: [], HELD_OUT: [], TEST: []}
  others = []
  for place in subfolders:
    named.get(NAMES.get(place.name.lower(), ''), others).append(place)
  held_out = named[HELD_OUT] or named[TEST]
  for places in named.values():
    if len(places) > 1:
      raise DataError(
        f'Folder {root} has {_listed(places)}, which are one and the same '
        'split: keep one of them.'
      )
  if not named[TRAIN] and not held_out:
    _refuse_nested(subfolders)
    return {TRAIN: root}
  others = [place for place in others if has_images(place)]
  if others and held_out:
    raise DataError(
      f'Folder {root} has {_listed([*named[TRAIN], *held_out])} beside '
      f'{_listed(others[:3])}: are these splits or classes? Move the classes '
      'into train and validation, or give the folder another name.'
    )
  if others:  # Pictures of trains beside those of cars.
    _refuse_nested([*named[TRAIN], *others], named[TRAIN])
    return {TRAIN: root}
  if not named[TRAIN]:
    raise DataError(
      f'Folder {root} has {held_out[0].name}, but no train to go with it: '
      'name the folder of its images, or add a train.'
    )
  (train,) = named[TRAIN]
  if not held_out:
    return {TRAIN: train}
  found = {TRAIN: train, HELD_OUT: held_out[0]}
  return found | ({TEST: named[TEST][0]} if named[TEST] else {})


def hold_out(names: Sequence[str], labels: np.ndarray) -> np.ndarray:
  """Chooses about a tenth of each class by a hash of the names.

  A file is held out if its hash, a number in [0, 1), is below 0.1. Where that
  leaves a class of two or more without held-out files, the one with its lowest
  hash is held out; where it leaves a class without training files, the one with
  its highest hash is trained on. If nothing at all was held out, every class
  being of one file, the lowest hash is.

  What is guaranteed when files are added:
  - The files of one class do not move those of another.
  - No training file becomes a held-out one, so that no model is measured on
    what it has learned. The exception is a class that had no choice: of one
    file, or with all of its hashes below 0.1 (one pair in a hundred).
  - A held-out file becomes a training one only if it was its class's only one,
    its hash not below 0.1, and a file with a lower hash came.
  No rule that sees the files alone can do without such exceptions. Files that
  are removed or renamed may move others of their class.

  Args:
    names: Relative paths, the same on every system.
    labels: Class of each, int `[num_files]`.

  Returns:
    bool `[num_files]`: whether a file is held out.
  """
  hashes = np.array([_hash(name) for name in names])
  held_out = hashes < _SHARE
  for label in np.unique(labels):
    members = np.flatnonzero(labels == label)
    if held_out[members].all():
      held_out[members[hashes[members].argmax()]] = False
    elif len(members) > 1 and not held_out[members].any():
      held_out[members[hashes[members].argmin()]] = True
  if len(names) > 1 and not held_out.any():
    held_out[hashes.argmin()] = True
  return held_out


def _refuse_nested(
  classes: Sequence[pathlib.Path], trains: Sequence[pathlib.Path] = ()
):
  """Refuses classes that are split inside, which would be trained on whole.

  Args:
    classes: The folders of the classes.
    trains: Those of them whose name is that of a split.
  """
  for place in classes:
    inside = [p for p in sorted(place.iterdir()) if p.name.lower() in NAMES]
    inside = [path for path in inside if path.is_dir()]
    if len({NAMES[path.name.lower()] for path in inside}) > 1:
      raise DataError(
        f'Folder {place} is that of a class, but has {_listed(inside)} inside: '
        'name it as the data, or put the classes into the splits.'
      )
  for place in trains:
    if any(p.is_dir() for p in place.iterdir() if not p.name.startswith('.')):
      raise DataError(
        f'Folder {place} has subfolders, as a split has, but other classes are '
        'beside it: leave the splits alone in their folder, or give the class '
        'another name.'
      )


def _listed(places: Sequence[pathlib.Path]) -> str:
  return ', '.join(place.name for place in places)


def _hash(name: str) -> float:
  """A number in [0, 1) from a relative path, the same on every system."""
  digest = hashlib.sha256(name.encode('utf-8', 'surrogateescape')).digest()
  return int.from_bytes(digest[:6], 'big') / 2**48
