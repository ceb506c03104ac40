"""Folders of images: which files, which classes, which split.

Layouts: one subfolder a class, or images alone (one class). Subfolders such as
`train` and `val` are splits, each with such a layout; without them about a
tenth of each class is held out (`folder_splits`).
"""

from concurrent import futures
import hashlib
import io
import pathlib
import re

import numpy as np
import PIL.Image

from vim_tf.data import folder_splits
from vim_tf.data.errors import DataError

EXTENSIONS = ('.jpg', '.jpeg', '.png')
SPLITS = (folder_splits.TRAIN, folder_splits.HELD_OUT)
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
  places = folder_splits.find(root, subfolders, _has_images)
  known = places if len(places) > 1 else SPLITS
  if split not in known:
    raise DataError(
      f'Folder {folder} has no split {split!r}; it has {" and ".join(known)}.'
    )
  train = places[folder_splits.TRAIN]
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
  held_out = folder_splits.hold_out(relative, labels)
  chosen = np.flatnonzero(held_out == (split == folder_splits.HELD_OUT))
  return [paths[i] for i in chosen], labels[chosen], names


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

  Args:
    encoded: Content of the file.
    path: Its name, for the message.

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
