"""Folders of images: which files, which classes, which split.

Layouts: one subfolder a class, or images alone (one class). Subfolders with
the usual names of splits, such as `train` and `val` in any case, are such, each
with such a layout; without them about a tenth of each class is held out by a
hash of the files' names.
"""

from collections.abc import Sequence
from concurrent import futures
import hashlib
import io
import pathlib
import re

import numpy as np
import PIL.Image

from vim_tf.data.errors import DataError

EXTENSIONS = ('.jpg', '.jpeg', '.png')
TRAIN, HELD_OUT, TEST = 'train', 'validation', 'test'
SPLITS = (TRAIN, HELD_OUT)
"""The splits that every folder has."""
MAX_CHECKED_FILES = 20_000
"""Files of larger folders are first looked at when they are decoded."""

_FORMATS = ('JPEG', 'MPO', 'PNG')  # MPO: some cameras' JPEG.
_CLUTTER = (
  '@eadir', '#recycle', '$recycle.bin', '__macosx', 'desktop.ini',
  'ehthumbs.db', 'icon\r', 'lost+found', 'picasa.ini',
  'system volume information', 'thumbs.db',
)  # fmt: skip
"""What systems put among pictures by themselves, besides hidden files."""

_SHARE = 0.1  # Of the files of a class.

_SPLIT_NAMES = {
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

_MARKER = re.compile(rb'\xff+([^\x00\xff\xd0-\xd7])')
_EOI, _NO_LENGTH = b'\xd9', b'\xd8\x01'


def list_images(
  folder: str, split: str
) -> tuple[list[str], np.ndarray, tuple[str, ...]]:
  """Lists the images of one split in a fixed order.

  Args:
    folder: The folder, with one of the layouts above.
    split: 'train' or 'validation'; 'test' of a folder that has its own.

  Returns:
    Paths in sorted order; the class of each, int32 `[num_images]`; the names
    of the classes.

  Raises:
    DataError: If the folder is missing, has no images or a file that is none,
      no such split, or folders that may be splits or classes.
  """
  root = pathlib.Path(folder)
  if not root.is_dir():
    raise DataError(f'There is no folder {folder}.')
  subfolders = sorted(p for p in _visible(root) if p.is_dir())
  places = _find_splits(root, subfolders)
  known = places if len(places) > 1 else SPLITS
  if split not in known:
    raise DataError(
      f'Folder {folder} has no split {split!r}; it has {" and ".join(known)}.'
    )
  train = places[TRAIN]
  if train != root:
    _refuse_loose(root, train.name)
  if len(places) > 1:
    _, _, names = _list_classes(train)
    paths, labels, own_names = _list_classes(places[split])
    if not set(own_names) <= set(names):
      unknown = sorted(set(own_names) - set(names))
      raise DataError(
        f'{places[split]} has classes that {train} lacks: {", ".join(unknown)}.'
      )
    numbers = np.array([names.index(name) for name in own_names], np.int32)
    return paths, numbers[labels], names
  paths, labels, names = _list_classes(train)
  if len(paths) < 2:
    raise DataError(
      f'Folder {folder} has a single image, but training and evaluation '
      'need at least one each.'
    )
  relative = [pathlib.Path(p).relative_to(train).as_posix() for p in paths]
  held_out = hold_out(relative, labels)
  chosen = np.flatnonzero(held_out == (split == HELD_OUT))
  return [paths[i] for i in chosen], labels[chosen], names


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


def check_files(paths: list[str]):
  """Raises a `DataError` that names the files that are no sound images."""

  def find_problem(path):
    try:
      check_image(_read(path), path)
    except DataError as error:
      return str(error)
    return ''

  with futures.ThreadPoolExecutor(4) as pool:
    _refuse([problem for problem in pool.map(find_problem, paths) if problem])


def refuse(path: str):
  """Raises a `DataError` that says why a file cannot be decoded."""
  check_files([path])
  raise DataError(f'{readable(path)} is a broken image.')


def check_image(encoded: bytes, path: str):
  """Checks an encoded image without decoding it.

  Raises:
    DataError: If it is not a JPEG or PNG image, or a broken one, or one that
      is too large to be decoded as a whole.
  """
  path = readable(path)
  try:
    with PIL.Image.open(io.BytesIO(encoded)) as image:
      kind = image.format
      image.verify()
  except PIL.Image.DecompressionBombError as error:
    raise DataError(
      f'{path} has more than {2 * PIL.Image.MAX_IMAGE_PIXELS // 10**6} million '
      'pixels, too many to be decoded as a whole.'
    ) from error
  except Exception as error:  # Pillow raises many kinds, SyntaxError included.
    raise DataError(f'{path} is not an image, or a broken one.') from error
  if kind not in _FORMATS:
    raise DataError(f'{path} is a {kind} image, not JPEG or PNG.')
  if kind != 'PNG' and not _ends(encoded):
    raise DataError(f'{path} is a broken image: the JPEG data end too early.')


def readable(path: str) -> str:
  """A path that can be printed, also if its bytes are not UTF-8."""
  return path.encode('utf-8', 'surrogateescape').decode(
    'utf-8', 'backslashreplace'
  )


def _ends(jpeg: bytes) -> bool:
  """Whether a JPEG's own end marker is there.

  It need not be the last of the file, to which phones append a film, nor the
  first, since a thumbnail in the header has one of its own. Source: ITU T.81,
  B.1.1; in the pixels of a scan a marker cannot occur by chance.
  """
  found = _MARKER.search(jpeg)
  while found and found[1] != _EOI:
    place = found.end()
    if found[1] not in _NO_LENGTH:
      place += int.from_bytes(jpeg[place : place + 2], 'big')
    found = _MARKER.search(jpeg, place)
  return bool(found)


def fingerprint(paths: list[str], folder: str) -> str:
  """A hash of the files' names and sizes, wherever the folder lies."""
  digest = hashlib.sha256()
  for path in paths:
    file = pathlib.Path(path)
    name = file.relative_to(folder).as_posix()
    line = f'{name}\0{file.stat().st_size}\n'
    digest.update(line.encode('utf-8', 'surrogateescape'))
  return digest.hexdigest()[:16]


def _find_splits(
  root: pathlib.Path, subfolders: Sequence[pathlib.Path]
) -> dict[str, pathlib.Path]:
  """Finds the folder of each split among the subfolders of the data.

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
    named.get(_SPLIT_NAMES.get(place.name.lower(), ''), others).append(place)
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
  others = [place for place in others if _has_images(place)]
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


def _refuse_nested(
  classes: Sequence[pathlib.Path], trains: Sequence[pathlib.Path] = ()
):
  """Refuses classes that are split inside, which would be trained on whole."""
  for place in classes:
    inside = [
      p for p in sorted(place.iterdir()) if p.name.lower() in _SPLIT_NAMES
    ]
    inside = [path for path in inside if path.is_dir()]
    if len({_SPLIT_NAMES[path.name.lower()] for path in inside}) > 1:
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


def _list_classes(root: pathlib.Path):
  """Paths, labels and class names of one folder with either layout."""
  subfolders = sorted(p for p in _visible(root) if p.is_dir())
  if subfolders:
    _refuse_loose(root, 'a class')
  classes = subfolders or [root]
  paths, labels, strays = [], [], []
  for label, place in enumerate(classes):
    files = _images_below(place, strays)
    if not files and not strays:
      raise DataError(
        f'Folder {place} has no images ({", ".join(EXTENSIONS)}).'
      )
    paths += files
    labels += [label] * len(files)
  _refuse(strays)
  names = tuple(p.name for p in subfolders) or ('image',)
  return paths, np.array(labels, np.int32), names


def _refuse_loose(root: pathlib.Path, place: str):
  """Refuses images beside the subfolders that belong into `place`."""
  loose = [
    p for p in _visible(root) if p.is_file() and p.suffix.lower() in EXTENSIONS
  ]
  if loose:
    raise DataError(
      f'Folder {root} has images both beside and inside its subfolders, '
      f'such as {loose[0].name}: move them into {place}.'
    )


def _has_images(folder: pathlib.Path) -> bool:
  return any(
    _has_images(path) if path.is_dir() else path.suffix.lower() in EXTENSIONS
    for path in _visible(folder)
  )


def files_below(folder: pathlib.Path) -> list[pathlib.Path]:
  """The files of a folder and its subfolders, in a fixed order.

  What systems hide or put there by themselves is passed over.
  """
  files = []
  for path in sorted(_visible(folder)):
    files += files_below(path) if path.is_dir() else [path]
  return files


def _images_below(folder: pathlib.Path, strays: list[str]) -> list[str]:
  """The images of a class; what else is there is added to `strays`."""
  images = []
  for path in files_below(folder):
    if path.suffix.lower() in EXTENSIONS:
      images.append(str(path))
    else:
      strays.append(f'{readable(str(path))} is no JPEG or PNG image.')
  return images


def _refuse(problems: list[str]):
  """Raises a `DataError` of one line if there are problems."""
  if not problems:
    return
  others = f' So it is with {len(problems) - 1} more.' if problems[1:] else ''
  raise DataError(
    f'{problems[0]}{others} Use {", ".join(EXTENSIONS)}; prepare_images makes '
    'a folder of what can be read (docs/own_data.md).'
  )


def _visible(folder: pathlib.Path) -> list[pathlib.Path]:
  return [
    path
    for path in folder.iterdir()
    if not path.name.startswith('.') and path.name.lower() not in _CLUTTER
  ]


def _read(path: str) -> bytes:
  try:
    return pathlib.Path(path).read_bytes()
  except OSError as error:
    raise DataError(
      f'{readable(path)} cannot be read: {error.strerror}.'
    ) from error
