"""Picture files of rare kinds, and what Pillow shows of them."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps

SIZE = 16
"""Height and width of each."""


def encode(image: PIL.Image.Image, kind: str = 'PNG', **options) -> bytes:
  """The file of a picture."""
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def noise(mode: str, levels: int = 256) -> PIL.Image.Image:
  """A picture of a mode such as 'RGBA', of random bytes below `levels`."""
  pixels = np.random.default_rng(len(mode)).integers(
    0, levels, [SIZE, SIZE, len(mode)], np.uint8
  )
  return PIL.Image.fromarray(pixels.squeeze(), mode)


def png(depth: int, colour_type: int, rows: np.ndarray, more=()) -> bytes:
  """A PNG of the bytes of its rows, for what Pillow does not write.

  Args:
    depth: Bits of a sample.
    colour_type: 0 gray, 2 RGB, 3 palette, 4 gray and alpha, 6 RGBA.
    rows: uint8 `[height, bytes of a row]`.
    more: Pairs of type and content of chunks that come before the pixels.
  """
  width = rows.shape[1] * 8 // (depth * {2: 3, 4: 2, 6: 4}.get(colour_type, 1))
  header = struct.pack(
    '>IIBBBBB', width, len(rows), depth, colour_type, 0, 0, 0
  )
  pixels = zlib.compress(b''.join(b'\0' + row.tobytes() for row in rows))
  found = b'\x89PNG\r\n\x1a\n'
  for name, content in (
    (b'IHDR', header), *more, (b'IDAT', pixels), (b'IEND', b'')
  ):  # fmt: skip
    found += struct.pack('>I', len(content)) + name + content
    found += struct.pack('>I', zlib.crc32(name + content))
  return found


def exact() -> dict[str, bytes]:
  """PNG files of all kinds, by name; each has one right value a pixel."""
  rgb, gray = noise('RGB'), noise('L')
  few = noise('L', 4).convert('RGB')
  colour = rgb.getpixel((3, 4))
  bits = np.random.default_rng(1).integers(0, 256, [SIZE, 16 * SIZE], np.uint8)
  found = {
    'RGB': encode(rgb),
    'gray': encode(gray),
    'one bit': encode(gray.convert('1')),
    'palette': encode(rgb.quantize(200)),
    'small palette': encode(rgb.quantize(13)),
    'palette of two': encode(rgb.quantize(2)),
    'RGB and alpha': encode(noise('RGBA')),
    'gray and alpha': encode(noise('LA')),
    'transparent RGB': encode(few, transparency=few.getpixel((3, 4))),
    'transparent RGB, once': encode(rgb, transparency=colour),
    'transparent gray': encode(gray, transparency=gray.getpixel((3, 4))),
    'transparent bit': encode(gray.convert('1'), transparency=1),
    'transparent colour of a palette': encode(rgb.quantize(4), transparency=2),
    'palette with alpha': encode(
      rgb.quantize(13), transparency=bytes(range(0, 130, 10))
    ),
    'a text that names transparency': png(
      4, 0, bits[:, : SIZE // 2], [(b'tEXt', b'Comment\0about tRNS')]
    ),
    'animated': encode(rgb, save_all=True, append_images=[noise('RGB', 9)]),
  }
  for depth in (2, 4):
    rows = bits[:, : SIZE * depth // 8]
    found[f'gray of {depth} bits'] = png(depth, 0, rows)
  for name, kind, samples in (
    ('gray', 0, 1), ('RGB', 2, 3), ('gray and alpha', 4, 2), ('RGBA', 6, 4)
  ):  # fmt: skip
    found[f'{name} of 16 bits'] = png(16, kind, bits[:, : 2 * SIZE * samples])
  return found


def close() -> dict[str, bytes]:
  """JPEG files of all kinds, by name; decoders differ by rounding."""
  smooth = noise('CMYK').resize([4, 4]).resize([SIZE, SIZE])
  cmyk = encode(smooth, 'JPEG', quality=95)
  place = cmyk.index(b'\xff\xee\0\x0eAdobe')
  rgb = smooth.convert('RGB')
  options = dict(quality=95, subsampling=0)
  return {
    'RGB': encode(rgb, 'JPEG', **options),
    'gray': encode(rgb.convert('L'), 'JPEG', **options),
    'progressive': encode(rgb, 'JPEG', progressive=True, **options),
    'not YCC': encode(rgb, 'JPEG', keep_rgb=True, **options),
    'CMYK': cmyk,
    'YCCK': cmyk[: place + 15] + b'\2' + cmyk[place + 16 :],
    'CMYK without a marker': cmyk[:place] + cmyk[place + 16 :],
    'with a film behind it': encode(rgb, 'JPEG', **options) + bytes(70_000),
  }


def refused() -> dict[str, bytes]:
  """Files of other kinds, by the names of these."""
  rgb = noise('RGB')
  return {kind: encode(rgb, kind) for kind in ('GIF', 'BMP', 'WebP', 'TIFF')}


def by_pillow(encoded: bytes) -> np.ndarray:
  """What a file shows, upright and on white: `[height, width, 3]` in [0, 1]."""
  image = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(encoded)))
  if image.mode == 'I;16':
    image = PIL.Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
  pixels = np.asarray(image.convert('RGBA'), np.float64) / 255.0
  return pixels[..., :3] * pixels[..., 3:] + (1.0 - pixels[..., 3:])
