"""The figures of a run in tables: what each is called and what it means."""

from collections.abc import Mapping
import dataclasses


@dataclasses.dataclass(frozen=True)
class Known:
  """How a figure is shown.

  Attributes:
    name: What it is.
    form: How it is written, as `str.format` has it.
    note: What it means.
    full: What makes a full bar: a number, or another figure of the part; None:
      there is no bar.
  """

  name: str
  form: str = '{}'
  note: str = ''
  full: float | str | None = None


def _share(name: str, note: str = '') -> Known:
  return Known(name, '{:.1%}', note, 1.0)


_ORDER0 = 'order0_bits_per_code'
_DB, _BITS, _COUNT, _SECONDS = '{:.2f} dB', '{:.2f} bits', '{:,}', '{:,.1f} s'
_OF_TRAINING = {
  'parameters': Known('Parameters', _COUNT),
  'steps': Known('Training steps', _COUNT),
}
_PARTS = {
  'tokenizer': (
    'Tokenizer (ViT-VQGAN)',
    {
      'psnr': Known(
        'PSNR', _DB, 'Mean over the held-out images; higher is better.'
      ),
      'kmeans_psnr': Known(
        'PSNR of k-means', _DB, 'What clustering alone reaches.'
      ),
      'usage': _share(
        'Codebook usage', 'Share of all codes that the held-out images use.'
      ),
      'usage_per_256_images': _share(
        'Usage in a window',
        'The share that 256 images use, as the paper counts; all held-out '
        'images if there are fewer.',
      ),
      'images_per_window': Known('Images in a window', _COUNT),
      'perplexity': Known(
        'Perplexity',
        '{:,.0f}',
        'As many codes, used equally, would carry as much information.',
      ),
      'ssim': Known('SSIM', '{:.3f}', 'Structural similarity; 1 is equal.'),
      'psnr_of_mean_l2': Known(
        'PSNR of the mean error',
        _DB,
        'The other definition: of the mean squared error of all images.',
      ),
      'l1': Known('L1', '{:.4f}', 'Mean absolute error of values in [0, 1].'),
      'l2': Known('L2', '{:.4f}', 'Mean squared error of values in [0, 1].'),
      'codebook_size': Known('Codes', _COUNT),
      'train_images': Known('Training images', _COUNT),
      'held_out_images': Known('Held-out images', _COUNT),
      **_OF_TRAINING,
    },
  ),
  'vim': (
    'VIM',
    {
      'bits_per_code': Known(
        'Bits per code',
        _BITS,
        'Negative log-likelihood of held-out codes; lower is better.',
        _ORDER0,
      ),
      'order1_bits_per_code': Known(
        'Bits of order-1',
        _BITS,
        'A count of which code follows which, on the same training codes.',
        _ORDER0,
      ),
      _ORDER0: Known(
        'Bits of order-0',
        _BITS,
        'A count of how often each code occurs.',
        _ORDER0,
      ),
      'share_of_order1': Known(
        'Ratio to order-1', '{:.1%}', 'VIM’s bits over those of order-1.'
      ),
      'recognised_selected': _share(
        'Best samples recognised',
        'By a classifier that neither VIM nor the choice of them met.',
      ),
      'recognised_samples': _share('First samples recognised', 'Not selected.'),
      'recognised_held_out': _share('Real images recognised', 'Held-out ones.'),
      'acceptance': Known(
        'Acceptance', '{:.1%}', 'Share of the candidates that is kept as best.'
      ),
      'sampling': Known('Sampling', note='How the samples were drawn.'),
      **_OF_TRAINING,
    },
  ),
  'probe': (
    'Linear probe',
    {
      'top1': _share('VIM’s block', 'Chosen on a part of the training images.'),
      'untrained_vim': _share(
        'An untrained VIM', 'Its best block, chosen alike.'
      ),
      'pixels': _share('Raw pixels'),
      'code_vectors': _share('Mean code vector'),
      'code_counts': _share('Counts of the codes'),
      'largest_class': _share('The largest class', 'Always to name it.'),
      'standard_error': Known(
        'Standard error', '{:.1%}', 'Of such a share of the held-out images.'
      ),
      'block': Known('Block', note='Counted from 0.'),
    },
  ),
  'seconds': (
    'Time',
    {
      key: Known(name, _SECONDS, full='total')
      for key, name in (
        ('tokenizer', 'Tokenizer'),
        ('vim', 'VIM'),
        ('baselines', 'Figures and baselines'),
        ('samples', 'Samples'),
        ('probe', 'Linear probe'),
        ('total', 'Total'),
      )
    },
  ),
  'machine': (
    'Machine',
    {'cpu': Known('CPU'), 'tensorflow': Known('TensorFlow')},
  ),
}


@dataclasses.dataclass(frozen=True)
class Row:
  """A figure in words, with the length of its bar in [0, 1] if it has one."""

  name: str
  value: str
  note: str
  share: float | None


def tables(figures: Mapping[str, Mapping]) -> list[tuple[str, list[Row]]]:
  """Title and rows of each part; figures without a line above come last.

  Args:
    figures: By part, as `Report.figures`.
  """
  found = []
  for part, (title, known) in _PARTS.items():
    values = figures.get(part, {})
    keys = [key for key in known if key in values]
    keys += [key for key in values if key not in known]
    rows = [_row(key, values, known.get(key)) for key in keys]
    if rows:
      found.append((title, rows))
  return found


def _row(key: str, values: Mapping, known: Known | None) -> Row:
  value = values[key]
  if known is None:
    form = '{:.4g}' if isinstance(value, float) else '{}'
    known = Known(key.replace('_', ' ').capitalize(), form)
  if isinstance(value, Mapping):
    value = ', '.join(f'{k.replace("_", " ")} {x}' for k, x in value.items())
  share = None
  if known.full is not None:
    full = values.get(known.full, known.full)
    share = min(value / full, 1.0) if full else 0.0
  return Row(known.name, known.form.format(value), known.note, share)
