"""One training step of stage 1: autoencoder and discriminator at once."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from vim_tf.config import AdversarialConfig, Stage1Config
from vim_tf.nn import gradients
from vim_tf.vit_vqgan import augment, losses, patchgan, revival, stylegan2
from vim_tf.vit_vqgan import model as model_lib

_DISCRIMINATORS = {
  'stylegan2': stylegan2.StyleGAN2Discriminator,
  'patchgan': patchgan.PatchGANDiscriminator,
}


def make_discriminator(
  config: AdversarialConfig, image_size: int, dtype=None
) -> tf.keras.Model:
  """Makes the discriminator that a config names (paper 3.3, Table 4).

  Args:
    config: Its `discriminator` and `channel_multiplier` are used.
    image_size: Height and width of the images, in pixels.
    dtype: Keras dtype or policy of the computation; None is the global one.

  Returns:
    A built model.
  """
  model = _DISCRIMINATORS[config.discriminator](
    image_size,
    channel_multiplier=config.channel_multiplier,
    dtype=dtype,
    name='discriminator',
  )
  model.build()
  return model


class TokenizerStep:
  """The updates of ViT-VQGAN and its discriminator (paper 3.3, 5.1).

  Kinds of steps, each compiled on its own: 'center' makes the decoder start
  from the mean colour of the first batch, 'unquantized' passes by the
  codebook, 'initialize' sets the codes to encoder outputs first, 'revive'
  replaces unused codes first, 'perceptual' adds LPIPS to the loss,
  'adversarial' trains against the discriminator, 'r1' adds its lazy gradient
  penalty.

  Args:
    config: The run's settings.
    model: The built model.
    optimizer: Updates the model's trainable variables.
    average: A second model that holds the moving average of the weights.
    perceptual: LPIPS, if its weight is above 0.
    discriminator: The built discriminator, if the adversarial weight is
      above 0.
    discriminator_optimizer: Updates the discriminator.
    trained: The variables to train; by default all of the model.
  """

  def __init__(
    self,
    config: Stage1Config,
    model: model_lib.ViTVQGAN,
    optimizer: gradients.Optimizer,
    average: model_lib.ViTVQGAN | None = None,
    perceptual: Callable | None = None,
    discriminator: tf.keras.Model | None = None,
    discriminator_optimizer: gradients.Optimizer | None = None,
    trained: Sequence[tf.Variable] | None = None,
  ):
    self._config = config
    self._model = model
    self._optimizer = optimizer
    self._average = average
    self._perceptual = perceptual
    self._discriminator = discriminator
    self._discriminator_optimizer = discriminator_optimizer
    self._trained = list(trained or model.trainable_variables)
    self._usage = revival.UsageCounter(config.model.codebook_size)
    self._gan = None
    if discriminator is not None:
      from vim_tf.vit_vqgan import gan_losses  # Brings TF-GAN.

      self._gan = gan_losses
      self._gan_losses = gan_losses.GAN_LOSSES[config.adversarial.loss]

  def checkpoint_contents(self) -> dict[str, object]:
    """Everything that a resumed run needs, by name."""
    contents = {
      'model': self._model,
      'average': self._average,
      'optimizer': self._optimizer,
      'usage': self._usage,
      'discriminator': self._discriminator,
      'discriminator_optimizer': self._discriminator_optimizer,
    }
    return {name: value for name, value in contents.items() if value}

  def step_kind(self, step: int) -> str:
    """Which variant a step needs: names joined by '+', or 'plain'."""
    codebook, adversarial = self._config.codebook, self._config.adversarial
    parts = []
    if step == 0 and codebook.init_from_data:
      parts.append('center')
    if step < codebook.init_step:
      parts.append('unquantized')
    elif step == codebook.init_step and codebook.init_from_data:
      parts.append('initialize')
    elif (
      codebook.revival_interval
      and codebook.init_step < step <= codebook.revival_steps
      and step % codebook.revival_interval == 0
    ):
      parts.append('revive')
    if self._perceptual and step >= self._config.perceptual.start_step:
      parts.append('perceptual')
    if self._discriminator is not None and step >= adversarial.start_step:
      parts.append('adversarial')
      if adversarial.r1_gamma and step % adversarial.r1_interval == 0:
        parts.append('r1')
    return '+'.join(parts) or 'plain'

  def replica_step(
    self, kind: str, batch: dict[str, tf.Tensor], step: tf.Tensor
  ) -> dict[str, tf.Tensor]:
    """Updates the weights once, in replica context.

    Args:
      kind: What `step_kind` gave for this step.
      batch: 'images' `[batch, size, size, 3]` in [0, 1], 'seeds' uint32
        `[batch]`.
      step: int64 scalar.

    Returns:
      Scalars whose sum over replicas is the mean over the global batch.
    """
    del step  # Nothing drawn here depends on it: the seeds do.
    parts = kind.split('+')
    batch = {key: batch[key] for key in ('images', 'seeds')}
    replicas = tf.distribute.get_replica_context().num_replicas_in_sync
    global_batch = batch['images'].shape[0] * replicas
    metrics = {}
    if 'center' in parts:
      self._center(batch['images'], global_batch)
    if 'initialize' in parts or 'revive' in parts:
      metrics['codes_replaced'] = (
        self._wake(batch, everything='initialize' in parts) / replicas
      )

    groups = [self._trained]
    if 'adversarial' in parts:
      groups.append(self._discriminator.trainable_variables)
    (model_gradients, *others), terms = gradients.accumulated(
      lambda part: self._losses(part, parts, global_batch),
      batch,
      groups,
      self._config.optimizer.accumulate,
    )
    figures = self._optimizer.apply(model_gradients)
    if others:
      found = self._discriminator_optimizer.apply(others[0])
      figures['discriminator/gradient_norm'] = found['gradient_norm']
    counts = terms.pop('counts')
    metrics['usage'] = self._usage.add(counts) / replicas
    metrics.update({name: x / replicas for name, x in figures.items()})
    return {**metrics, **terms}

  def _center(self, images, global_batch: int):
    total = tf.reduce_sum(tf.reduce_mean(images, axis=[1, 2]), axis=0)  # [3]
    total = tf.distribute.get_replica_context().all_reduce(
      tf.distribute.ReduceOp.SUM, total
    )
    self._model.start_from(total / global_batch)

  def _wake(self, batch, everything: bool):
    quantizer = self._model.quantizer
    if everything:
      dead = tf.ones([quantizer.codebook_size], tf.bool)
    else:
      dead = self._usage.counts < 0.5
    self._usage.reset()
    copies = ()
    if self._average is not None:
      copies = (self._average.quantizer.codebook,)
    return revival.replace_codes(
      quantizer,
      dead,
      self._model.features(batch['images']),
      batch['seeds'],
      copies,
      kmeans=self._config.codebook.init_kmeans if everything else 0,
    )

  def _losses(self, batch, parts, global_batch):
    """Losses of both networks and their terms, for a part of the batch."""
    images, weights = batch['images'], self._config.losses
    adversarial = 'adversarial' in parts
    with tf.GradientTape(persistent=True) as tape:
      out = self._model(
        images, quantize='unquantized' not in parts, training=True
      )
      reconstruction = out['reconstruction']
      terms = {
        'codebook': out['codebook'],
        'commitment': out['commitment'],
        'l2': losses.l2(images, reconstruction),
        'l1': losses.l1(images, reconstruction),
      }
      if weights.logit_laplace:
        terms['logit_laplace'] = losses.logit_laplace_nll(
          images, out['mu'], out['log_scale'], form=weights.logit_laplace_form
        )
      if 'perceptual' in parts:
        terms['perceptual'] = self._perceptual(images, reconstruction)
      total = sum(getattr(weights, name) * x for name, x in terms.items())
      if adversarial:
        fake_logits = self._judge(reconstruction, batch['seeds'])
        terms['adversarial'] = self._gan_losses[0](fake_logits)
    metrics = {
      name: tf.reduce_sum(x) / global_batch for name, x in terms.items()
    }
    if adversarial:
      weight = weights.adversarial
      if self._config.adversarial.adaptive_weight:
        ratio = self._adaptive(tape, total, terms['adversarial'])
        metrics['adaptive_weight'] = ratio * images.shape[0] / global_batch
        weight *= ratio
      total += weight * terms['adversarial']
    loss = tf.reduce_sum(total) / global_batch
    metrics['loss'] = loss
    found = [loss]
    if adversarial:
      more = self._discriminator_terms(batch, fake_logits, 'r1' in parts)
      more = {k: tf.reduce_sum(x) / global_batch for k, x in more.items()}
      found.append(more['discriminator/loss'])
      metrics.update(more)
    metrics['counts'] = revival.count(
      out['codes'], self._config.model.codebook_size
    )
    return found, metrics

  def _discriminator_terms(self, batch, fake_logits, with_r1: bool):
    """What the discriminator learns from; `[batch]` each."""
    settings = self._config.adversarial
    images, seeds = batch['images'], batch['seeds']
    real_logits = self._judge(images, seeds)
    loss = self._gan_losses[1](real_logits, fake_logits)
    terms = {}
    if with_r1:
      penalty = self._gan.r1_penalty(lambda x: self._judge(x, seeds), images)
      terms['discriminator/r1'] = penalty
      loss += 0.5 * settings.r1_gamma * settings.r1_interval * penalty
    axes = list(range(1, real_logits.shape.rank))
    right = 0.5 * (
      tf.cast(real_logits > 0, tf.float32)
      + tf.cast(fake_logits < 0, tf.float32)
    )
    return {
      **terms,
      'discriminator/loss': loss,
      'discriminator/real_logits': tf.reduce_mean(real_logits, axes),
      'discriminator/fake_logits': tf.reduce_mean(fake_logits, axes),
      'discriminator/accuracy': tf.reduce_mean(right, axes),
    }

  def _judge(self, images, seeds):
    if self._config.adversarial.augment:
      images = augment.augment(images, seeds)
    return self._discriminator(images, training=True)

  def _adaptive(self, tape, total, adversarial):
    last = self._model.decoder.last_layer
    weight = tf.fill(total.shape, 1.0 / total.shape[0])  # Of the mean.
    return self._gan.adaptive_weight(
      tape.gradient(total, last, weight),
      tape.gradient(adversarial, last, weight),
    )
