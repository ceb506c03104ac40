"""What a run of the ablations may cost."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Budget:
  """What a run may cost.

  Attributes:
    image_size: Height and width of the pictures, in pixels.
    patch_size: Of a patch; twice that in the rows of few codes.
    codebook_size: Number of codes.
    width: Width of the base tokenizer.
    blocks: Blocks of its encoder, and of its decoder.
    adversarial: Weight of the adversarial term; the paper's is 0.1.
    tokenizer_batch: Images of one of its training steps.
    tokenizer_steps: Its training steps.
    codes_start: The first of them with codes.
    full_loss_start: The first of them with every term of the loss.
    vim_width: Width of VIM.
    vim_blocks: Blocks of the deep VIM; the shallow one has half of them.
    vim_batch: Images of one of its training steps.
    vim_steps: Its training steps.
    checkpoint_every: Steps between checkpoints.
    samples: Samples that are scored.
    max_images: Real images of a split that are measured at most.
    probe: Preset of the probes.
    train_split: Split that everything learns from.
    eval_split: Split that everything is measured on.
  """

  image_size: int
  patch_size: int
  codebook_size: int
  width: int
  blocks: int
  adversarial: float
  tokenizer_batch: int
  tokenizer_steps: int
  codes_start: int
  full_loss_start: int
  vim_width: int
  vim_blocks: int
  vim_batch: int
  vim_steps: int
  checkpoint_every: int
  samples: int
  max_images: int
  probe: str
  train_split: str = 'train'
  eval_split: str = 'validation'


BUDGETS = {
  'small': Budget(
    image_size=32,
    patch_size=4,
    codebook_size=256,
    width=128,
    blocks=3,
    adversarial=0.1,
    tokenizer_batch=8,
    tokenizer_steps=600,
    codes_start=100,
    full_loss_start=450,
    vim_width=128,
    vim_blocks=6,
    vim_batch=16,
    vim_steps=800,
    checkpoint_every=100,
    samples=180,
    max_images=10_000,
    probe='quick',
  ),
  'tiny': Budget(
    image_size=32,
    patch_size=8,
    codebook_size=16,
    width=32,
    blocks=2,
    adversarial=0.0,  # It takes the longest to compile.
    tokenizer_batch=4,
    tokenizer_steps=4,
    codes_start=1,
    full_loss_start=2,
    vim_width=32,
    vim_blocks=2,
    vim_batch=4,
    vim_steps=4,
    checkpoint_every=2,
    samples=18,
    max_images=24,
    probe='tiny',
  ),
}
"""'small' is that of the figures; 'tiny' tries out every part."""

THIRD_SPLIT = {'train_split': 'train[:90%]', 'eval_split': 'train[90%:]'}
"""To measure on images by which no preset was chosen, as by 'validation'."""
