"""An image's codes, to be completed from its top rows."""

import pathlib

import numpy as np
import tensorflow as tf

from vim_tf.config import ConfigError, UserError
from vim_tf.data import folders
from vim_tf.data import images as images_lib
from vim_tf.jobs import restore


def read_prefix(
  tokenizer: restore.Restored, path: str, keep_rows: int
) -> tuple[np.ndarray, np.ndarray, int]:
  """Reads an image as evaluation images are read, and encodes it.

  Args:
    tokenizer: Makes the codes.
    path: A JPEG or PNG file of any size: its largest centred square
      is taken, resized.
    keep_rows: Rows of codes to keep, of which each is as high as a patch.

  Returns:
    The prepared image, uint8 `[image_size, image_size, 3]`; its codes, int32
    `[num_codes]`; and how many of them are kept.

  Raises:
    UserError: If the file is no image, or has not that many rows.
  """
  sizes = tokenizer.config.model
  if not 0 <= keep_rows <= sizes.grid_size:
    raise ConfigError(
      f'--keep_rows is {keep_rows}, but an image has {sizes.grid_size} rows of '
      f'codes, of {sizes.patch_size} pixels each: keep 0 to {sizes.grid_size}.'
    )
  try:
    encoded = pathlib.Path(path).read_bytes()
  except OSError as error:
    raise UserError(
      f'Cannot read --complete={path}: {error.strerror}.'
    ) from error
  folders.check_image(encoded, path)
  try:
    image = images_lib.decode_square(tf.constant(encoded), sizes.image_size)
  except tf.errors.InvalidArgumentError as error:
    raise UserError(f'{path} is not an image, or a broken one.') from error
  codes = tokenizer.model.encode(images_lib.from_uint8(image)[None])
  return image.numpy(), codes[0].numpy(), keep_rows * sizes.grid_size
