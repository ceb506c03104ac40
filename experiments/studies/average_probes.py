"""Averages probes of several VIMs that differ in the seed of their training.

  ./bazelw run //experiments/studies:average_probes -- --out=runs/probes \
    --probes=runs/probe-0,runs/probe-1,runs/probe-2

The seeds of one probe share a VIM, and their standard error says nothing of
training another. Here each probe counts once, and the standard errors are over
the probes: over everything that is drawn, but for the images. It prints the
table of `train_probe` and writes the same files.
"""

from collections.abc import Mapping, Sequence
import pathlib
import statistics

from absl import flags
from etils import epy
import numpy as np

from experiments import flags as flags_lib
from vim_tf.config import UserError
from vim_tf.training import workdir as workdir_lib

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from vim_tf.jobs import probe_figures

PROBES = flags.DEFINE_list(
  'probes', None, '[input] Working directories of probes.', required=True
)
OUT = flags.DEFINE_string(
  'out', None, '[output] Folder for the figures.', required=True
)

_MAY_DIFFER = {'first_seed', 'vim_fingerprint', 'tokenizer_fingerprint'}
_MEANS = ('top1', 'top5', 'margin', 'validation_top1')
_IMAGE_ERRORS = ('top1_image_error', 'margin_image_error')


def read(path: str) -> dict:
  """The record of a probe that was measured, out of its `figures.json`."""
  file = pathlib.Path(path) / 'figures.json'
  try:
    record = workdir_lib.read_json(file)
  except (OSError, ValueError) as error:
    raise UserError(f'{path} is no finished probe: {error}') from error
  if record.get('job') != 'probe':
    raise UserError(f'{file} is not of a probe.')
  return record


def check_alike(records: Mapping[str, Mapping]):
  """Refuses probes that differ in more than what training has drawn.

  Args:
    records: What `read` gives, by path.

  Raises:
    UserError: If there are fewer than two, two of the same VIM, or two that
      were made in different ways.
  """
  if len(records) < 2:
    raise UserError('There is nothing to average: name two probes or more.')
  (first, record), *others = records.items()
  for path, other in others:
    for name, value in record['protocol'].items():
      theirs = other['protocol'].get(name)
      if name not in _MAY_DIFFER and theirs != value:
        raise UserError(
          f'{name} is {value} in {first}, but {theirs} in {path}: probes are '
          'averaged only over what was drawn.'
        )
  seen = {}
  for path, other in records.items():
    vim = other['protocol']['vim_fingerprint']
    if vim in seen:
      raise UserError(f'{seen[vim]} and {path} are probes of the same VIM.')
    seen[vim] = path


def average(figures: Sequence[Mapping]) -> dict:
  """Means over probes, in the form of `probe_figures.summarize`.

  Args:
    figures: Of each probe what `summarize` gave, all of the same protocol.

  Returns:
    The same keys; every standard error but those of the images is over the
    probes. Those of the images are averages, as all probes saw the same ones.
  """
  chosen = [row['best_block'] for row in figures]
  result = {
    'best_block': statistics.mode(chosen),
    'best_block_by_seed': chosen,
    'num_blocks': figures[0]['num_blocks'],
    **_means(figures),
    'held_out_images': figures[0]['held_out_images'],
    'largest_class': figures[0]['largest_class'],
    'baselines': {
      name: _means([row['baselines'][name] for row in figures])
      for name in figures[0]['baselines']
    },
  }
  for key in ('blocks', 'untrained_blocks'):
    if key in figures[0]:
      result[key] = [
        {'block': rows[0]['block'], **_means(rows)}
        for rows in zip(*(row[key] for row in figures), strict=True)
      ]
  return {**result, 'seeds': len(figures)}


def _means(rows: Sequence[Mapping]) -> dict[str, float]:
  result = {}
  for name in (name for name in _MEANS if name in rows[0]):
    values = [row[name] for row in rows]
    result[name] = float(np.mean(values))
    result[f'{name}_standard_error'] = probe_figures.standard_error(values)
  for name in (name for name in _IMAGE_ERRORS if name in rows[0]):
    result[name] = float(np.mean([row[name] for row in rows]))
  return result


def main():
  """Averages, prints and writes."""
  records = {path: read(path) for path in PROBES.value}
  check_alike(records)
  folder = workdir_lib.make_folder(OUT.value)
  if (folder / 'figures.json').exists():
    raise UserError(f'{folder} has figures already: give another --out.')
  figures = average([record['figures'] for record in records.values()])
  protocol = {
    name: [record['protocol'][name] for record in records.values()]
    if name in _MAY_DIFFER
    else value
    for name, value in next(iter(records.values()))['protocol'].items()
  }
  probe_figures.write_record(
    folder, {'job': 'probes', 'figures': figures, 'protocol': protocol}
  )
  print('\n'.join(['', *probe_figures.table(figures)]))


if __name__ == '__main__':
  flags_lib.run(main)
