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

import collections
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


def assign(
  model: model_lib.ViTVQGAN, shapes: Shapes, read: Callable[[str], np.ndarray]
) -> dict[str, int]:
  """Gives every variable of our model its weights.

  Args:
    model: Built from what `read_config` gave.
    shapes: Shape of each tensor, by name.
    read: From the name of a tensor to its numbers, of that shape.

  Returns:
    How many tensors are not the model's, by the first parts of their names,
    such as 'loss.discriminator'.

  Raises:
    UserError: If a tensor of the model is missing or has another shape, one
      has no place in it, or a weight is infinite or not a number.
  """
  used, done = [], 0

  def numbers(name: str) -> np.ndarray:
    if name not in shapes:
      raise UserError(f'It lacks the tensor {name}.')
    used.append(name)
    found = np.asarray(read(name), np.float64)
    if not np.all(np.isfinite(found)):
      raise UserError(f'Its tensor {name} holds numbers that are not finite.')
    return found

  left = {variable.ref() for variable in model.variables}
  try:
    for variable, value in _weights(model, numbers):
      variable.assign(value.astype(np.float32))
      left.remove(variable.ref())
      done = len(used)
  except ValueError as error:
    if isinstance(error, UserError):
      raise
    odd = ', '.join(f'{name} {list(shapes[name])}' for name in used[done:])
    raise UserError(
      f'It has tensors of shapes that do not fit the others: {odd}.'
    ) from error
  if left:
    raise AssertionError(f'{[ref.deref().name for ref in left]} got no weights')
  others = [name for name in shapes if name not in used]
  odd = [name for name in others if name.startswith(_OWN)]
  if odd:
    raise UserError(f'The model has no place for {", ".join(odd[:3])}.')
  return dict(
    collections.Counter('.'.join(name.split('.')[:2]) for name in others)
  )


_Numbers = Callable[[str], np.ndarray]
_Weights = Iterator[tuple[tf.Variable, np.ndarray]]


def _weights(model: model_lib.ViTVQGAN, numbers: _Numbers) -> _Weights:
  """Pairs of our variables and the values that they get."""
  encoder, decoder = model.encoder, model.decoder
  ours = encoder.trunk.transformer.norm.epsilon
  scale = math.sqrt(ours / _NORM_EPSILON)

  kernel = numbers(f'{_PATCHES}.weight')  # [width, channel, row, column]
  kernel = kernel.transpose(2, 3, 1, 0).reshape(-1, kernel.shape[0])
  yield encoder.embed.kernel, 0.5 * scale * kernel
  bias = numbers(f'{_PATCHES}.bias').reshape(kernel.shape[1])
  bias = bias + 0.5 * kernel.sum(axis=0)
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
  table = numbers(_POSITIONS[side]).squeeze(0)
  yield trunk.positions.table, scale * table
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
