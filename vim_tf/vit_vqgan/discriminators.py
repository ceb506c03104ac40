"""The discriminators of the adversarial loss, by name (paper 3.3, Table 4)."""

import tensorflow as tf

from vim_tf.config import AdversarialConfig
from vim_tf.vit_vqgan.patchgan import PatchGANDiscriminator
from vim_tf.vit_vqgan.stylegan2 import StyleGAN2Discriminator

_CLASSES = {
  'stylegan2': StyleGAN2Discriminator,
  'patchgan': PatchGANDiscriminator,
}


def make(
  config: AdversarialConfig, image_size: int, dtype=None
) -> tf.keras.Model:
  """Makes the discriminator that a config names, with its variables.

  Args:
    config: Its `discriminator` and `channel_multiplier` are used.
    image_size: Height and width of the images, in pixels.
    dtype: Keras dtype or policy of the computation; None is the global one.

  Returns:
    A built model.

  Raises:
    ValueError: The image size does not suit the discriminator.
  """
  model = _CLASSES[config.discriminator](
    image_size,
    channel_multiplier=config.channel_multiplier,
    dtype=dtype,
    name='discriminator',
  )
  model.build()
  return model
