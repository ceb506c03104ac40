"""ViT-VQGAN, the stage-1 model: images to codes and back (paper 3)."""

import tensorflow as tf

from vim_tf.config import ViTVQGANConfig
from vim_tf.nn import layers
from vim_tf.vit_vqgan import losses, quantizer, vit


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class ViTVQGAN(layers.ConfiguredModel):
  """An autoencoder whose bottleneck is a grid of integer codes.

  Example:
    model = ViTVQGAN(presets.stage1('vit_vqgan_ss').model)
    codes = model.encode(images)     # int32 [batch, 1024]
    images = model.decode(codes)     # float32 [batch, 256, 256, 3]

  Args:
    config: Every size of the model.
    recompute: Whether the Transformers recompute activations, for memory.
    **kwargs: Arguments of `tf.keras.Model`; `dtype='mixed_bfloat16'` computes
      in bfloat16, the quantizer excepted.
  """

  config_class = ViTVQGANConfig

  def __init__(self, config: ViTVQGANConfig, recompute: bool = False, **kwargs):
    # Keras would round the images to bfloat16 before the encoder sees them.
    kwargs = {'name': 'vit_vqgan', 'autocast': False, **kwargs}
    super().__init__(config, recompute, **kwargs)
    dtype = self.dtype_policy
    if config.backbone == 'cnn':
      from vim_tf.vit_vqgan import cnn  # The baseline alone needs it.

      common = {
        'image_size': config.image_size,
        'patch_size': config.patch_size,
        'multiplier': config.cnn_multiplier,
        'dtype': dtype,
      }
      channels = 6 if config.logit_laplace else 3
      self.encoder = cnn.CNNEncoder(**common, name='encoder')
      self.decoder = cnn.CNNDecoder(**common, channels=channels, name='decoder')
    else:
      common = {'recompute': recompute, 'dtype': dtype}
      self.encoder = vit.ViTEncoder(config, **common, name='encoder')
      self.decoder = vit.ViTDecoder(config, **common, name='decoder')
    # Long vectors at the start: where they are normalised, the steps of short
    # ones would turn them too far.
    # In float32 always: rounded to bfloat16, its few outputs alone would change
    # more codes than all else.
    self.to_code = layers.dense(
      config.code_dim,
      self.encoder.width,
      'float32',
      'to_code',
      stddev=self.encoder.width**-0.5,
    )
    self.from_code = layers.dense(
      self.decoder.width, config.code_dim, dtype, 'from_code'
    )
    self.quantizer = quantizer.Quantizer(
      config.codebook_size,
      config.code_dim,
      config.l2_normalize,
      name='quantizer',
    )

  def build(self, input_shape=None):
    """Makes every variable; the sizes are known without an input."""
    for layer in (self.encoder, self.decoder, self.quantizer):
      if not layer.built:
        layer.build(None)
    self.built = True

  @property
  def decoder_variables(self) -> list[tf.Variable]:
    """What can be trained on without a change of any code."""
    return [
      *self.from_code.trainable_variables,
      *self.decoder.trainable_variables,
    ]

  def features(self, images: tf.Tensor) -> tf.Tensor:
    """Encoder outputs in the lookup space, before normalisation.

    Args:
      images: `[batch, size, size, 3]` in [0, 1].

    Returns:
      float32 `[batch, num_codes, code_dim]`.
    """
    return self.to_code(self.encoder(images))

  def encode(self, images: tf.Tensor) -> tf.Tensor:
    """Images `[batch, size, size, 3]` in [0, 1] to codes.

    Returns:
      int32 `[batch, num_codes]` in [0, codebook_size), raster order.
    """
    return self.quantizer.nearest(self.features(images))

  def decode(self, codes: tf.Tensor) -> tf.Tensor:
    """Codes `[batch, num_codes]` to images.

    Returns:
      float32 `[batch, size, size, 3]`, clipped to [0, 1].
    """
    vectors = self.quantizer.lookup(codes)
    return tf.clip_by_value(self._pixels(vectors)['reconstruction'], 0.0, 1.0)

  def reconstruct(self, images: tf.Tensor) -> tf.Tensor:
    """What `decode` makes of the codes of images."""
    return self.decode(self.encode(images))

  def call(
    self, images: tf.Tensor, quantize: bool = True, training: bool | None = None
  ) -> dict[str, tf.Tensor]:
    """Reconstructs images and measures the quantizer.

    Args:
      images: `[batch, size, size, 3]` in [0, 1].
      quantize: See `quantizer.Quantizer`.
      training: Keras hands it on to `transformer.MLP`.

    Returns:
      A dictionary of: 'reconstruction' float32 `[batch, size, size, 3]`, not
      clipped; 'codes', 'quantized', 'commitment', 'codebook' and 'distance'
      of `quantizer.Quantizer`; 'features', the quantizer's input; and with
      logit-laplace outputs 'mu' and 'log_scale' `[batch, size, size, 3]`.
    """
    del training
    features = self.features(images)
    out = self.quantizer(features, quantize)
    return {**out, 'features': features, **self._pixels(out['quantized'])}

  def start_from(self, color: tf.Tensor):
    """Makes an untrained model answer with one colour, `[3]` in [0, 1]."""
    if self.config.logit_laplace:
      squeezed = losses.squeeze(color)
      mu = tf.math.log(squeezed) - tf.math.log1p(-squeezed)
      color = tf.concat([mu, tf.zeros([3])], axis=0)
    self.decoder.start_from(color)

  def _pixels(self, vectors):
    outputs = self.decoder(self.from_code(vectors))
    if not self.config.logit_laplace:
      return {'reconstruction': outputs}
    mu, log_scale = tf.split(outputs, 2, axis=-1)
    return {
      'reconstruction': losses.unsqueeze(tf.sigmoid(mu)),
      'mu': mu,
      'log_scale': log_scale,
    }
