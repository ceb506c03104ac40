"""The least that models have to do, by formula: FLOPs and bytes.

A FLOP is a multiplication or an addition of a matrix product or a convolution:
`2 * rows * columns * depth`. Nothing else is counted (norms, softmax,
non-linearities, the discriminator's blur, the optimizer), nor what an
implementation does for its own convenience: causal attention counts for the
positions that a code may see, half of what a full product computes. A share of
the limit is thus never flattered. The bytes are those of weights, and of keys
and values when sampling, each read once.

A backward pass costs twice its forward pass: one product for the weights, one
for the inputs. Where only the inputs need a gradient, it costs as much.
"""

from collections.abc import Mapping
import dataclasses
import math

from vim_tf.config import (
  AdversarialConfig,
  ConfigError,
  Stage1Config,
  TransformerConfig,
  VIMConfig,
  ViTVQGANConfig,
)

MEMORY = 'memory'
"""The ceiling of bytes; those of FLOPs are called by the precision."""

_TRAINING = 3  # Forward, and backward for weights and for inputs.
_BYTES = {'float32': 4, 'bfloat16': 2}
_VGG16 = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
_MAX_CHANNELS = 512  # Of StyleGAN2's discriminator.


@dataclasses.dataclass(frozen=True)
class Work:
  """What something has to do at least.

  Attributes:
    flops: Floating-point operations.
    precision: In what they are done: 'float32' or 'bfloat16'.
    bytes: Bytes read from memory; 0 where products outweigh them by far.
  """

  flops: float
  precision: str = 'float32'
  bytes: float = 0.0

  def limit(self, rates: Mapping[str, float]) -> tuple[str, float]:
    """The ceiling that this meets first.

    Args:
      rates: FLOP/s of this precision, and bytes/s of 'memory'.

    Returns:
      Which one it is, and the seconds that the work takes at that rate.
    """
    seconds = {
      self.precision: self.flops / rates[self.precision],
      MEMORY: self.bytes / rates[MEMORY],
    }
    name = max(seconds, key=seconds.get)
    return name, seconds[name]


def block_weights(config: TransformerConfig) -> int:
  """Elements of the matrices of one block."""
  inner = config.num_heads * config.attention_head_width
  return config.width * (4 * inner + 2 * config.mlp_width)


def blocks(config: TransformerConfig, length: int, causal: bool) -> int:
  """FLOPs of a stack of blocks for one sequence."""
  inner = config.num_heads * config.attention_head_width
  pairs = length * (length + 1) // 2 if causal else length**2
  products = 2 * length * block_weights(config)
  return config.num_blocks * (products + 4 * pairs * inner)


def lookup(vectors: int, codebook_size: int, code_dim: int) -> int:
  """FLOPs of the search for the nearest codes."""
  return 2 * vectors * codebook_size * code_dim


def features(config: ViTVQGANConfig) -> int:
  """FLOPs from one image to the vectors whose nearest codes are looked up."""
  patch, width = 3 * config.patch_size**2, config.encoder.width
  weights = patch * width + width * config.code_dim
  return _stack(config, config.encoder) + 2 * config.num_codes * weights


def encode(config: ViTVQGANConfig) -> int:
  """FLOPs from one image to its codes."""
  return features(config) + lookup(
    config.num_codes, config.codebook_size, config.code_dim
  )


def decode(config: ViTVQGANConfig) -> int:
  """FLOPs from the codes of one image to its pixels."""
  channels = 6 if config.logit_laplace else 3
  patch, width = channels * config.patch_size**2, config.decoder.width
  weights = config.code_dim * width + patch * width
  return _stack(config, config.decoder) + 2 * config.num_codes * weights


def lpips(image_size: int) -> int:
  """FLOPs of the features of one image by VGG16, for LPIPS."""
  total, size, channels = 0, image_size, 3
  for depth, filters in _VGG16:
    for _ in range(depth):
      total += _convolution(3, channels, filters, size)
      channels = filters
    size //= 2
  return total


def discriminator(config: AdversarialConfig, image_size: int) -> int:
  """FLOPs of one logit of StyleGAN2's discriminator, blurs excluded.

  Raises:
    ConfigError: If it is another discriminator.
  """
  if config.discriminator != 'stylegan2':
    raise ConfigError(
      f'FLOPs are counted for the discriminator stylegan2, not for '
      f'{config.discriminator}.'
    )

  def channels(size):
    found = round(config.channel_multiplier * 32768 / size)
    return max(1, min(_MAX_CHANNELS, found))

  size = image_size
  total = _convolution(1, 3, channels(size), size)
  while size > 7:
    wide, half = channels(size), size // 2
    total += _convolution(3, wide, wide, size)
    total += _convolution(3, wide, channels(half), half)
    total += _convolution(1, wide, channels(half), half)
    size = half
  last = channels(size)
  total += _convolution(3, last + 1, last, size)
  return total + 2 * size**2 * last * last + 2 * last


def stage1_step(config: Stage1Config, kind: str) -> int:
  """FLOPs of a training step of the tokenizer, for one image.

  The tokenizer is trained (three times its forward pass; the lookup has no
  gradient). LPIPS sees both images, and its gradient goes to the inputs of one
  of them: 3 forward passes in all. The discriminator sees both: it is trained
  on them (2 * 3), and once its gradient goes to the input: 7. R1
  differentiates a gradient: another forward pass, its gradient to the input,
  and twice each of them for the weights (the minibatch statistics make even the
  first layers' outputs matter): 6.

  Args:
    config: The run's settings.
    kind: As `TokenizerStep.step_kind` gives it.
  """
  size, terms = config.model.image_size, kind.split('+')
  total = _TRAINING * (features(config.model) + decode(config.model))
  total += encode(config.model) - features(config.model)
  if 'perceptual' in terms:
    total += 3 * lpips(size)
  if 'adversarial' in terms:
    total += 7 * discriminator(config.adversarial, size)
  if 'r1' in terms:
    total += 6 * discriminator(config.adversarial, size)
  return total


def vim(config: VIMConfig) -> int:
  """FLOPs of the logits of all codes of one image."""
  width, length = config.transformer.width, config.num_codes
  head = 2 * length * width * config.codebook_size
  return blocks(config.transformer, length, causal=True) + head


def stage2_step(config: VIMConfig) -> int:
  """FLOPs of a training step of the VIM, for one image."""
  return _TRAINING * vim(config)


def sampling(config: VIMConfig, rows: int, precision: str) -> Work:
  """Drawing all codes of some sequences, with cached keys and values.

  Each position reads all weights once for the whole batch, and the keys and
  values of each sequence's positions so far.

  Args:
    config: Sizes of the VIM.
    rows: Sequences; with guidance two an image.
    precision: In what the weights and the cache are held.
  """
  stack = config.transformer
  inner = stack.num_heads * stack.attention_head_width
  weights = stack.num_blocks * block_weights(stack)
  weights += stack.width * config.codebook_size
  seen = config.num_codes * (config.num_codes + 1) // 2
  cached = rows * seen * 2 * stack.num_blocks * inner
  elements = config.num_codes * weights + cached
  return Work(rows * vim(config), precision, elements * _BYTES[precision])


def _stack(config: ViTVQGANConfig, transformer: TransformerConfig) -> int:
  """Blocks and output MLP of one direction."""
  total = blocks(transformer, config.num_codes, causal=False)
  if config.output_mlp:
    total += 4 * config.num_codes * transformer.width * transformer.mlp_width
  return total


def _convolution(kernel: int, inputs: int, outputs: int, size: int) -> int:
  """FLOPs of a convolution whose output has `size` pixels a side."""
  return 2 * math.prod([kernel, kernel, inputs, outputs, size, size])
