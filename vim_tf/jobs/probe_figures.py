"""Puts the outcomes of probes together: figures, a table, a curve by block."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import math
import os
import pathlib
import statistics

import numpy as np

from vim_tf.config import ProbeConfig
from vim_tf.jobs import curves, probe_features, restore

_NAMES = {
  'untrained_vim': 'the best block of an untrained VIM',
  probe_features.PIXELS: 'raw pixels',
  probe_features.CODE_VECTORS: 'the mean code vector',
  probe_features.CODE_COUNTS: 'the counts of the codes',
  probe_features.NETWORK: 'a network trained on ImageNet',
}


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What one seed found.

  Attributes:
    best_block: Name of the VIM's block that the validation part chose.
    best_untrained: The same of the untrained VIM; '' without one.
    penalty: The penalty chosen, by name of the features.
    validation: Top-1 on the validation part, by name.
    top1: On the held-out images, of all that was measured on them, by name.
    top5: The same.
    right: In which share of its views each held-out image's class was the
      likeliest, `[num_images]`, by name.
    largest_class: Share of the held-out images in their largest class.
  """

  best_block: str
  best_untrained: str
  penalty: dict[str, float]
  validation: dict[str, float]
  top1: dict[str, float]
  top5: dict[str, float]
  right: dict[str, np.ndarray]
  largest_class: float


def write(
  path: str | os.PathLike,
  outcomes: Sequence[Outcome],
  tokenizer: restore.Restored,
  vim: restore.Restored,
  config: ProbeConfig,
) -> dict:
  """Writes the record of a probe's outcomes; returns what `summarize` gives."""
  record = {
    'job': 'probe',
    'figures': summarize(outcomes),
    'protocol': protocol(tokenizer, vim, config),
  }
  write_record(path, record)
  return record['figures']


def write_record(path: str | os.PathLike, record: Mapping):
  """Writes a record of 'figures' and 'protocol', and the curve by block.

  They are `figures.json` and, of several blocks, `accuracy_by_block.png`.
  """
  path = pathlib.Path(path)
  (path / 'figures.json').write_text(json.dumps(record) + '\n')
  if len(record['figures']['blocks']) > 1:
    picture = curves.png({'VIM': [panel(record['figures'])]})
    (path / 'accuracy_by_block.png').write_bytes(picture)


def summarize(outcomes: Sequence[Outcome]) -> dict:
  """Figures over all seeds, as JSON.

  Returns:
    'top1' and 'top5' of the block that the validation part chose, with
    'top1_standard_error' over the seeds (null for one) and
    'top1_image_error', the standard error of a share of so few held-out
    images; 'best_block', the index chosen most often, and
    'best_block_by_seed'; 'largest_class', the share of the most frequent
    class; 'baselines', by name the same figures and the
    'margin' of the VIM over it with its 'margin_standard_error' over the
    seeds and 'margin_image_error' over the images; 'blocks', for each block
    'validation_top1' and, where measured, 'top1' and 'top5'.
  """
  chosen = [probe_features.block_index(o.best_block) for o in outcomes]
  names = [o.best_block for o in outcomes]
  best = statistics.mode(chosen)  # Of equals the first.
  right = _right(outcomes, names)
  figures = {
    'best_block': best,
    'best_block_by_seed': chosen,
    'num_blocks': len(_blocks(outcomes, probe_features.BLOCK)),
    **_measured(outcomes, names),
    'held_out_images': len(right),
    'largest_class': outcomes[0].largest_class,
    'baselines': {},
    'blocks': _by_block(outcomes, probe_features.BLOCK),
  }
  rivals = {
    name: [name] * len(outcomes) for name in _NAMES if name in outcomes[0].top1
  }
  if outcomes[0].best_untrained:
    rivals['untrained_vim'] = [o.best_untrained for o in outcomes]
    figures['untrained_blocks'] = _by_block(outcomes, probe_features.UNTRAINED)
  for rival in (name for name in _NAMES if name in rivals):
    difference = [
      o.top1[ours] - o.top1[theirs]
      for o, ours, theirs in zip(outcomes, names, rivals[rival])
    ]
    apart = right - _right(outcomes, rivals[rival])
    figures['baselines'][rival] = {
      **_measured(outcomes, rivals[rival]),
      'margin': float(np.mean(difference)),
      'margin_standard_error': _number(standard_error(difference)),
      'margin_image_error': _number(standard_error(apart)),
    }
  figures['seeds'] = len(outcomes)
  return figures


def _measured(outcomes, names) -> dict:
  top1 = [o.top1[name] for o, name in zip(outcomes, names)]
  top5 = [o.top5[name] for o, name in zip(outcomes, names)]
  return {
    'top1': float(np.mean(top1)),
    'top1_standard_error': _number(standard_error(top1)),
    'top1_image_error': _number(standard_error(_right(outcomes, names))),
    'top5': float(np.mean(top5)),
    'l2': [o.penalty[name] for o, name in zip(outcomes, names)],
  }


def _right(outcomes, names) -> np.ndarray:
  """For each held-out image the share of seeds that were right."""
  return np.mean([o.right[name] for o, name in zip(outcomes, names)], axis=0)


def _blocks(outcomes, prefix: str) -> list[str]:
  return [name for name in outcomes[0].validation if name.startswith(prefix)]


def _by_block(outcomes, prefix: str) -> list[dict]:
  rows = []
  for name in _blocks(outcomes, prefix):
    values = [o.validation[name] for o in outcomes]
    row = {
      'block': probe_features.block_index(name),
      'validation_top1': float(np.mean(values)),
      'validation_top1_standard_error': _number(standard_error(values)),
    }
    if all(name in o.top1 for o in outcomes):
      row.update(_measured(outcomes, [name] * len(outcomes)))
    rows.append(row)
  return rows


def panel(figures: Mapping) -> curves.Panel:
  """Accuracy by block, on held-out images if every block was measured there.

  Args:
    figures: What `summarize` gives.
  """
  held_out = all('top1' in row for row in figures['blocks'])
  key = 'top1' if held_out else 'validation_top1'
  lines = [
    curves.Line(
      name,
      [row['block'] for row in rows],
      [100 * row[key] for row in rows],
      [100 * (row[f'{key}_standard_error'] or 0.0) for row in rows],
    )
    for name, rows in (
      ('untrained VIM', figures.get('untrained_blocks')),
      ('VIM', figures['blocks']),
    )
    if rows
  ]
  baselines = figures['baselines'] if held_out else {}
  what = 'held-out images' if held_out else 'the validation part'
  return curves.Panel(
    'Linear probe by block',
    f'top-1 on {what}, %',
    lines,
    {
      _NAMES[name]: 100 * row['top1']
      for name, row in baselines.items()
      if name != 'untrained_vim'
    },
    axis='block, from 0',
  )


def table(figures: Mapping) -> list[str]:
  """The figures as lines of text."""
  errors = figures['top1_standard_error'] is not None
  lines = [f'{"features":36} {"top-1":>7} {"top-5":>7} {"margin of VIM":>16}']

  def line(name, row):
    text = f'{name:36} {100 * row["top1"]:6.1f}% {100 * row["top5"]:6.1f}%'
    if 'margin' in row:
      text += f' {100 * row["margin"]:+9.1f}'
      if errors:
        text += f' ± {100 * row["margin_standard_error"]:.1f}'
    lines.append(text)

  chosen = ', chosen on validation' if len(figures['blocks']) > 1 else ''
  line(f'VIM, block {figures["best_block"]}{chosen}', figures)
  for name, row in figures['baselines'].items():
    line(_NAMES[name], row)
  if errors:
    lines.append(
      f'± is the standard error over {figures["seeds"]} seeds; that of '
      f'{figures["held_out_images"]} held-out images is '
      f'{100 * figures["top1_image_error"]:.1f} points.'
    )
  return lines


def protocol(
  tokenizer: restore.Restored, vim: restore.Restored, config: ProbeConfig
) -> dict:
  """What the figures are of, as JSON."""
  return {
    'data': config.data.name,
    'train_split': config.data.train_split,
    'held_out_split': config.data.eval_split,
    'image_size': config.data.image_size,
    'passes': config.passes,
    'views': config.views,
    'crop': config.data.crop if config.passes else 'center',
    'normalize': config.normalize,
    'validation_share': config.validation_share,
    'labels_per_class': config.labels_per_class,
    'penalties': list(config.penalties),
    'steps': config.run.num_steps,
    'batch_size': config.run.batch_size,
    'first_seed': config.run.seed,
    'network': config.network,
    'block': config.block,
    'vim_fingerprint': restore.fingerprint(vim.model),
    'vim_step': vim.step,
    'vim_num_classes': vim.config.model.num_classes,
    'tokenizer_fingerprint': restore.fingerprint(tokenizer.model),
    'tokenizer_step': tokenizer.step,
    'tokenizer_saw_perceptual_loss': probe_features.uses_labels(tokenizer),
  }


def flat(figures: Mapping) -> dict:
  """The figures that a report shows, none of them nested.

  Args:
    figures: What `summarize` gives.

  Returns:
    'top1' and 'largest_class' as there, the top-1 of each baseline by its
    name; 'standard_error' of such a share of the held-out images; 'block',
    counted from 0.
  """
  return {
    'top1': figures['top1'],
    **{name: row['top1'] for name, row in figures['baselines'].items()},
    'largest_class': figures['largest_class'],
    'standard_error': figures['top1_image_error'],
    'block': figures['best_block'],
  }


def _number(value: float) -> float | None:
  return None if math.isnan(value) else value


def standard_error(values) -> float:
  """Of the mean of some values; not a number for a single one."""
  if len(values) < 2:
    return math.nan
  return float(np.std(values, ddof=1) / math.sqrt(len(values)))
