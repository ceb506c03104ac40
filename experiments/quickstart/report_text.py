"""Puts the figures of a run into words: the sentences of a report.

What is missing among the figures is left out.
"""

from collections.abc import Mapping
import dataclasses
import math
import numbers


@dataclasses.dataclass(frozen=True)
class Card:
  """A figure to put at the top, and the half sentence after it."""

  value: str
  text: str


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


def headline(budget: str, parts: Mapping[str, Mapping]) -> str:
  """One sentence on what was run."""
  images = parts.get('tokenizer', {}).get('train_images')
  seconds = parts.get('seconds', {}).get('total')
  cores = parts.get('machine', {}).get('cores')
  text = 'Both stages of the method, from random weights'
  if is_number(images):
    text += f' and {images:,} pictures'
  text += (
    ': ViT-VQGAN learned to write an image as codes and back, then VIM learned '
    'to write such codes by itself, class by class'
  )
  if is_number(seconds):
    text += f', in {duration(seconds)}'
  if is_number(cores):
    text += f' on a machine with {cores:,} CPU '
    text += 'core' if cores == 1 else 'cores'
  return f'{text} (the {budget} budget).'


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


def selection(vim: Mapping) -> str:
  """How the best samples were chosen, and what came of it."""
  text = 'A classifier chose them, as in the paper’s rejection sampling.'
  if is_number(rate := vim.get('acceptance')):
    text = (
      f'Of the candidates of a class, a classifier kept the {100 * rate:g} % '
      'that it was surest of, as in the paper’s rejection sampling.'
    )
  shares = [
    vim.get(f'recognised_{of}') for of in ('selected', 'samples', 'held_out')
  ]
  if all(map(is_number, shares)):
    best, first, real = map(percent, shares)
    text += (
      f' Another classifier, which had no part in this, recognises {best} of '
      f'them, {first} of the first ones below, and {real} of real held-out '
      'images.'
    )
  return text


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


def comparison(parts: Mapping[str, Mapping]) -> str:
  """The comparisons with the baselines in words."""
  tokenizer, vim = parts.get('tokenizer', {}), parts.get('vim', {})
  text = []
  if is_number(gain := tokenizer.get('psnr_gain')):
    side = 'above' if gain >= 0 else 'below'
    text.append(
      f'On held-out images the tokenizer is {abs(gain):.2f} dB {side} a '
      'k-means codebook of raw patches, which has as many codes for patches of '
      'the same size and learned from the same training images.'
    )
  if is_number(share := vim.get('share_of_order1')):
    text.append(
      f'VIM describes a held-out code in {100 * share:.0f} % of the bits that '
      'an order-1 model needs, which counts how often each code follows each '
      'other; order-0 counts single codes.'
    )
  probe = parts.get('probe', {})
  shares = probe.get('top1'), probe.get('pixels')
  if all(map(is_number, shares)):
    text.append(
      'One softmax layer on the features of one of VIM’s blocks, averaged over '
      f'the codes, tells the class of {percent(shares[0])} of the held-out '
      f'images; on their raw pixels, of {percent(shares[1])}.'
    )
  return ' '.join(text)


def _is_part(value) -> bool:
  return isinstance(value, Mapping)
