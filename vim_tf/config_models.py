"""Sizes of the models of both stages."""

import dataclasses

from vim_tf.config_checks import check, check_choice, check_least

BACKBONES = ('vit', 'cnn')
POSITIONS = ('learned', 'sincos', 'factorized')
CNN_PATCH_SIZES = (1, 2, 4, 8, 16, 32)
CNN_CHANNELS = 128
"""Channels of the CNN backbone at full resolution and multiplier 1."""
ACTIVATIONS = ('gelu', 'tanh', 'relu')


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
  """Sizes of one stack of pre-norm Transformer blocks (paper Table 2).

  Attributes:
    num_blocks: Number of blocks.
    num_heads: Attention heads of a block.
    width: Model dimension.
    mlp_width: Hidden dimension of a block's MLP.
    dropout: Rate in [0, 1) on residual, activation and attention outputs.
    head_width: Width of one head; 0 means width / num_heads.
    activation: Non-linearity of the block MLPs.
    qkv_bias: Whether the query, key and value projections have a bias.
  """

  num_blocks: int
  num_heads: int
  width: int
  mlp_width: int
  dropout: float = 0.0
  head_width: int = 0
  activation: str = 'gelu'
  qkv_bias: bool = True

  def __post_init__(self):
    check_least(self, 1, 'num_blocks', 'num_heads', 'width', 'mlp_width')
    check_least(self, 0, 'head_width')
    check_choice('activation', self.activation, ACTIVATIONS)
    check(
      0.0 <= self.dropout < 1.0,
      f'dropout is {self.dropout}, but must be in [0, 1).',
    )
    check(
      self.head_width > 0 or self.width % self.num_heads == 0,
      f'width {self.width} does not divide into {self.num_heads} heads: '
      'change one of them or set head_width.',
    )

  @property
  def attention_head_width(self) -> int:
    return self.head_width or self.width // self.num_heads


@dataclasses.dataclass(frozen=True)
class ViTVQGANConfig:
  """The stage-1 model: an image to a grid of codes and back (paper 3).

  Attributes:
    encoder: Transformer of the encoder.
    decoder: Transformer of the decoder; its width may differ.
    image_size: Height and width of the images, in pixels.
    patch_size: Height and width of the patch behind one code, in pixels.
    codebook_size: Number of codes.
    code_dim: Width of the space in which codes are looked up (3.2).
    l2_normalize: Whether lookup compares l2-normalised vectors (3.2).
    logit_laplace: Whether the decoder gives the 6 channels of the
      logit-laplace distribution (3.3) instead of 3 plain ones.
    output_mlp: Whether a two-layer MLP with tanh follows each stack (3.1).
    positions: 'learned', 'factorized' (a row's plus a column's vector) or
      fixed 2-D 'sincos' positions; the paper does not say.
    backbone: 'vit', or the paper's baseline 'cnn'.
    cnn_multiplier: Channel multiplier of the 'cnn' backbone: 1 or 2 in the
      paper (Table 1), below 1 for small trials.
  """

  encoder: TransformerConfig
  decoder: TransformerConfig
  image_size: int = 256
  patch_size: int = 8
  codebook_size: int = 8192
  code_dim: int = 32
  l2_normalize: bool = True
  logit_laplace: bool = True
  output_mlp: bool = True
  positions: str = 'learned'
  backbone: str = 'vit'
  cnn_multiplier: float = 1.0

  def __post_init__(self):
    check_least(self, 1, 'image_size', 'patch_size', 'code_dim')
    check_least(self, 2, 'codebook_size')
    check_choice('positions', self.positions, POSITIONS)
    check_choice('backbone', self.backbone, BACKBONES)
    check(
      self.image_size % self.patch_size == 0,
      f'image_size {self.image_size} is not a multiple of patch_size '
      f'{self.patch_size}.',
    )
    check(
      self.backbone != 'cnn' or self.patch_size in CNN_PATCH_SIZES,
      f'patch_size is {self.patch_size}, but the cnn backbone halves its way '
      'down, at most five times: it must be one of '
      f'{", ".join(map(str, CNN_PATCH_SIZES))}.',
    )
    channels = CNN_CHANNELS * self.cnn_multiplier
    check(
      channels >= 1 and channels % 1 == 0,
      f'cnn_multiplier is {self.cnn_multiplier}, but must make a whole number '
      f'of channels out of {CNN_CHANNELS}.',
    )
    for name in ('encoder', 'decoder'):
      check(
        self.positions != 'sincos' or getattr(self, name).width % 4 == 0,
        f'{name}.width is {getattr(self, name).width}, but sincos positions '
        'need a multiple of 4.',
      )

  @property
  def grid_size(self) -> int:
    """Codes along one side of the image."""
    return self.image_size // self.patch_size

  @property
  def num_codes(self) -> int:
    """Codes of one image."""
    return self.grid_size**2


@dataclasses.dataclass(frozen=True)
class VIMConfig:
  """The stage-2 model: a decoder-only Transformer over codes (paper 4).

  Attributes:
    transformer: The stack of causal blocks.
    grid_size: Codes along one side; an image has grid_size**2 of them.
    codebook_size: Number of codes of the tokenizer.
    num_classes: Classes of the class-conditional model; 0: unconditional.
    positions: As in `ViTVQGANConfig`; the paper's are "learnable 2-D".
  """

  transformer: TransformerConfig
  grid_size: int = 32
  codebook_size: int = 8192
  num_classes: int = 0
  positions: str = 'factorized'

  def __post_init__(self):
    check_choice('positions', self.positions, POSITIONS)
    check_least(self, 1, 'grid_size')
    check_least(self, 2, 'codebook_size')
    check_least(self, 0, 'num_classes')

  @property
  def num_codes(self) -> int:
    return self.grid_size**2
