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
  ProbeConfig,
  RunConfig,
  Stage1Config,
  Stage2Config,
  TransformerConfig,
  VIMConfig,
  ViTVQGANConfig,
  replace,
)

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


def _modern(config):
  """The same with blocks of today and Muon, whose rates are Adam's.

  What was ahead in small (docs/results/modern.md); never trained at this size.
  The encoder stays: codes of modern blocks are harder to predict.
  """
  changes = {'optimizer.name': 'muon'}
  for part in ('decoder', 'transformer'):
    if hasattr(config.model, part):
      changes[f'model.{part}.block'] = 'modern'
  return replace(config, changes)


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


# ------------------------------------------------------- runs for a CPU

_OPENMOJI_SUBGROUPS = 99
_EMA_DECAY = 0.998


def falling(
  learning_rate: float, steps: int, final: float, **kwargs
) -> OptimizerConfig:
  """A short warm-up, then a cosine to `final` of the learning rate."""
  warmup = min(100, steps // 5)
  return OptimizerConfig(
    learning_rate=learning_rate,
    warmup_steps=warmup,
    decay='cosine',
    decay_start=warmup,
    decay_end=steps,
    final_learning_rate=learning_rate * final,
    **kwargs,
  )


def _run(steps: int, batch_size: int, precision: str) -> RunConfig:
  every = max(10, min(1000, steps // 4))
  return RunConfig(
    num_steps=steps,
    batch_size=batch_size,
    precision=precision,
    steps_per_loop=50,
    log_every=min(50, every),
    eval_every=every,
    picture_every=every,
    checkpoint_every=min(200, every),
    eval_examples=512,
  )


def _data(folder: str, image_size: int) -> DataConfig:
  # The drawings stand on a common grid, which large shifts would hide.
  return DataConfig(
    name='openmoji',
    image_size=image_size,
    data_dir=folder,
    crop='shift',
    max_shift=image_size // 20,
  )


@dataclasses.dataclass(frozen=True)
class SmallRun:
  """Sizes and steps of both stages, for OpenMoji.

  Attributes:
    image_size: Height and width of the pictures, in pixels.
    patch_size: Height and width of the patch behind one code, in pixels.
    codebook_size: Number of codes.
    width: Width of the tokenizer.
    encoder_blocks: Blocks of its encoder.
    decoder_blocks: Blocks of its decoder, which are modern ones.
    tokenizer_batch: Images of one of its training steps.
    tokenizer_steps: Its training steps.
    full_loss_steps: The last of them, with the perceptual and the adversarial
      term: they cost several times the rest of a step, and refine what the
      other terms have settled.
    vim_width: Width of the VIM.
    vim_blocks: Its blocks.
    vim_dropout: Its dropout rate.
    vim_batch: Images of one of its training steps.
    vim_steps: Its training steps.
    encoder_block: Kind of the encoder's blocks. Modern ones give a better
      picture, and codes that a VIM learns later.
  """

  image_size: int
  patch_size: int
  codebook_size: int
  width: int
  encoder_blocks: int
  decoder_blocks: int
  tokenizer_batch: int
  tokenizer_steps: int
  full_loss_steps: int
  vim_width: int
  vim_blocks: int
  vim_dropout: float
  vim_batch: int
  vim_steps: int
  encoder_block: str = 'paper'

  def stage1(
    self, data_dir: str = '', precision: str = 'float32'
  ) -> Stage1Config:
    """The tokenizer's run: the full loss at its end."""

    def transformer(blocks, block):
      width = self.width
      return TransformerConfig(
        blocks, max(2, width // 64), width, 4 * width, block=block
      )

    steps = self.tokenizer_steps
    full_loss = steps - self.full_loss_steps
    return Stage1Config(
      model=ViTVQGANConfig(
        encoder=transformer(self.encoder_blocks, self.encoder_block),
        decoder=transformer(self.decoder_blocks, 'modern'),
        image_size=self.image_size,
        patch_size=self.patch_size,
        codebook_size=self.codebook_size,
        code_dim=16,
        logit_laplace=False,
        output_mlp=False,
      ),
      data=_data(data_dir, self.image_size),
      losses=LossConfig(l1=0.1, logit_laplace=0.0),
      perceptual=PerceptualConfig(start_step=full_loss),
      adversarial=AdversarialConfig(
        start_step=full_loss, channel_multiplier=1 / 64, augment=True
      ),
      codebook=CodebookConfig(
        init_from_data=True,
        init_step=min(200, steps // 7),
        revival_interval=50,
        revival_steps=steps * 2 // 3,
      ),
      optimizer=falling(
        4e-3,
        steps,
        final=0.03,
        name='muon',
        clip_norm=1.0,
        ema_decay=_EMA_DECAY,
      ),
      discriminator_optimizer=OptimizerConfig(learning_rate=1e-3),
      run=_run(steps, self.tokenizer_batch, precision),
    )

  def stage2(self, stage1: Stage1Config, tokenizer: str = '') -> Stage2Config:
    """The VIM's run on the codes of that tokenizer."""
    width = self.vim_width
    return Stage2Config(
      model=VIMConfig(
        transformer=TransformerConfig(
          self.vim_blocks,
          max(2, width // 64),
          width,
          4 * width,
          dropout=self.vim_dropout,
          block='modern',
        ),
        grid_size=stage1.model.grid_size,
        codebook_size=self.codebook_size,
        num_classes=_OPENMOJI_SUBGROUPS,
      ),
      data=dataclasses.replace(stage1.data, classes_of='subgroup'),
      optimizer=falling(
        6e-3,
        self.vim_steps,
        final=0.01,
        name='muon',
        beta_2=0.96,
        weight_decay=0.05,
        clip_norm=1.0,
        ema_decay=_EMA_DECAY,
      ),
      run=_run(self.vim_steps, self.vim_batch, stage1.run.precision),
      tokenizer=tokenizer,
      label_drop=0.1,
    )


SMALL = SmallRun(
  image_size=48,
  patch_size=4,
  codebook_size=128,
  width=128,
  encoder_blocks=2,
  decoder_blocks=4,
  tokenizer_batch=16,
  tokenizer_steps=1600,
  full_loss_steps=150,
  vim_width=192,
  vim_blocks=6,
  vim_dropout=0.1,
  vim_batch=16,
  vim_steps=1500,
)
"""Both stages in about 11 minutes on two cores."""


# --------------------------------------------------------------- by name

STAGE1 = {
  'vit_vqgan_ss': lambda: _paper_stage1(_SMALL, _SMALL),
  'vit_vqgan_bb': lambda: _paper_stage1(_BASE, _BASE),
  'vit_vqgan_sl': lambda: _paper_stage1(_SMALL, _LARGE),
  'vit_vqgan_ss_16x16': lambda: _paper_stage1(_SMALL, _SMALL, 16),
  'vit_vqgan_bb_16x16': lambda: _paper_stage1(_BASE, _BASE, 16),
  'vit_vqgan_sl_16x16': lambda: _paper_stage1(_SMALL, _LARGE, 16),
  'vit_vqgan_ss_modern': lambda: _modern(_paper_stage1(_SMALL, _SMALL)),
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
  'vim_base_modern': lambda: _modern(_paper_stage2(_VIM_BASE)),
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
  'vit_vqgan_ss_modern': 'Small and small, its decoder modern, with Muon.',
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
  'vim_base_modern': 'VIM-Base with modern blocks and Muon.',
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
