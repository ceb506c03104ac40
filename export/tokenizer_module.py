"""The tokenizer's signatures: images to codes and back."""

import tensorflow as tf

from export import checks, headers, reading, signatures
from vim_tf.vit_vqgan import model as model_lib

# Resizing and other clients' rounding may leave the unit range by a hair.
_PIXELS = checks.Range(-0.01, 1.01)


class Tokenizer(signatures.SignatureModule):
  """A ViT-VQGAN for a server.

  Signatures (the batch is the first axis everywhere):
    serving_default: `image_bytes` to `codes`.
    encode_images: `images` float32 in [0, 1] to `codes`.
    decode: `codes` to `images`.
    decode_png: `codes` to `png_bytes`.
    reconstruct: `image_bytes` to `png_bytes`, `images` and `codes`.

  Args:
    model: A built tokenizer.
    limits: The largest images that are decoded.
  """

  def __init__(self, model: model_lib.ViTVQGAN, limits: headers.Limits):
    super().__init__('tokenizer', tokenizer=model)
    self.parts.limits = limits
    size = model.config.image_size
    encoded = signatures.example(tf.string, 'image_bytes')
    images = signatures.example(tf.float32, 'images', size, size, 3)
    codes = signatures.example(tf.int32, 'codes', model.config.num_codes)
    self.add(signatures.SERVE, self.encode, encoded)
    self.add('encode_images', self.encode_images, images)
    self.add('decode', self.decode, codes)
    self.add('decode_png', self.decode_png, codes)
    self.add('reconstruct', self.reconstruct, encoded)

  def encode(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
    """Files `[batch]` to codes `[batch, num_codes]`."""
    return {'codes': self.parts.tokenizer.encode(self._read(image_bytes))}

  def encode_images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
    """Images `[batch, size, size, 3]` to codes `[batch, num_codes]`."""
    images = checks.checked({'images': images}, {'images': _PIXELS})['images']
    return {'codes': self.parts.tokenizer.encode(images)}

  def decode(self, codes: tf.Tensor) -> dict[str, tf.Tensor]:
    """Codes `[batch, num_codes]` to images `[batch, size, size, 3]`."""
    model = self.parts.tokenizer
    known = checks.Range(0, model.config.codebook_size - 1)
    codes = checks.checked({'codes': codes}, {'codes': known})['codes']
    return {'images': model.decode(codes)}

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
    inputs = checks.checked({'image_bytes': image_bytes}, {})
    size = self.parts.tokenizer.config.image_size
    return reading.read(inputs['image_bytes'], size, self.parts.limits)
