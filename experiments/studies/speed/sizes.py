"""How large everything is that the benchmark times."""

import dataclasses

from vim_tf import presets
from vim_tf.config import (
  ConfigError,
  Stage1Config,
  Stage2Config,
  TransformerConfig,
  VIMConfig,
  check_least,
)


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Sizes of all rows.

  Attributes:
    stage1: The tokenizer, its losses and discriminator.
    stage2: The VIM.
    batch: Images of a batch that is encoded or decoded.
    small_image: Height and width in pixels of the small stage-1 step.
    small_batch: Images of its batch.
    large_image: The same of the large one.
    large_batch: Images of its batch.
    stage2_batch: Images of the stage-2 step.
    few: Images of the smallest batch of sampling.
    some: Of a middle one.
    many: Of the largest.
    lookup_batch: Images whose codes are looked up at once.
    jpeg_files: JPEG files of the input pipeline.
    jpeg_height: Their height, in pixels.
    jpeg_width: Their width.
    input_batch: Images of the input pipeline's batches.
    matmul: Rows and columns of the matrices whose product is the ceiling.
    memory: Bytes that are read to measure the memory; several times the cache.
  """

  stage1: Stage1Config
  stage2: Stage2Config
  batch: int = 4
  small_image: int = 64
  small_batch: int = 8
  large_image: int = 256
  large_batch: int = 1
  stage2_batch: int = 4
  few: int = 1
  some: int = 4
  many: int = 16
  lookup_batch: int = 4
  jpeg_files: int = 64
  jpeg_height: int = 375
  jpeg_width: int = 500
  input_batch: int = 16
  matmul: int = 2048
  memory: int = 2**28

  def __post_init__(self):
    numbers = [f.name for f in dataclasses.fields(self) if f.type is int]
    check_least(self, 1, *numbers)

  @property
  def joined_stage1(self) -> Stage1Config:
    """The tokenizer with the patch size that gives VIM's grid of codes."""
    grid = self.stage2.model.grid_size
    size = self.stage1.model.image_size
    if size % grid:
      raise ConfigError(
        f'stage1.model.image_size {size} does not divide into '
        f'stage2.model.grid_size {grid} rows of codes.'
      )
    model = dataclasses.replace(
      self.stage1.model,
      patch_size=size // grid,
      codebook_size=self.stage2.model.codebook_size,
    )
    return dataclasses.replace(self.stage1, model=model)


def _paper() -> Sizes:
  """The tokenizer of the paper's small-small; a VIM that a CPU can train."""
  stage2 = presets.stage2('vim_base')
  transformer = TransformerConfig(12, 12, 768, 3072, dropout=0.1)
  return Sizes(
    presets.stage1('vit_vqgan_ss'),
    dataclasses.replace(
      stage2, model=VIMConfig(transformer, 16, 8192, num_classes=1000)
    ),
  )


def _tiny() -> Sizes:
  """Runs in seconds; for tests."""
  stage1 = presets.stage1('tiny')
  return Sizes(
    dataclasses.replace(
      stage1,
      losses=dataclasses.replace(
        stage1.losses, perceptual=0.1, adversarial=0.1
      ),
    ),
    presets.stage2('tiny'),
    batch=2,
    small_image=16,
    small_batch=2,
    large_image=32,
    stage2_batch=2,
    some=2,
    many=3,
    lookup_batch=2,
    jpeg_files=4,
    jpeg_height=24,
    jpeg_width=32,
    input_batch=2,
    matmul=64,
    memory=2**16,
  )


SIZES = {'paper': _paper, 'tiny': _tiny}
