"""Own photographs, as they come from phones and cameras, to a training folder.

Everything that Pillow reads is turned upright, brought to sRGB, laid on white
where it is transparent, made small and written as JPEG or PNG under its old
name. The originals are left as they are.
"""

from concurrent import futures
import contextlib
import dataclasses
import functools
import io
import os
import pathlib

import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.ImageOps
import tqdm

from vim_tf import files
from vim_tf.data import folders
from vim_tf.data.errors import DataError

_LOSSY = ('JPEG', 'MPO', 'WEBP', 'AVIF', 'HEIF')
_QUALITY = 95
_THREADS = 4
_MOST_PIXELS = 2**29  # More than any camera's picture has.
_HEIF = ('.heic', '.heif', '.hif')
_NO_HEIF = (
  'HEIC, for which Pillow needs the package pillow-heif: install it, or export '
  'the picture as JPEG'
)


@dataclasses.dataclass(frozen=True)
class Report:
  """What became of a folder's files.

  Attributes:
    num_written: How many images were written.
    num_there: How many were not, because they were there already.
    left_out: Of each file that was left out, its path and why, in one line.
  """

  num_written: int
  num_there: int
  left_out: tuple[str, ...]


def prepare(source: pathlib.Path, out: pathlib.Path, size: int) -> Report:
  """Makes a folder that can be trained on, or adds to one.

  Args:
    source: The folder of originals, with subfolders or without; hidden files
      are passed over.
    out: The folder of what is prepared, with the same subfolders. What is
      there already is left as it is, and nothing is added before all is ready.
    size: The shorter side of the images that are written, in pixels; smaller
      ones are not enlarged.

  Raises:
    DataError: If `source` is no folder, `out` lies inside `source` or cannot
      be written, or no file is an image.
  """
  if not source.is_dir():
    raise DataError(f'There is no folder {source}.')
  if out.exists() and not out.is_dir():
    raise DataError(f'{out} is a file; name a folder.')
  if source.resolve() in (out.resolve(), *out.resolve().parents):
    raise DataError(f'{out} is inside {source}: put it elsewhere.')
  names = [p.relative_to(source) for p in folders.files_below(source)]
  new = [
    name
    for name in names
    if not any(path.exists() for path in _targets(out, name))
  ]
  has_heif = _register_heif()
  try:
    with (
      files.scratch_folder(out) as made,
      futures.ThreadPoolExecutor(_THREADS) as pool,
      _large_pictures(),
    ):
      work = functools.partial(_prepare_file, source, made, size, has_heif)
      problems = tqdm.tqdm(
        pool.map(work, new),
        'Preparing',
        len(new),
        disable=None,  # Where there is no terminal.
        unit='file',
        dynamic_ncols=True,
      )
      left_out = tuple(problem for problem in problems if problem)
      if len(left_out) == len(names):
        first = f', such as {left_out[0]}' if left_out else ''
        raise DataError(f'No file in {source} is an image{first}.')
      if out.exists():
        for path in folders.files_below(made):
          target = out / path.relative_to(made)
          target.parent.mkdir(parents=True, exist_ok=True)
          os.rename(path, target)
      else:
        os.rename(made, out)
  except OSError as error:
    raise DataError(
      f'Cannot write {out}: {error.strerror or error}.'
    ) from error
  return Report(len(new) - len(left_out), len(names) - len(new), left_out)


def make_image(encoded: bytes, size: int) -> PIL.Image.Image:
  """Decodes an image, upright, in sRGB and small.

  Args:
    encoded: Content of a file.
    size: The shorter side, in pixels, of images that are larger.

  Returns:
    An image of mode RGB.
  """
  with PIL.Image.open(io.BytesIO(encoded)) as image:
    width, height = image.size
    scale = max(size / min(width, height), 1e-9)
    if scale < 1:  # Of a JPEG only what a reduced image needs is decoded.
      image.draft(None, (round(2 * width * scale), round(2 * height * scale)))
    image.load()
    image = _to_srgb(PIL.ImageOps.exif_transpose(image))
  scale = size / min(image.size)
  if scale < 1:
    shape = tuple(max(1, round(side * scale)) for side in image.size)
    image = image.resize(shape, PIL.Image.Resampling.LANCZOS)
  return image


def _targets(out: pathlib.Path, name: pathlib.Path) -> list[pathlib.Path]:
  """The names that an image may be written under; the first is its own."""
  # Kept within the others, since a.heic may be by a.jpg.
  return [out / name, *(out / f'{name}{ending}' for ending in ('.jpg', '.png'))]


def _prepare_file(
  source: pathlib.Path,
  out: pathlib.Path,
  size: int,
  has_heif: bool,
  name: pathlib.Path,
) -> str:
  """Prepares one file; gives '' or why it is left out."""
  shown = folders.readable(str(name))
  try:
    encoded = (source / name).read_bytes()
  except OSError as error:
    return f'{shown} cannot be read: {error.strerror}'
  try:
    with PIL.Image.open(io.BytesIO(encoded)) as image:
      lossy = image.format in _LOSSY
  except PIL.Image.DecompressionBombError:
    return f'{shown} has more than {_MOST_PIXELS // 10**6} million pixels'
  except Exception:  # Pillow raises many kinds, SyntaxError included.
    unknown = name.suffix.lower() in _HEIF and not has_heif
    return f'{shown} is {_NO_HEIF if unknown else "not an image"}'
  try:
    image = make_image(encoded, size)
  except Exception as error:  # Likewise; said, lest a fault of ours hides here.
    return f'{shown} is a broken image ({type(error).__name__})'
  target, jpeg, png = _targets(out, name)
  if name.suffix.lower() not in (('.jpg', '.jpeg') if lossy else ('.png',)):
    target = jpeg if lossy else png
  target.parent.mkdir(parents=True, exist_ok=True)
  if lossy:
    image.save(target, 'JPEG', quality=_QUALITY, subsampling=0)
  else:
    image.save(target, 'PNG')
  return ''


def _register_heif() -> bool:
  """Lets Pillow read HEIC, if the package for it is there."""
  try:
    import pillow_heif
  except ImportError:
    return False
  pillow_heif.register_heif_opener()
  return True


@contextlib.contextmanager
def _large_pictures():
  """Lets Pillow read pictures of 200 megapixels, which phones make."""
  usual = PIL.Image.MAX_IMAGE_PIXELS
  PIL.Image.MAX_IMAGE_PIXELS = _MOST_PIXELS // 2  # It refuses twice as many.
  try:
    yield
  finally:
    PIL.Image.MAX_IMAGE_PIXELS = usual


def _to_srgb(image: PIL.Image.Image) -> PIL.Image.Image:
  """Any mode and colour space to RGB."""
  if image.mode.startswith('I'):  # Gray of 16 bits, which Pillow would clip.
    values = np.asarray(image).astype(np.int64)
    image = PIL.Image.fromarray((values.clip(0, 65535) // 257).astype(np.uint8))
  profile = image.info.get('icc_profile')
  if profile and image.mode in ('RGB', 'CMYK'):
    try:
      return PIL.ImageCms.profileToProfile(
        image,
        PIL.ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        PIL.ImageCms.createProfile('sRGB'),
        outputMode='RGB',
      )
    except (OSError, PIL.ImageCms.PyCMSError):
      pass  # A profile that makes no sense; the colours as they are.
  if image.has_transparency_data:
    image = image.convert('RGBA')
    white = PIL.Image.new('RGBA', image.size, 'white')
    image = PIL.Image.alpha_composite(white, image)
  return image.convert('RGB')
