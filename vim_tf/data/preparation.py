"""Own photographs, as they come from phones and cameras, to a training folder.

Everything that Pillow reads is turned upright, brought to sRGB, laid on white
where it is transparent, made small and written as JPEG or PNG under its old
name. The originals are left as they are.
"""

from concurrent import futures
import dataclasses
import io
import os
import pathlib
import tempfile

import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.ImageOps

from vim_tf.data import folders
from vim_tf.data.errors import DataError

_LOSSY = ('JPEG', 'MPO', 'WEBP', 'AVIF', 'HEIF')
_QUALITY = 95
_THREADS = 4
_MEDIA = {
  '.heic': 'HEIC, which Pillow does not read: export it as JPEG',
  '.heif': 'HEIF, which Pillow does not read: export it as JPEG',
}


@dataclasses.dataclass(frozen=True)
class Report:
  """What became of a folder's files.

  Attributes:
    num_written: How many images were written.
    left_out: Of each file that was not, its path and why, in one line.
  """

  num_written: int
  left_out: tuple[str, ...]


def prepare(source: pathlib.Path, out: pathlib.Path, size: int) -> Report:
  """Makes a folder that can be trained on.

  Args:
    source: The folder of originals, with subfolders or without; hidden files
      are passed over.
    out: The new folder, with the same subfolders. It is there in the end or
      not at all.
    size: The shorter side of the images that are written, in pixels; smaller
      ones are not enlarged.

  Raises:
    DataError: If `source` is no folder, `out` exists, lies inside `source` or
      cannot be written, or no file is an image.
  """
  if not source.is_dir():
    raise DataError(f'There is no folder {source}.')
  if out.exists():
    raise DataError(f'{out} exists already; name a new folder.')
  if source.resolve() in out.resolve().parents:
    raise DataError(f'{out} is inside {source}: put it elsewhere.')
  files = [p.relative_to(source) for p in folders.files_below(source)]
  try:
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
      prefix=f'.{out.name}-', dir=out.parent
    ) as scratch:
      made = pathlib.Path(scratch) / out.name
      made.mkdir()
      with futures.ThreadPoolExecutor(_THREADS) as pool:
        problems = list(
          pool.map(lambda name: _prepare_file(source, made, name, size), files)
        )
      left_out = tuple(problem for problem in problems if problem)
      if len(left_out) == len(files):
        first = f', such as {left_out[0]}' if left_out else ''
        raise DataError(f'No file in {source} is an image{first}.')
      os.rename(made, out)
  except OSError as error:
    raise DataError(
      f'Cannot write {out}: {error.strerror or error}.'
    ) from error
  return Report(len(files) - len(left_out), left_out)


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


def _prepare_file(
  source: pathlib.Path, out: pathlib.Path, name: pathlib.Path, size: int
) -> str:
  """Prepares one file; gives '' or why it is left out."""
  try:
    encoded = (source / name).read_bytes()
  except OSError as error:
    return f'{name} cannot be read: {error.strerror}'
  try:
    with PIL.Image.open(io.BytesIO(encoded)) as image:
      lossy = image.format in _LOSSY
  except Exception:  # Pillow raises many kinds, SyntaxError included.
    return f'{name} is {_MEDIA.get(name.suffix.lower(), "not an image")}'
  try:
    image = make_image(encoded, size)
  except Exception as error:  # Likewise; said, lest a fault of ours hides here.
    return f'{name} is a broken image ({type(error).__name__})'
  target = out / name
  endings = ('.jpg', '.jpeg') if lossy else ('.png',)
  if name.suffix.lower() not in endings:  # Kept, since a.heic may be by a.jpg.
    target = target.with_name(name.name + endings[0])
  target.parent.mkdir(parents=True, exist_ok=True)
  if lossy:
    image.save(target, 'JPEG', quality=_QUALITY, subsampling=0)
  else:
    image.save(target, 'PNG')
  return ''


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
