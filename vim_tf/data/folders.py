"""Folders of images: which files, which classes, which split.

Layouts: one subfolder a class, or images alone (one class). Where subfolders
`train` and `validation` both exist, they are the splits, each with such a
layout; otherwise about a tenth of the files is held out by a hash of its name.
"""

from concurrent import futures
import hashlib
import io
import pathlib

import numpy as np
import PIL.Image

from vim_tf.data.errors import DataError

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.gif')
SPLITS = ('train', 'validation')
MAX_CHECKED_FILES = 20_000
"""Of larger folders, files are checked when they are read."""

_HELD_OUT = 0.1
_FORMATS = ('JPEG', 'MPO', 'PNG', 'BMP', 'GIF')  # MPO: some cameras' JPEG.
_CLUTTER = ('thumbs.db', 'desktop.ini')


def list_images(
  folder: str, split: str
) -> tuple[list[str], np.ndarray, tuple[str, ...]]:
  """Lists the images of one split in a fixed order.

  Args:
    folder: The folder, with one of the layouts above.
    split: 'train' or 'validation'.

  Returns:
    Paths in sorted order; the class of each, int32 `[num_images]`; the names
    of the classes.

  Raises:
    DataError: If the folder is missing, has no images or a file that is none.
  """
  root = pathlib.Path(folder)
  if split not in SPLITS:
    raise DataError(
      f'Folder {folder} has no split {split!r}; it has train and validation.'
    )
  if not root.is_dir():
    raise DataError(f'There is no folder {folder}.')
  if all((root / name).is_dir() for name in SPLITS):
    _, _, names = _list_classes(root / 'train')
    paths, labels, own_names = _list_classes(root / split)
    if not set(own_names) <= set(names):
      unknown = sorted(set(own_names) - set(names))
      raise DataError(
        f'{root / split} has classes that {root / "train"} lacks: '
        f'{", ".join(unknown)}.'
      )
    numbers = np.array([names.index(name) for name in own_names], np.int32)
    return paths, numbers[labels], names
  paths, labels, names = _list_classes(root)
  hashes = np.array([_hash(pathlib.Path(p).relative_to(root)) for p in paths])
  held_out = hashes < _HELD_OUT
  if not held_out.any():
    held_out[hashes.argmin()] = True
  chosen = np.flatnonzero(held_out == (split == 'validation'))
  if not chosen.size:
    raise DataError(
      f'Folder {folder} has a single image, but training and evaluation '
      'need at least one each.'
    )
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


def check_image(encoded: bytes, path: str):
  """Checks an encoded image without decoding it in full.

  Args:
    encoded: Content of the file.
    path: Its name, for the message.

  Raises:
    DataError: If it is not a JPEG, PNG, BMP or GIF image, or a broken one.
  """
  try:
    with PIL.Image.open(io.BytesIO(encoded)) as image:
      kind, mode = image.format, image.mode
      if kind in ('BMP', 'GIF'):
        image.load()
      else:
        image.verify()
  except Exception as error:  # Pillow raises many kinds, SyntaxError included.
    raise DataError(f'{path} is not an image, or a broken one.') from error
  if kind not in _FORMATS or (kind == 'BMP' and mode == 'P'):
    raise DataError(
      f'{path} is {kind} ({mode}), which is not supported: convert it to '
      'JPEG or PNG.'
    )
  if kind in ('JPEG', 'MPO') and b'\xff\xd9' not in encoded[-65536:]:
    raise DataError(f'{path} is a broken image: the JPEG data end too early.')


def fingerprint(paths: list[str], folder: str) -> str:
  """A hash of the files' names and sizes, wherever the folder lies."""
  digest = hashlib.sha256()
  for path in paths:
    file = pathlib.Path(path)
    name = file.relative_to(folder).as_posix()
    digest.update(f'{name}\0{file.stat().st_size}\n'.encode())
  return digest.hexdigest()[:16]


def _list_classes(root: pathlib.Path):
  """Paths, labels and class names of one folder with either layout."""
  subfolders = sorted(p for p in _visible(root) if p.is_dir())
  loose = [
    p for p in _visible(root) if p.is_file() and p.suffix.lower() in EXTENSIONS
  ]
  if subfolders and loose:
    raise DataError(
      f'Folder {root} has images both beside and inside its subfolders, '
      f'such as {loose[0].name}: move them into a class.'
    )
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


def files_below(folder: pathlib.Path) -> list[pathlib.Path]:
  """The files of a folder and its subfolders, in a fixed order.

  What systems hide or put there by themselves is passed over.
  """
  files = []
  for path in sorted(_visible(folder)):
    if path.is_dir():
      files += files_below(path)
    elif path.name.lower() not in _CLUTTER:
      files.append(path)
  return files


def _images_below(folder: pathlib.Path, strays: list[str]) -> list[str]:
  """The images of a class; what else is there is added to `strays`."""
  images = []
  for path in files_below(folder):
    if path.suffix.lower() in EXTENSIONS:
      images.append(str(path))
    else:
      strays.append(f'{path} is not an image of a known kind.')
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
  return [p for p in folder.iterdir() if not p.name.startswith('.')]


def _hash(path: pathlib.PurePath) -> float:
  """A number in [0, 1) from a relative path, the same on every system."""
  digest = hashlib.sha256(path.as_posix().encode()).digest()
  return int.from_bytes(digest[:6], 'big') / 2**48


def _read(path: str) -> bytes:
  try:
    return pathlib.Path(path).read_bytes()
  except OSError as error:
    raise DataError(f'{path} cannot be read: {error.strerror}.') from error
