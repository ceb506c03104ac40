"""What the quickstart trains, and how it chooses samples, by budget."""

import dataclasses
import pathlib

from vim_tf.presets import SMALL, SmallRun


@dataclasses.dataclass(frozen=True)
class Selection:
  """How the best samples are chosen.

  Attributes:
    count: Images of a class.
    acceptance: Share of the candidates that is kept, in (0, 1].
    max_images: Real images of a split that the classifiers see at most.
  """

  count: int
  acceptance: float
  max_images: int


BUDGETS = {
  'tiny': SmallRun(
    image_size=32,
    patch_size=8,
    codebook_size=64,
    width=32,
    encoder_blocks=1,
    decoder_blocks=1,
    tokenizer_batch=8,
    tokenizer_steps=20,
    full_loss_steps=5,
    vim_width=32,
    vim_blocks=1,
    vim_dropout=0.1,
    vim_batch=16,
    vim_steps=20,
  ),
  'short': SMALL,
  'long': dataclasses.replace(
    SMALL,
    encoder_block='modern',
    tokenizer_steps=4000,
    full_loss_steps=300,
    vim_steps=3000,
  ),
}

SELECTION = {
  'tiny': Selection(count=2, acceptance=0.5, max_images=48),
  'short': Selection(count=8, acceptance=0.1, max_images=10_000),
  'long': Selection(count=8, acceptance=0.1, max_images=10_000),
}

CODE_EPOCHS = {'tiny': 1, 'short': 7, 'long': 7}
"""Augmented passes that the n-gram models learn from."""


def precision() -> str:
  """bfloat16 where the CPU multiplies it natively, else float32."""
  try:
    flags = pathlib.Path('/proc/cpuinfo').read_text()
  except OSError:
    return 'float32'
  native = 'avx512_bf16' in flags or 'amx_bf16' in flags
  return 'bfloat16' if native else 'float32'
