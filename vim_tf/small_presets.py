"""Runs that a CPU can do: both stages by size and number of steps."""

import dataclasses

from vim_tf.config import (
  AdversarialConfig,
  CodebookConfig,
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

_OPENMOJI_CLASSES = 9
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
  """Sizes and steps of both stages, for 8x8 patches and OpenMoji.

  Attributes:
    image_size: Height and width of the pictures, in pixels.
    codebook_size: Number of codes.
    width: Width of the tokenizer.
    encoder_blocks: Blocks of its encoder.
    decoder_blocks: Blocks of its decoder.
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
  """

  image_size: int
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

  def stage1(
    self, data_dir: str = '', precision: str = 'float32'
  ) -> Stage1Config:
    """The tokenizer's run: 8x8 patches, the full loss at its end."""

    def transformer(blocks):
      width = self.width
      return TransformerConfig(blocks, max(2, width // 64), width, 4 * width)

    steps = self.tokenizer_steps
    full_loss = steps - self.full_loss_steps
    return Stage1Config(
      model=ViTVQGANConfig(
        encoder=transformer(self.encoder_blocks),
        decoder=transformer(self.decoder_blocks),
        image_size=self.image_size,
        patch_size=8,
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
        1.2e-3, steps, final=0.03, clip_norm=1.0, ema_decay=_EMA_DECAY
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
        ),
        grid_size=stage1.model.grid_size,
        codebook_size=self.codebook_size,
        num_classes=_OPENMOJI_CLASSES,
      ),
      data=stage1.data,
      optimizer=falling(
        1e-3,
        self.vim_steps,
        final=0.01,
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
  image_size=64,
  codebook_size=128,
  width=192,
  encoder_blocks=2,
  decoder_blocks=3,
  tokenizer_batch=16,
  tokenizer_steps=3600,
  full_loss_steps=200,
  vim_width=256,
  vim_blocks=6,
  vim_dropout=0.1,
  vim_batch=16,
  vim_steps=2000,
)
"""Both stages in about a quarter of an hour on two cores."""
