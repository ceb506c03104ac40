"""The paper's claims at small scale: every row, several seeds, then a page.

  ./bazelw run //experiments/studies/ablations -- --workdir=runs/ablations
  ./bazelw run //experiments/studies/ablations -- --workdir=runs/ablations \
    --rows='base|no_l2_norm|dim_' --seeds=0,1,2
  ./bazelw run //experiments/studies/ablations -- --workdir=runs/bench \
    --settings=rows.json --third_split

Rows are those of the paper's Table 4 that fit and of its Tables 6 to 8; see
`rows.py`. A run that is done has its line in `runs.jsonl` and is skipped;
one that was stopped goes on from its checkpoint. The page `ablations.md` gives
for each claim the paper's figures, ours with their spread, and whether they
point the same way.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
import re
import time

from absl import flags, logging
from etils import epy
import tqdm

from experiments import flags as flags_lib
from experiments.studies.ablations import budgets
from experiments.studies.ablations import record as record_lib
from experiments.studies.ablations import rows as rows_lib
from experiments.studies.ablations.rows import Row
from vim_tf.config import ConfigError
from vim_tf.training import workdir as workdir_lib

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from PIL import Image
  import tensorflow as tf

  from experiments.studies.ablations import page
  from experiments.studies.ablations import runs as runs_lib
  from vim_tf.training import strategy as strategy_lib

WORKDIR = flags.DEFINE_string(
  'workdir',
  'runs/ablations',
  '[output] Folder of the working directories of all runs.',
)
OUT = flags.DEFINE_string(
  'out',
  '',
  '[output] Folder of runs.jsonl, the page and its pictures; empty: '
  'WORKDIR/results.',
)
BUDGET = flags.DEFINE_enum(
  'budget',
  'small',
  list(budgets.BUDGETS),
  '[what] What a run may cost; tiny is a trial, whose figures say nothing.',
)
ROWS = flags.DEFINE_string(
  'rows', '', '[what] Regular expression of row names; empty: all.'
)
SETTINGS = flags.DEFINE_string(
  'settings',
  '',
  '[what] JSON file of rows of your own, {"NAME": {"changes": {"SETTING": '
  '"VALUE"}}}, with "tokenizer": "ROW" for those of a VIM; they are run beside '
  "base and vim_deep instead of the paper's.",
)
THIRD_SPLIT = flags.DEFINE_bool(
  'third_split',
  False,
  '[what] Train on nine tenths of the training images, and measure on the '
  'others, by which no preset was chosen.',
)
SEEDS = flags.DEFINE_list('seeds', ['0', '1', '2'], '[what] Seeds.')
PAGE_ONLY = flags.DEFINE_bool(
  'page_only', False, '[what] Write the page anew and run nothing.'
)


def main():
  """Does what is left to do, then writes the page."""
  budget = budgets.BUDGETS[BUDGET.value]
  if THIRD_SPLIT.value:
    budget = dataclasses.replace(budget, **budgets.THIRD_SPLIT)
  if SETTINGS.value:
    rows = rows_lib.read(SETTINGS.value, budget)
  else:
    rows = rows_lib.make(budget)
  chosen, seeds = choose(rows, ROWS.value), _seeds(SEEDS.value)
  folder = workdir_lib.make_folder(WORKDIR.value).resolve()
  out = workdir_lib.make_folder(OUT.value or folder / 'results')
  record = record_lib.Record(out / record_lib.LINES, BUDGET.value, budget, rows)
  try:
    if not PAGE_ONLY.value:
      _run_all(chosen, seeds, record, folder, out)
  finally:  # What is done is shown, whatever stopped the rest.
    _write_page(record, out)


def _run_all(chosen, seeds, record, folder, out):
  """Every run that has no line yet, seed by seed."""
  left = [
    (row, seed)
    for seed in seeds
    for row in chosen
    if not record.has(row.name, seed)
  ]
  logging.info(
    '%d of %d runs are left to do.', len(left), len(chosen) * len(seeds)
  )
  strategy = strategy_lib.make('one_device')
  runner = runs_lib.Runner(folder, record.budget, record.rows, strategy)
  pictures = workdir_lib.make_folder(out / page.PICTURES)
  for row, seed in tqdm.tqdm(left, 'Runs', unit='run'):
    started, cpu = time.monotonic(), time.process_time()
    outcome = runner(row, seed)
    seconds = time.monotonic() - started
    if outcome.picture is not None and seed == page.SHOWN_SEED:
      _save(outcome.picture, pictures / f'{row.name}.png')
      originals = pictures / f'{page.ORIGINALS}.png'
      if row.kind == rows_lib.TOKENIZER and not originals.exists():
        _save(runner.originals(), originals)
    record.add(
      {
        'row': row.name,
        'seed': seed,
        'figures': outcome.figures,
        'seconds': round(seconds, 1),
        'cpu_seconds': round(time.process_time() - cpu, 1),
        'tensorflow': tf.__version__,
      }
    )
    logging.info('%s, seed %d: %s.', row.name, seed, in_words(outcome.figures))


def choose(rows: Mapping[str, Row], pattern: str) -> list[Row]:
  """The rows whose names match.

  Raises:
    ConfigError: If the pattern is no regular expression or matches none.
  """
  try:
    found = [row for name, row in rows.items() if re.search(pattern, name)]
  except re.error as error:
    raise ConfigError(
      f'--rows={pattern} is no regular expression: {error}.'
    ) from error
  if not found:
    raise ConfigError(
      f'--rows={pattern} matches no row; there are {", ".join(rows)}.'
    )
  return found


def in_words(figures: Mapping[str, float]) -> str:
  """The figures of a run in one line."""
  return ', '.join(f'{name} {value:.4g}' for name, value in figures.items())


def _seeds(texts: Sequence[str]) -> list[int]:
  if not texts or not all(text.strip().isdecimal() for text in texts):
    raise ConfigError(
      f'--seeds={",".join(texts)} must be whole numbers from 0 with commas.'
    )
  return [int(text) for text in texts]


def _save(picture, file: pathlib.Path):
  Image.fromarray(picture).save(file)


def _write_page(record: record_lib.Record, out: pathlib.Path):
  page.write(
    page.Results(record.name, record.budget, record.rows, record.lines), out
  )
  logging.info('The page is %s.', out / page.PAGE)


if __name__ == '__main__':
  flags_lib.run(main)
