"""Every setting of a run as frozen dataclasses, with JSON in and out.

A config is checked when it is made: sizes that do not divide, unknown names
and values out of range raise `ConfigError` with one line that says what was
wrong and what would be right. The paper's own values are in `presets.py`.

This module holds whole runs and gives out what they are made of: import the
names from here.
"""

import dataclasses

from vim_tf.config_checks import ConfigError, UserError, check, first_line
from vim_tf.config_fields import setting
from vim_tf.config_io import from_dict, from_json, replace, to_dict, to_json
from vim_tf.config_models import (
  ACTIVATIONS,
  BACKBONES,
  CNN_PATCH_SIZES,
  POSITIONS,
  TransformerConfig,
  VIMConfig,
  ViTVQGANConfig,
)
from vim_tf.config_training import (
  CROPS,
  DECAYS,
  DISCRIMINATORS,
  GAN_LOSSES,
  OPTIMIZERS,
  PRECISIONS,
  STRATEGIES,
  AdversarialConfig,
  CodebookConfig,
  DataConfig,
  LossConfig,
  OptimizerConfig,
  PerceptualConfig,
  RunConfig,
)

__all__ = [
  'ACTIVATIONS',
  'AdversarialConfig',
  'BACKBONES',
  'CNN_PATCH_SIZES',
  'CROPS',
  'CodebookConfig',
  'ConfigError',
  'DECAYS',
  'DISCRIMINATORS',
  'DataConfig',
  'FEATURE_NETWORK',
  'GAN_LOSSES',
  'MIN_PATCHGAN_SIZE',
  'MIN_PERCEPTUAL_SIZE',
  'LossConfig',
  'OPTIMIZERS',
  'OptimizerConfig',
  'POSITIONS',
  'PRECISIONS',
  'PerceptualConfig',
  'RunConfig',
  'STRATEGIES',
  'Stage1Config',
  'Stage2Config',
  'TransformerConfig',
  'UserError',
  'VIMConfig',
  'ViTVQGANConfig',
  'check_stages_match',
  'first_line',
  'from_dict',
  'from_json',
  'replace',
  'to_dict',
  'to_json',
]


FEATURE_NETWORK = 'efficientnet_lite0'
"""Network whose features are measured where none is named."""
MIN_PERCEPTUAL_SIZE = 16
"""Smallest images of LPIPS, in pixels: VGG16 halves them four times."""
MIN_PATCHGAN_SIZE = 24
"""Smallest images of the PatchGAN of three strided layers, in pixels."""


@dataclasses.dataclass(frozen=True)
class Stage1Config:
  """A whole run of `train_vit_vqgan`.

  Attributes:
    model: Sizes of the tokenizer.
    data: The images.
    losses: Weights of the terms of the loss.
    perceptual: LPIPS.
    adversarial: The discriminator.
    codebook: Help for the codebook on small data.
    optimizer: Optimizer and schedule of the tokenizer.
    discriminator_optimizer: The same of the discriminator.
    run: Length, seed and outputs.
    finetune_decoder_of: Working directory of a stage-1 run to start from,
      whose codes stay as they are because the decoder alone is trained; '':
      a new tokenizer, trained whole.
  """

  model: ViTVQGANConfig
  data: DataConfig
  losses: LossConfig
  perceptual: PerceptualConfig
  adversarial: AdversarialConfig
  codebook: CodebookConfig
  optimizer: OptimizerConfig
  discriminator_optimizer: OptimizerConfig
  run: RunConfig
  finetune_decoder_of: str = setting('', known_by='start_fingerprint')

  def __post_init__(self):
    check(
      not self.finetune_decoder_of
      or not (self.codebook.init_from_data or self.codebook.revival_interval),
      'finetune_decoder_of keeps the codes: set codebook.init_from_data to '
      'false and codebook.revival_interval to 0.',
    )
    check(
      self.data.image_size == self.model.image_size,
      f'data.image_size is {self.data.image_size}, but the model takes '
      f'images of {self.model.image_size} pixels.',
    )
    check(
      self.model.logit_laplace or self.losses.logit_laplace == 0,
      'losses.logit_laplace is above 0, but the model has plain outputs: '
      'set model.logit_laplace=true or the weight to 0.',
    )
    if self.losses.perceptual:
      check(
        self.model.image_size >= MIN_PERCEPTUAL_SIZE,
        f'image_size is {self.model.image_size}, but the perceptual loss '
        f'needs at least {MIN_PERCEPTUAL_SIZE} pixels: set '
        'losses.perceptual to 0 or take larger images.',
      )
    if self.losses.adversarial:
      self._check_discriminator()

  def _check_discriminator(self):
    size = self.model.image_size
    if self.adversarial.discriminator == 'patchgan':
      check(
        size >= MIN_PATCHGAN_SIZE,
        f'image_size is {size}, but the patchgan discriminator needs at least '
        f'{MIN_PATCHGAN_SIZE} pixels.',
      )
    else:
      odd = size // (size & -size)  # Without its powers of two.
      check(
        size >= 4 and odd in (1, 3, 5, 7),
        f'image_size is {size}, but the stylegan2 discriminator halves it '
        'down: it must be 4, 5, 6 or 7 times a power of two.',
      )
    check(
      self.discriminator_optimizer.ema_decay == 0,
      'discriminator_optimizer.ema_decay is above 0, but the weights of a '
      'discriminator are not averaged: set it to 0.',
    )
    check(
      self.discriminator_optimizer.accumulate == 1,
      'discriminator_optimizer.accumulate is above 1, but both networks '
      'follow optimizer.accumulate: leave it at 1.',
    )


@dataclasses.dataclass(frozen=True)
class Stage2Config:
  """A whole run of `train_vim`.

  Attributes:
    model: Sizes of the VIM.
    data: The images whose codes it learns; image size as the tokenizer's.
    optimizer: Optimizer and schedule.
    run: Length, seed and outputs.
    tokenizer: Working directory of the stage-1 run.
    label_drop: Share of training labels replaced by 'no class', which makes
      classifier-free guidance possible.
    codes: Folder of codes that `encode_dataset` made from `data` with the
      tokenizer; '': the tokenizer encodes the images online, as the paper's.
  """

  model: VIMConfig
  data: DataConfig
  optimizer: OptimizerConfig
  run: RunConfig
  tokenizer: str = setting('', known_by='tokenizer_fingerprint')
  label_drop: float = 0.0
  codes: str = setting('', known_by='codes_fingerprint')

  def __post_init__(self):
    check(
      0.0 <= self.label_drop < 1.0,
      f'label_drop is {self.label_drop}, but must be in [0, 1).',
    )
    check(
      self.model.num_classes > 0 or self.label_drop == 0,
      'label_drop is above 0, but the model is unconditional '
      '(num_classes 0): set label_drop to 0.',
    )


def check_stages_match(tokenizer: ViTVQGANConfig, stage2: Stage2Config):
  """Refuses a VIM whose codes are not those of its tokenizer.

  Args:
    tokenizer: The stage-1 model that makes the codes.
    stage2: The stage-2 run that learns them.

  Raises:
    ConfigError: If sizes differ.
  """
  for name, ours, theirs in (
    ('grid_size', stage2.model.grid_size, tokenizer.grid_size),
    ('codebook_size', stage2.model.codebook_size, tokenizer.codebook_size),
    ('image_size', stage2.data.image_size, tokenizer.image_size),
  ):
    check(
      ours == theirs,
      f'{name} is {ours} for the VIM, but {theirs} for its tokenizer.',
    )
