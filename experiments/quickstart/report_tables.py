"""Puts the figures of a run into tables, and the main ones at the top.

The figures that the quickstart measures are explained; whatever else is in the
nested dict is printed under its own name, and what is missing is left out.
"""

from collections.abc import Callable, Mapping
import dataclasses
import math
import numbers
import re


def complete(figures: Mapping) -> dict:
  """The figures by part, with the comparisons that follow from others.

  Args:
    figures: Nested, as `Report.figures`.

  Returns:
    A copy in which every part is a dict. 'psnr_gain' and 'share_of_order1' are
    added where both sides are known.
  """
  parts = {
    key: dict(value) for key, value in figures.items() if _is_part(value)
  }
  loose = {key: x for key, x in figures.items() if not _is_part(x)}
  if loose:
    parts['other'] = {**parts.get('other', {}), **loose}
  tokenizer, vim = parts.get('tokenizer', {}), parts.get('vim', {})
  psnrs = tokenizer.get('psnr'), tokenizer.get('kmeans_psnr')
  if all(map(is_number, psnrs)):
    tokenizer.setdefault('psnr_gain', psnrs[0] - psnrs[1])
  bits = vim.get('bits_per_code'), vim.get('order1_bits_per_code')
  if all(map(is_number, bits)) and bits[1]:
    vim.setdefault('share_of_order1', bits[0] / bits[1])
  return parts


@dataclasses.dataclass(frozen=True)
class Card:
  """A figure to put at the top, and the half sentence after it."""

  value: str
  text: str


def cards(parts: Mapping[str, Mapping]) -> list[Card]:
  """The three figures that say most."""
  tokenizer, vim = parts.get('tokenizer', {}), parts.get('vim', {})
  result = []
  if is_number(gain := tokenizer.get('psnr_gain')):
    result.append(
      Card(
        f'{gain:+.2f} dB'.replace('-', '−'),
        'PSNR of the tokenizer on held-out images, against a k-means codebook '
        'of raw patches',
      )
    )
  if is_number(usage := tokenizer.get('usage')):
    result.append(
      Card(f'{100 * usage:.1f} %', 'of the codebook is used by held-out images')
    )
  if is_number(share := vim.get('share_of_order1')):
    result.append(
      Card(
        f'{100 * share:.1f} %',
        'of the bits that an order-1 model needs for a held-out code are '
        'enough for VIM',
      )
    )
  return result


@dataclasses.dataclass(frozen=True)
class Row:
  """One figure.

  Attributes:
    name: What it is.
    value: The figure with its unit.
    note: What it means, maybe ''.
    share: Length of a bar in [0, 1], or None for no bar.
  """

  name: str
  value: str
  note: str = ''
  share: float | None = None


@dataclasses.dataclass(frozen=True)
class Table:
  """The figures of one part."""

  title: str
  rows: list[Row]


def tables(parts: Mapping[str, Mapping]) -> list[Table]:
  """Every figure, the known ones first and explained."""
  explained = {
    'tokenizer': ('Tokenizer (ViT-VQGAN)', _tokenizer(parts)),
    'vim': ('VIM', _vim(parts)),
    'probe': ('Linear probe', _probe()),
    'seconds': ('Time', _seconds(parts)),
    'machine': ('Machine', _machine()),
  }
  result = []
  for part in [*explained, *(key for key in parts if key not in explained)]:
    title, explain = explained.get(part, (_capital(readable(part)), {}))
    figures = parts.get(part, {})
    keys = [key for key in explain if key in figures]
    keys += [key for key in figures if key not in explain]
    rows = [_row(key, figures[key], explain.get(key)) for key in keys]
    if rows:
      result.append(Table(title, rows))
  return result


def sampling(settings: Mapping) -> str:
  """How samples were drawn, without the settings that change nothing."""
  nothing = {'top_k': 0, 'top_p': 1, 'guidance_scale': 1}
  return plain(
    {
      key: value
      for key, value in settings.items()
      if value is not None and not (key in nothing and value == nothing[key])
    }
  )


def is_number(value) -> bool:
  """Whether it is a finite real number, NumPy's included, and no bool."""
  return (
    isinstance(value, numbers.Real)
    and not isinstance(value, bool)
    and math.isfinite(value)
  )


def plain(value) -> str:
  """Any value as text, numbers with at most four digits after rounding."""
  if isinstance(value, Mapping):
    return ', '.join(f'{readable(k)} {plain(v)}' for k, v in value.items())
  if isinstance(value, list | tuple):
    return ', '.join(plain(v) for v in value)
  if value is None:
    return '–'
  if not is_number(value):
    return str(value)
  if isinstance(value, numbers.Integral):
    return f'{int(value):,}'
  return f'{float(value):.4g}'


def readable(key) -> str:
  """A key of a dict as words."""
  return str(key).replace('_', ' ')


def duration(seconds: float) -> str:
  """Seconds as hours, minutes and seconds."""
  if seconds < 60:
    return f'{seconds:.1f} s'
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours} h {minutes} min' if hours else f'{minutes} min {rest} s'


def percent(share: float) -> str:
  """A share in percent."""
  return f'{100 * share:.1f} %'


def _is_part(value) -> bool:
  return isinstance(value, Mapping)


@dataclasses.dataclass(frozen=True)
class _Known:
  """How a figure is shown: its name, format, meaning and bar."""

  name: str
  show: Callable[[float], str] = plain
  note: str = ''
  share: Callable[[float], float] | None = None


def _row(key, value, known: _Known | None) -> Row:
  if known is None:
    return Row(_capital(readable(key)), plain(value))
  if not is_number(value):
    is_sampling = key == 'sampling' and isinstance(value, Mapping)
    text = sampling(value) if is_sampling else plain(value)
    return Row(known.name, text, known.note)
  share = known.share(value) if known.share else None
  if share is not None:
    share = min(max(float(share), 0.0), 1.0)
  return Row(known.name, known.show(value), known.note, share)


def _tokenizer(parts) -> dict[str, _Known]:
  figures = parts.get('tokenizer', {})
  size = figures.get('codebook_size')
  used = f'of all {size:,} codes' if is_number(size) else 'of all codes'
  return {
    'psnr': _Known(
      'PSNR', _decibel, 'Mean over the held-out images; higher is better.'
    ),
    'kmeans_psnr': _Known(
      'PSNR of k-means', _decibel, 'What clustering alone reaches.'
    ),
    'psnr_gain': _Known(
      'Difference',
      lambda x: f'{x:+.2f} dB'.replace('-', '−'),
      'The tokenizer against k-means; 3 dB are half the squared error.',
    ),
    'usage': _Known(
      'Codebook usage',
      percent,
      f'Share {used} that the held-out images use.',
      lambda x: x,
    ),
    **{
      key: _Known(
        'Usage in a window',
        percent,
        f'The share that {key.split("_")[2]} images use, as the paper counts; '
        'all held-out images if there are fewer.',
      )
      for key in figures
      if re.fullmatch(r'usage_per_[0-9]+_images', str(key))
    },
    'images_per_window': _Known('Images in a window'),
    'perplexity': _Known(
      'Perplexity',
      lambda x: f'{x:,.0f}',
      'As many codes, used equally, would carry as much information.',
    ),
    'ssim': _Known(
      'SSIM', lambda x: f'{x:.3f}', 'Structural similarity; 1 is equal.'
    ),
    'psnr_of_mean_l2': _Known(
      'PSNR of the mean error',
      _decibel,
      'The other definition: of the mean squared error of all images.',
    ),
    'l1': _Known(
      'L1', lambda x: f'{x:.4f}', 'Mean absolute error of values in [0, 1].'
    ),
    'l2': _Known(
      'L2', lambda x: f'{x:.4f}', 'Mean squared error of values in [0, 1].'
    ),
    'codebook_size': _Known('Codebook', lambda x: f'{x:,} codes'),
    'train_images': _Known('Training images'),
    'held_out_images': _Known('Held-out images'),
    'parameters': _Known('Parameters'),
    'steps': _Known('Training steps'),
  }


def _vim(parts) -> dict[str, _Known]:
  figures = parts.get('vim', {})
  keys = ('bits_per_code', 'order0_bits_per_code', 'order1_bits_per_code')
  most = max((figures[k] for k in keys if is_number(figures.get(k))), default=0)

  def share(value):
    return value / most if most > 0 else 0.0

  return {
    'bits_per_code': _Known(
      'Bits per code',
      _bits,
      'Negative log-likelihood of held-out codes; lower is better.',
      share,
    ),
    'order1_bits_per_code': _Known(
      'Bits of order-1',
      _bits,
      'A count of which code follows which, on the same training codes.',
      share,
    ),
    'order0_bits_per_code': _Known(
      'Bits of order-0', _bits, 'A count of how often each code occurs.', share
    ),
    'share_of_order1': _Known(
      'Ratio to order-1', percent, 'VIM’s bits over those of order-1.'
    ),
    'recognised_selected': _Known(
      'Best samples recognised',
      percent,
      'By a classifier that neither VIM nor the choice of them met.',
      lambda x: x,
    ),
    'recognised_samples': _Known(
      'First samples recognised', percent, 'Not selected.', lambda x: x
    ),
    'recognised_held_out': _Known(
      'Real images recognised', percent, 'Held-out ones.', lambda x: x
    ),
    'acceptance': _Known(
      'Acceptance', percent, 'Share of the candidates that is kept as best.'
    ),
    'parameters': _Known('Parameters'),
    'steps': _Known('Training steps'),
    'sampling': _Known('Sampling', note='How the samples were drawn.'),
  }


def _probe() -> dict[str, _Known]:
  shares = {
    'top1': ('VIM’s block', 'Chosen on a part of the training images.'),
    'untrained_vim': ('An untrained VIM', 'Its best block, chosen alike.'),
    'pixels': ('Raw pixels', ''),
    'code_vectors': ('Mean code vector', ''),
    'code_counts': ('Counts of the codes', ''),
    'largest_class': ('The largest class', 'Always to name it.'),
  }
  return {
    key: _Known(name, percent, note, lambda x: x)
    for key, (name, note) in shares.items()
  }


def _seconds(parts) -> dict[str, _Known]:
  total = parts.get('seconds', {}).get('total')

  def share(value):
    return value / total if is_number(total) and total > 0 else 0.0

  names = {
    'data': 'Data',
    'kmeans': 'k-means codebook',
    'tokenizer': 'Tokenizer',
    'vim': 'VIM',
    'baselines': 'Figures and baselines',
    'samples': 'Samples',
    'probe': 'Linear probe',
  }
  known = {
    key: _Known(name, duration, share=share) for key, name in names.items()
  }
  return {**known, 'total': _Known('Total', duration)}


def _machine() -> dict[str, _Known]:
  return {
    'cpu': _Known('CPU'),
    'cores': _Known('Cores'),
    'tensorflow': _Known('TensorFlow'),
    'precision': _Known('Precision'),
  }


def _decibel(value: float) -> str:
  return f'{value:.2f} dB'.replace('-', '−')


def _bits(value: float) -> str:
  return f'{value:.2f} bits'


def _capital(text: str) -> str:
  return text[:1].upper() + text[1:]
