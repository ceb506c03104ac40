"""Names, shapes and meaning of enhancing-transformers' ViT-VQGAN weights.

The layout is read off the public PyTorch code github.com/thuanz123/
enhancing-transformers, the same at the releases of its weights (August and
September 2022). Where its model is not ours, the weights are rewritten so that
our model computes the same function, without a setting of its own:

- It takes pixels in [0, 1], ours centres them: W x + b is
  (W / 2) (2 x - 1) + (b + W 1 / 2), at the patch embedding.
- Its LayerNorms add 1e-5 to the variance, ours less. All that is written to
  the residual stream is scaled by the square root of the ratio: every norm
  then sees its own epsilon, and none of them lets the scale through.
- Its sine and cosine positions give the column first, ours the row; and they
  are scaled as above. They become a table of 'learned' positions.

What the file cannot say is taken as in the public configs: heads of width 64,
one code an image patch (no residual quantiser), l2-normalised lookup.
"""

from collections.abc import Callable, Iterator, Mapping
import math
import re

import numpy as np
import tensorflow as tf

from vim_tf.config import TransformerConfig, UserError, ViTVQGANConfig
from vim_tf.vit_vqgan import model as model_lib

_HEAD_WIDTH = 64
_NORM_EPSILON = 1e-5

_OWN = ('encoder.', 'decoder.', 'pre_quant.', 'post_quant.', 'quantizer.')
_CODEBOOK = 'quantizer.embedding.weight'
_PATCHES = 'encoder.to_patch_embedding.0'
_PIXELS = 'decoder.to_pixel.1'
_POSITIONS = {
  'encoder': 'encoder.en_pos_embedding',
  'decoder': 'decoder.de_pos_embedding',
}

Shapes = Mapping[str, tuple[int, ...]]


def read_config(shapes: Shapes) -> ViTVQGANConfig:
  """The sizes of the model whose weights have these shapes.

  Args:
    shapes: Shape of each tensor in PyTorch's layout, by name.

  Raises:
    UserError: If these are not the weights of such a model.
  """

  def shape(name: str, axes: int) -> tuple[int, ...]:
    if name not in shapes:
      raise UserError(
        f'It has no tensor {name}, as every ViT-VQGAN of '
        'enhancing-transformers does.'
      )
    if len(shapes[name]) != axes:
      raise UserError(f'Its tensor {name} has {len(shapes[name])} axes.')
    return shapes[name]

  def sizes(side: str) -> TransformerConfig:
    found = {
      match[1]
      for name in shapes
      if (match := re.match(rf'{side}\.transformer\.layers\.(\d+)\.', name))
    }
    first = f'{side}.transformer.layers.0'
    mlp_width, width = shape(f'{first}.1.fn.net.0.weight', 2)
    inner, _ = shape(f'{first}.0.fn.to_qkv.weight', 2)
    heads, rest = divmod(inner, 3 * _HEAD_WIDTH)
    if rest:
      raise UserError(
        f'Its {first}.0.fn.to_qkv.weight has {inner} rows, not a multiple of '
        f'{3 * _HEAD_WIDTH}: heads are {_HEAD_WIDTH} wide.'
      )
    return TransformerConfig(
      num_blocks=len(found),
      num_heads=heads,
      width=width,
      mlp_width=mlp_width,
      head_width=_HEAD_WIDTH,
      activation='tanh',
      qkv_bias=False,
    )

  codebook_size, code_dim = shape(_CODEBOOK, 2)
  _, num_codes, _ = shape(_POSITIONS['encoder'], 3)
  patch_size = shape(f'{_PATCHES}.weight', 4)[2]
  grid_size = math.isqrt(num_codes)
  if grid_size**2 != num_codes:
    raise UserError(f'Its {num_codes} positions are not those of a square.')
  return ViTVQGANConfig(
    encoder=sizes('encoder'),
    decoder=sizes('decoder'),
    image_size=grid_size * patch_size,
    patch_size=patch_size,
    codebook_size=codebook_size,
    code_dim=code_dim,
    logit_laplace=False,
    output_mlp=False,
    positions='learned',
  )


def expected_shapes(config: ViTVQGANConfig) -> dict[str, tuple[int, ...]]:
  """Shape of each tensor of a model of these sizes, by name."""
  encoder, decoder = config.encoder, config.decoder
  patch = (3, config.patch_size, config.patch_size)
  return {
    **_dense(_PATCHES, (encoder.width, *patch)),
    **_side_shapes('encoder', encoder, config.num_codes),
    **_dense('pre_quant', (config.code_dim, encoder.width)),
    _CODEBOOK: (config.codebook_size, config.code_dim),
    **_dense('post_quant', (decoder.width, config.code_dim)),
    **_side_shapes('decoder', decoder, config.num_codes),
    **_dense(_PIXELS, (decoder.width, *patch), 3),
  }


def check(shapes: Shapes, config: ViTVQGANConfig) -> dict[str, int]:
  """Holds tensors to the sizes that `read_config` found.

  Args:
    shapes: Shape of each tensor, by name.
    config: The sizes.

  Returns:
    How many tensors are not the model's, by the first parts of their names,
    such as 'loss.discriminator'.

  Raises:
    UserError: If a tensor of the model is missing, has another shape, or has
      no place in it.
  """
  expected = expected_shapes(config)
  for name, shape in expected.items():
    if name in shapes and shapes[name] != shape:
      raise UserError(
        f'Its tensor {name} has shape {list(shapes[name])}, but the sizes of '
        f'the others make it {list(shape)}.'
      )
  _refuse('It lacks', [name for name in expected if name not in shapes])
  others = [name for name in shapes if name not in expected]
  _refuse(
    'The model has no place for',
    [name for name in others if name.startswith(_OWN)],
  )
  dropped = {}
  for name in others:
    group = '.'.join(name.split('.')[:2])
    dropped[group] = dropped.get(group, 0) + 1
  return dropped


def assign(model: model_lib.ViTVQGAN, read: Callable[[str], np.ndarray]):
  """Gives every variable of our model its weights.

  Args:
    model: Built from what `read_config` gave.
    read: From the name of a tensor to its numbers, of the expected shape.

  Raises:
    UserError: If a weight is infinite or not a number.
  """

  def numbers(name: str) -> np.ndarray:
    found = np.asarray(read(name), np.float64)
    if not np.all(np.isfinite(found)):
      raise UserError(f'Its tensor {name} holds numbers that are not finite.')
    return found

  left = {variable.ref() for variable in model.variables}
  for variable, value in _weights(model, numbers):
    variable.assign(value.astype(np.float32))
    left.remove(variable.ref())
  if left:
    raise AssertionError(f'{[ref.deref().name for ref in left]} got no weights')


def _refuse(what: str, names: list[str]):
  if names:
    more = f' and {len(names) - 1} more' if len(names) > 1 else ''
    raise UserError(f'{what} the tensor {names[0]}{more}.')


def _dense(
  name: str, weight: tuple[int, ...], bias: int | None = None
) -> dict[str, tuple[int, ...]]:
  """A linear layer or convolution, and the bias that it has."""
  return {f'{name}.weight': weight, f'{name}.bias': (bias or weight[0],)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
  return _dense(name, (width,))


def _side_shapes(
  side: str, config: TransformerConfig, num_codes: int
) -> dict[str, tuple[int, ...]]:
  """Positions and Transformer of one side, 'encoder' or 'decoder'."""
  width, inner = config.width, config.num_heads * config.attention_head_width
  shapes = {_POSITIONS[side]: (1, num_codes, width)}
  for i in range(config.num_blocks):
    block = f'{side}.transformer.layers.{i}'
    shapes.update(
      {
        **_norm(f'{block}.0.norm', width),
        f'{block}.0.fn.to_qkv.weight': (3 * inner, width),
        **_dense(f'{block}.0.fn.to_out', (width, inner)),
        **_norm(f'{block}.1.norm', width),
        **_dense(f'{block}.1.fn.net.0', (config.mlp_width, width)),
        **_dense(f'{block}.1.fn.net.2', (width, config.mlp_width)),
      }
    )
  return {**shapes, **_norm(f'{side}.transformer.norm', width)}


_Numbers = Callable[[str], np.ndarray]
_Weights = Iterator[tuple[tf.Variable, np.ndarray]]


def _weights(model: model_lib.ViTVQGAN, numbers: _Numbers) -> _Weights:
  """Pairs of our variables and the values that they get."""
  encoder, decoder = model.encoder, model.decoder
  ours = encoder.trunk.transformer.norm.epsilon
  scale = math.sqrt(ours / _NORM_EPSILON)

  kernel = numbers(f'{_PATCHES}.weight')  # [width, channel, row, column]
  kernel = kernel.transpose(2, 3, 1, 0).reshape(-1, kernel.shape[0])
  bias = numbers(f'{_PATCHES}.bias') + 0.5 * kernel.sum(axis=0)
  yield encoder.embed.kernel, 0.5 * scale * kernel
  yield encoder.embed.bias, scale * bias
  yield from _trunk('encoder', encoder.trunk, numbers, scale)
  yield from _linear('pre_quant', model.to_code, numbers)

  yield model.quantizer.codebook, numbers(_CODEBOOK)

  yield from _linear('post_quant', model.from_code, numbers, scale)
  yield from _trunk('decoder', decoder.trunk, numbers, scale)
  kernel = numbers(f'{_PIXELS}.weight')  # [width, channel, row, column]
  kernel = kernel.transpose(0, 2, 3, 1).reshape(kernel.shape[0], -1)
  yield decoder.to_pixels.kernel, kernel
  bias = np.tile(numbers(f'{_PIXELS}.bias'), kernel.shape[1] // 3)
  yield decoder.to_pixels.bias, bias


def _trunk(side: str, trunk, numbers: _Numbers, scale: float) -> _Weights:
  """Positions and blocks; `scale` is that of the residual stream."""
  yield trunk.positions.table, scale * numbers(_POSITIONS[side])[0]
  for i, block in enumerate(trunk.transformer.blocks):
    name = f'{side}.transformer.layers.{i}'
    yield from _layer_norm(f'{name}.0.norm', block.attention_norm, numbers)
    # Rows are queries, keys and values, each by head: our order.
    qkv = numbers(f'{name}.0.fn.to_qkv.weight')
    yield block.attention.qkv.kernel, qkv.T
    yield from _linear(
      f'{name}.0.fn.to_out', block.attention.out, numbers, scale
    )
    yield from _layer_norm(f'{name}.1.norm', block.mlp_norm, numbers)
    yield from _linear(f'{name}.1.fn.net.0', block.mlp.hidden, numbers)
    yield from _linear(f'{name}.1.fn.net.2', block.mlp.out, numbers, scale)
  norm = trunk.transformer.norm
  yield from _layer_norm(f'{side}.transformer.norm', norm, numbers)


def _linear(
  name: str, layer, numbers: _Numbers, scale: float = 1.0
) -> _Weights:
  yield layer.kernel, scale * numbers(f'{name}.weight').T
  yield layer.bias, scale * numbers(f'{name}.bias')


def _layer_norm(name: str, layer, numbers: _Numbers) -> _Weights:
  yield layer.gamma, numbers(f'{name}.weight')
  yield layer.beta, numbers(f'{name}.bias')
