"""The paper's sizes and recipes by name, and small ones to try and test."""

import dataclasses

from vim_tf.config import (
  AdversarialConfig,
  CodebookConfig,
  ConfigError,
  DataConfig,
  LossConfig,
  OptimizerConfig,
  PerceptualConfig,
  RunConfig,
  Stage1Config,
  Stage2Config,
  TransformerConfig,
  VIMConfig,
  ViTVQGANConfig,
)
from vim_tf.config_probe import ProbeConfig
from vim_tf.small_presets import SMALL, falling

# Paper Table 2. Head width 64 makes Large 602M parameters against the
# published 599M; 1280 / 16 heads would make it 644M.
_SMALL = TransformerConfig(8, 8, 512, 2048)
_BASE = TransformerConfig(12, 12, 768, 3072)
_LARGE = TransformerConfig(32, 16, 1280, 5120, head_width=64)
_VIM_BASE = TransformerConfig(24, 16, 1536, 6144, dropout=0.1)
_VIM_LARGE = TransformerConfig(36, 32, 2048, 8192, dropout=0.1)
_TINY = TransformerConfig(2, 2, 32, 64)

# Paper 5.1: both networks of stage 1.
_STAGE1_OPTIMIZER = OptimizerConfig(
  learning_rate=1e-4,
  beta_2=0.99,
  weight_decay=1e-4,
  warmup_steps=50_000,
  decay='cosine',
  decay_start=50_000,
  decay_end=500_000,
  final_learning_rate=5e-5,
)
# Paper 5.2; weight decay is not stated there.
_STAGE2_OPTIMIZER = OptimizerConfig(
  name='adafactor',
  learning_rate=4.5e-4,
  beta_2=0.96,
  weight_decay=0.0,
  warmup_steps=5_000,
  decay='exponential',
  decay_start=80_000,
  decay_end=450_000,
  final_learning_rate=1e-5,
)
_IMAGENET = DataConfig(name='imagenet2012')


def _paper_stage1(
  encoder: TransformerConfig, decoder: TransformerConfig, patch_size: int = 8
) -> Stage1Config:
  return Stage1Config(
    model=ViTVQGANConfig(encoder, decoder, patch_size=patch_size),
    data=_IMAGENET,
    losses=LossConfig(),
    perceptual=PerceptualConfig(),
    adversarial=AdversarialConfig(),
    codebook=CodebookConfig(),
    optimizer=_STAGE1_OPTIMIZER,
    discriminator_optimizer=_STAGE1_OPTIMIZER,
    run=RunConfig(num_steps=500_000, batch_size=256),
  )


def _paper_stage2(
  transformer: TransformerConfig, grid_size: int = 32, num_classes: int = 1000
) -> Stage2Config:
  return Stage2Config(
    model=VIMConfig(transformer, grid_size, num_classes=num_classes),
    data=_IMAGENET,
    optimizer=_STAGE2_OPTIMIZER,
    run=RunConfig(num_steps=450_000, batch_size=1024),
  )


def _short_run(steps: int, batch_size: int, every: int, **kwargs) -> RunConfig:
  return RunConfig(
    num_steps=steps,
    batch_size=batch_size,
    steps_per_loop=min(every, 50),
    log_every=min(every, 50),
    eval_every=every,
    picture_every=every,
    checkpoint_every=every,
    eval_examples=512,
    **kwargs,
  )


def _tiny_stage1() -> Stage1Config:
  """Trains in seconds; for tests."""
  return Stage1Config(
    model=ViTVQGANConfig(
      _TINY,
      _TINY,
      image_size=16,
      patch_size=4,
      codebook_size=32,
      code_dim=8,
      logit_laplace=False,
    ),
    data=DataConfig(image_size=16, crop='shift', max_shift=2),
    losses=LossConfig(logit_laplace=0.0, perceptual=0.0, adversarial=0.0),
    perceptual=PerceptualConfig(),
    adversarial=AdversarialConfig(channel_multiplier=1 / 32, r1_interval=4),
    codebook=CodebookConfig(init_from_data=True),
    optimizer=falling(1e-3, 20, final=0.05),
    discriminator_optimizer=OptimizerConfig(learning_rate=1e-3),
    run=_short_run(steps=20, batch_size=8, every=10),
  )


def _tiny_stage2() -> Stage2Config:
  """The VIM of `tiny` stage 1; for tests."""
  return Stage2Config(
    model=VIMConfig(
      dataclasses.replace(_TINY, dropout=0.1),
      grid_size=4,
      codebook_size=32,
      num_classes=9,
    ),
    data=DataConfig(image_size=16, crop='shift', max_shift=2),
    optimizer=falling(1e-3, 20, final=0.05, beta_2=0.96),
    run=_short_run(steps=20, batch_size=8, every=10),
    label_drop=0.1,
  )


def _probe(
  vim: Stage2Config,
  steps: int,
  batch_size: int,
  passes: int,
  learning_rate: float = 0.3,
  **kwargs,
) -> ProbeConfig:
  """Softmax layers by Adam, its learning rate falling to zero."""
  return ProbeConfig(
    data=vim.data,
    optimizer=OptimizerConfig(
      learning_rate=learning_rate,
      beta_2=0.999,
      weight_decay=0.0,
      decay='cosine',
      decay_end=steps,
    ),
    run=RunConfig(
      num_steps=steps,
      batch_size=batch_size,
      steps_per_loop=min(steps, 100),
      log_every=min(steps, 100),
      eval_every=0,
      picture_every=0,
      checkpoint_every=steps,
    ),
    passes=passes,
    **kwargs,
  )


STAGE1 = {
  'vit_vqgan_ss': lambda: _paper_stage1(_SMALL, _SMALL),
  'vit_vqgan_bb': lambda: _paper_stage1(_BASE, _BASE),
  'vit_vqgan_sl': lambda: _paper_stage1(_SMALL, _LARGE),
  'vit_vqgan_ss_16x16': lambda: _paper_stage1(_SMALL, _SMALL, 16),
  'vit_vqgan_bb_16x16': lambda: _paper_stage1(_BASE, _BASE, 16),
  'vit_vqgan_sl_16x16': lambda: _paper_stage1(_SMALL, _LARGE, 16),
  'small': lambda: SMALL.stage1(),
  'tiny': _tiny_stage1,
}

STAGE2 = {
  'vim_base': lambda: _paper_stage2(_VIM_BASE),
  'vim_large': lambda: _paper_stage2(_VIM_LARGE),
  'vim_base_16x16': lambda: _paper_stage2(_VIM_BASE, 16),
  'vim_large_16x16': lambda: _paper_stage2(_VIM_LARGE, 16),
  'vim_base_unconditional': lambda: _paper_stage2(_VIM_BASE, num_classes=0),
  # Table 7: the model behind the linear probe has no dropout.
  'vim_large_probe': lambda: _paper_stage2(
    dataclasses.replace(_VIM_LARGE, dropout=0.0), num_classes=0
  ),
  'small': lambda: SMALL.stage2(SMALL.stage1()),
  'tiny': _tiny_stage2,
}

# The paper says nothing about how its probes were trained. VIM's features are
# so alike that a layer on them takes long to train, and gains by it: 'quick'
# leaves it far from its optimum.
PROBE = {
  'small': lambda vim: _probe(
    vim,
    steps=1500,
    batch_size=1024,
    passes=8,
    learning_rate=3.0,
    smallest_l2=1e-7,
    largest_l2=1e-3,
  ),
  'quick': lambda vim: _probe(
    vim, steps=400, batch_size=256, passes=0, block='all'
  ),
  'imagenet': lambda vim: _probe(
    vim, steps=10_000, batch_size=4096, passes=0, baselines=False
  ),
  'tiny': lambda vim: _probe(vim, steps=10, batch_size=8, passes=1, num_l2=2),
}

ABOUT_STAGE1 = {
  'vit_vqgan_ss': "The paper's small encoder and decoder, 32 x 32 codes.",
  'vit_vqgan_bb': "The paper's base encoder and decoder, 32 x 32 codes.",
  'vit_vqgan_sl': "The paper's small encoder and large decoder, 32 x 32 codes.",
  'vit_vqgan_ss_16x16': 'Small and small on patches of 16 pixels (Table 4).',
  'vit_vqgan_bb_16x16': 'Base and base on patches of 16 pixels (Table 4).',
  'vit_vqgan_sl_16x16': 'Small and large on patches of 16 pixels (Table 4).',
  'small': "The quickstart's: OpenMoji on a CPU, in minutes.",
  'tiny': 'Trains in seconds; for tests.',
}
"""What each preset of `STAGE1` is."""

ABOUT_STAGE2 = {
  'vim_base': "The paper's VIM-Base, conditional on ImageNet's classes.",
  'vim_large': "The paper's VIM-Large, conditional on ImageNet's classes.",
  'vim_base_16x16': 'VIM-Base for tokenizers with patches of 16 pixels.',
  'vim_large_16x16': 'VIM-Large for tokenizers with patches of 16 pixels.',
  'vim_base_unconditional': 'VIM-Base without classes.',
  'vim_large_probe': 'VIM-Large without classes or dropout (Table 7).',
  'small': "The quickstart's: OpenMoji on a CPU, in minutes.",
  'tiny': 'Trains in seconds; for tests.',
}
"""What each preset of `STAGE2` is."""

ABOUT_PROBE = {
  'small': 'To the optimum, for small data: augmented passes, Adam at 3.0.',
  'quick': "The quickstart's: every block, fast and short of the optimum.",
  'imagenet': 'For ImageNet and VIM-Large: centre crops, no baselines.',
  'tiny': 'Trains in seconds; for tests.',
}
"""What each preset of `PROBE` is."""


def stage1(name: str) -> Stage1Config:
  """The stage-1 config of a preset; see `STAGE1` for the names."""
  return _preset(STAGE1, name)


def stage2(name: str) -> Stage2Config:
  """The stage-2 config of a preset; see `STAGE2` for the names."""
  return _preset(STAGE2, name)


def probe(name: str, vim: Stage2Config) -> ProbeConfig:
  """The config of a probe of a VIM, on its data; see `PROBE` for the names."""
  return _preset(PROBE, name, vim)


def _preset(presets, name, *arguments):
  if name not in presets:
    raise ConfigError(
      f'There is no preset {name!r}; there are {", ".join(presets)}.'
    )
  return presets[name](*arguments)
