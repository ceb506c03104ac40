"""Exports a tokenizer for TF Serving: images to codes and back.

  ./bazelw run //export:tokenizer -- \
    --workdir=runs/tokenizer --base=exports/tokenizer

The same from Python: `tokenizer.export('runs/tokenizer', 'exports/tokenizer')`.
"""

from __future__ import annotations

import os

from absl import flags
from etils import epy
import numpy as np

from experiments import flags as flags_lib
from export import settings as settings_lib

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  import tensorflow as tf

  from export import checks, reading, saved_model, signatures, warmup
  from vim_tf.jobs import restore
  from vim_tf.vit_vqgan import model as model_lib


class Tokenizer:
  """A ViT-VQGAN for a server.

  Signatures (the batch is the first axis everywhere):
    serving_default: `image_bytes` to `codes`.
    encode_images: `images` float32 in [0, 1] to `codes`.
    decode: `codes` to `images`.
    decode_png: `codes` to `png_bytes`.
    reconstruct: `image_bytes` to `png_bytes`, `images` and `codes`.

  Args:
    model: A built tokenizer.
    settings: Those of the export.
  """

  def __init__(
    self,
    model: model_lib.ViTVQGAN,
    settings: settings_lib.Settings = settings_lib.DEFAULTS,
  ):
    ranges = {
      # Resizing and other clients' rounding may leave the unit range by a hair.
      'images': checks.Range(-0.01, 1.01),
      'codes': checks.Range(0, model.config.codebook_size - 1),
    }
    self.module = signatures.SignatureModule(
      'tokenizer', settings, ranges, tokenizer=model
    )
    self.parts = self.module.parts
    size = model.config.image_size
    encoded = signatures.example(tf.string, 'image_bytes')
    images = signatures.example(tf.float32, 'images', size, size, 3)
    codes = signatures.example(tf.int32, 'codes', model.config.num_codes)
    self.module.add(signatures.SERVE, self.encode, encoded)
    self.module.add('encode_images', self.encode_images, images)
    self.module.add('decode', self.decode, codes)
    self.module.add('decode_png', self.decode_png, codes)
    self.module.add('reconstruct', self.reconstruct, encoded)

  def encode(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
    """Files `[batch]` to codes `[batch, num_codes]`."""
    return {'codes': self.parts.tokenizer.encode(self._read(image_bytes))}

  def encode_images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
    """Images `[batch, size, size, 3]` to codes `[batch, num_codes]`."""
    return {'codes': self.parts.tokenizer.encode(images)}

  def decode(self, codes: tf.Tensor) -> dict[str, tf.Tensor]:
    """Codes `[batch, num_codes]` to images `[batch, size, size, 3]`."""
    return {'images': self.parts.tokenizer.decode(codes)}

  def decode_png(self, codes: tf.Tensor) -> dict[str, tf.Tensor]:
    """Codes `[batch, num_codes]` to PNG files `[batch]`."""
    return {'png_bytes': reading.to_png(self.decode(codes)['images'])}

  def reconstruct(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
    """Files `[batch]` to what their codes show."""
    codes = self.parts.tokenizer.encode(self._read(image_bytes))
    images = self.parts.tokenizer.decode(codes)
    return {
      'png_bytes': reading.to_png(images),
      'images': images,
      'codes': codes,
    }

  def _read(self, image_bytes):
    size = self.parts.tokenizer.config.image_size
    return reading.read(image_bytes, size, self.parts.settings)


def export(
  workdir: str | os.PathLike,
  base: str | os.PathLike,
  settings: settings_lib.Settings = settings_lib.DEFAULTS,
) -> str:
  """Writes the next version of a tokenizer from its newest checkpoint.

  Args:
    workdir: Working directory of a stage-1 run.
    base: Folder of the versions.
    settings: What every exporter can be told.

  Returns:
    The version's folder.

  Raises:
    UserError: If the run cannot be read or the version cannot be written.
  """
  saved_model.new_version(base, settings.version)  # Refused before the work.
  run = restore.tokenizer(workdir, restore.policy(settings.precision))
  config = run.config.model
  codes = np.zeros([1, config.num_codes], np.int32)
  images = np.zeros([1, config.image_size, config.image_size, 3], np.float32)
  encoded = [warmup.image(config.image_size)]
  found = saved_model.Export(
    Tokenizer(run.model, settings).module,
    run.record['class_names'],
    config={'tokenizer': run.record, 'step': run.step},
    requests=[
      (signatures.SERVE, {'image_bytes': encoded}),
      ('encode_images', {'images': images}),
      ('decode', {'codes': codes}),
      ('decode_png', {'codes': codes}),
      ('reconstruct', {'image_bytes': encoded}),
    ],
  )
  return saved_model.write(found, base, settings)


def define_flags():
  """Defines the flags of the binary."""
  flags.DEFINE_string(
    'workdir',
    None,
    '[model] Working directory of a stage-1 run.',
    required=True,
  )
  settings_lib.define_flags()


def main():
  """Exports what the flags say."""
  values = flags.FLAGS
  export(values.workdir, values.base, settings_lib.from_flags())


if __name__ == '__main__':
  define_flags()
  flags_lib.run(main)
