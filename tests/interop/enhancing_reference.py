"""ViT-VQGAN of enhancing-transformers in NumPy: weights, codes and images.

Written from the description of that model, in PyTorch's layout and float64,
with nothing of ours: its own epsilon, pixels in [0, 1], positions with the
column first.
"""

import collections
import dataclasses

import numpy as np

from tests.interop import torch_writer

_HEAD_WIDTH = 64  # Whatever the width.

Weights = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Sizes of a model; `image_size` and `patch_size` in pixels.

  `scale` is that of the residual streams: at 0.003 their variance is near
  1e-5, where the epsilon of the norms matters.
  """

  image_size: int = 16
  patch_size: int = 4
  codebook_size: int = 32
  code_dim: int = 8
  encoder: tuple[int, int, int, int] = (2, 1, 16, 24)
  """Blocks, heads, width, hidden width of the MLPs."""
  decoder: tuple[int, int, int, int] = (3, 2, 20, 28)
  scale: float = 1.0

  @property
  def num_codes(self) -> int:
    return (self.image_size // self.patch_size) ** 2


def random_weights(sizes: Sizes, seed: int = 0) -> Weights:
  """A state dict with the tensors of the model and of its losses."""
  rng = np.random.default_rng(seed)
  weights = {}

  def linear(name, shape, fan_in, bias=None, scale=1.0):
    values = rng.normal(0, scale * fan_in**-0.5, shape)
    weights[f'{name}.weight'] = values.astype(np.float32)
    if bias != 0:
      values = rng.normal(0, 0.3 * scale, [bias or shape[0]])
      weights[f'{name}.bias'] = values.astype(np.float32)

  def norm(name, width):
    weights[f'{name}.weight'] = rng.normal(1, 0.2, [width]).astype(np.float32)
    weights[f'{name}.bias'] = rng.normal(0, 0.2, [width]).astype(np.float32)

  def side(name, blocks, heads, width, hidden):
    inner = heads * _HEAD_WIDTH
    table = sizes.scale * sincos(sizes.num_codes, width)
    weights[f'{name}.{name[:2]}_pos_embedding'] = table[None].astype(np.float32)
    for i in range(blocks):
      layer = f'{name}.transformer.layers.{i}'
      norm(f'{layer}.0.norm', width)
      linear(f'{layer}.0.fn.to_qkv', [3 * inner, width], width, bias=0)
      linear(f'{layer}.0.fn.to_out', [width, inner], inner, scale=sizes.scale)
      norm(f'{layer}.1.norm', width)
      linear(f'{layer}.1.fn.net.0', [hidden, width], width)
      linear(f'{layer}.1.fn.net.2', [width, hidden], hidden, scale=sizes.scale)
    norm(f'{name}.transformer.norm', width)

  patch, dim = sizes.patch_size, sizes.code_dim
  linear(
    'encoder.to_patch_embedding.0',
    [sizes.encoder[2], 3, patch, patch],
    0.5 * patch,  # So that patches differ by more than their positions.
    scale=sizes.scale,
  )
  side('encoder', *sizes.encoder)
  linear('pre_quant', [dim, sizes.encoder[2]], sizes.encoder[2])
  weights['quantizer.embedding.weight'] = rng.normal(
    0, 1, [sizes.codebook_size, dim]
  ).astype(np.float32)
  linear('post_quant', [sizes.decoder[2], dim], 1, scale=sizes.scale)
  side('decoder', *sizes.decoder)
  linear(
    'decoder.to_pixel.1',
    [sizes.decoder[2], 3, patch, patch],
    10 * sizes.decoder[2],  # Most pixels in [0, 1]: what is cut is not seen.
    bias=3,
  )
  weights['decoder.to_pixel.1.bias'] += np.float32(0.5)
  weights['loss.perceptual_loss.lin0.model.1.weight'] = np.ones([1, 4, 1, 1])
  weights['loss.discriminator.blocks.0.conv.weight'] = np.ones([2, 3, 1, 1])
  weights['loss.discriminator.blocks.0.conv.bias'] = np.ones([2])
  return weights


def write_checkpoint(path, weights: Weights, **contents):
  """Writes a state dict as PyTorch Lightning does, with all that surrounds it.

  Args:
    path: The file.
    weights: The tensors.
    **contents: What else the checkpoint holds, or holds instead.
  """
  stopper = torch_writer.Global(
    'pytorch_lightning.callbacks.model_checkpoint', 'ModelCheckpoint'
  )
  state = collections.OrderedDict(weights)
  state._metadata = collections.OrderedDict({'': {'version': 1}})
  path_class = torch_writer.Global('pathlib', 'PosixPath')
  adam = {
    'exp_avg': np.zeros([2, 3], np.float32),
    'step': 7,
  }
  torch_writer.write(
    path,
    {
      'epoch': 3,
      'global_step': 1234,
      'pytorch-lightning_version': '1.5.10',
      'state_dict': state,
      'callbacks': {
        stopper: {
          'best_model_score': np.array(0.5, np.float32),
          'dirpath': torch_writer.Object(path_class, ('runs',)),
        }
      },
      'optimizer_states': [
        {'state': {0: adam}, 'param_groups': [{'lr': 1e-4}]}
      ],
      'lr_schedulers': [],
      'hyper_parameters': torch_writer.Object(
        torch_writer.Global('omegaconf.dictconfig', 'DictConfig'),
        (),
        {'_content': {'a': 1}},
      ),
      **contents,
    },
    folder='imagenet_vitvq_base',
  )


def encode(weights: Weights, images: np.ndarray) -> np.ndarray:
  """Images `[batch, size, size, 3]` in [0, 1] to codes `[batch, codes]`."""
  w = _Lookup(weights)
  kernel = w('encoder.to_patch_embedding.0.weight')  # [width, 3, patch, patch]
  patch = kernel.shape[2]
  batch, size = images.shape[:2]
  grid = size // patch
  x = np.empty([batch, grid * grid, kernel.shape[0]])
  for row in range(grid):
    for column in range(grid):
      window = images[
        :,
        row * patch : (row + 1) * patch,
        column * patch : (column + 1) * patch,
      ].astype(np.float64)
      x[:, row * grid + column] = np.einsum('bhwc,dchw->bd', window, kernel)
  x += w('encoder.to_patch_embedding.0.bias')
  x = _transformer(w, 'encoder', x + w('encoder.en_pos_embedding'))
  x = _unit(_linear(w, 'pre_quant', x))
  codebook = _unit(w('quantizer.embedding.weight'))
  distances = np.sum((x[:, :, None] - codebook) ** 2, axis=-1)
  return np.argmin(distances, axis=-1)


def decode(weights: Weights, codes: np.ndarray) -> np.ndarray:
  """Codes `[batch, codes]` to images `[batch, size, size, 3]`, not clipped."""
  w = _Lookup(weights)
  x = _linear(w, 'post_quant', _unit(w('quantizer.embedding.weight'))[codes])
  x = _transformer(w, 'decoder', x + w('decoder.de_pos_embedding'))
  kernel = w('decoder.to_pixel.1.weight')  # [width, 3, patch, patch]
  patch = kernel.shape[2]
  grid = round(codes.shape[1] ** 0.5)
  images = np.empty([len(codes), grid * patch, grid * patch, 3])
  for row in range(grid):
    for column in range(grid):
      images[
        :,
        row * patch : (row + 1) * patch,
        column * patch : (column + 1) * patch,
      ] = np.einsum('bd,dchw->bhwc', x[:, row * grid + column], kernel)
  return images + w('decoder.to_pixel.1.bias')


def sincos(num_codes: int, width: int) -> np.ndarray:
  """Its fixed positions `[num_codes, width]`: half the column, half the row."""
  grid = round(num_codes**0.5)
  table = np.empty([num_codes, width])
  quarter = width // 4
  for place in range(num_codes):
    row, column = divmod(place, grid)
    for part, coordinate in enumerate((column, row)):
      for i in range(quarter):
        angle = coordinate / 10_000 ** (i / quarter)
        table[place, 2 * part * quarter + i] = np.sin(angle)
        table[place, (2 * part + 1) * quarter + i] = np.cos(angle)
  return table


class _Lookup:
  """Weights by name in float64."""

  def __init__(self, weights: Weights):
    self._weights = weights

  def __call__(self, name: str) -> np.ndarray:
    return self._weights[name].astype(np.float64)

  def __contains__(self, name: str) -> bool:
    return name in self._weights


def _transformer(w: _Lookup, side: str, x: np.ndarray) -> np.ndarray:
  i = 0
  while (layer := f'{side}.transformer.layers.{i}') + '.0.norm.bias' in w:
    x = x + _attention(w, f'{layer}.0.fn', _norm(w, f'{layer}.0.norm', x))
    y = _linear(w, f'{layer}.1.fn.net.0', _norm(w, f'{layer}.1.norm', x))
    x = x + _linear(w, f'{layer}.1.fn.net.2', np.tanh(y))
    i += 1
  return _norm(w, f'{side}.transformer.norm', x)


def _attention(w: _Lookup, name: str, x: np.ndarray) -> np.ndarray:
  queries, keys, values = np.split(x @ w(f'{name}.to_qkv.weight').T, 3, -1)
  outputs = []
  for start in range(0, queries.shape[-1], _HEAD_WIDTH):
    head = slice(start, start + _HEAD_WIDTH)
    scores = np.einsum('bqd,bkd->bqk', queries[..., head], keys[..., head])
    weights = np.exp(scores / _HEAD_WIDTH**0.5)
    weights /= np.sum(weights, axis=-1, keepdims=True)
    outputs.append(weights @ values[..., head])
  return _linear(w, f'{name}.to_out', np.concatenate(outputs, axis=-1))


def _norm(w: _Lookup, name: str, x: np.ndarray) -> np.ndarray:
  centred = x - np.mean(x, axis=-1, keepdims=True)
  variance = np.mean(centred**2, axis=-1, keepdims=True)
  y = centred / np.sqrt(variance + 1e-5)
  return y * w(f'{name}.weight') + w(f'{name}.bias')


def _linear(w: _Lookup, name: str, x: np.ndarray) -> np.ndarray:
  return x @ w(f'{name}.weight').T + w(f'{name}.bias')


def _unit(x: np.ndarray) -> np.ndarray:
  return x / np.linalg.norm(x, axis=-1, keepdims=True)
