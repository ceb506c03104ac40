"""The whole method in one sitting: both stages, a probe, then a report.

  ./bazelw run //experiments:quickstart
  ./bazelw run //experiments:quickstart -- --budget=long

It trains the tokenizer on OpenMoji, trains VIM on its codes, draws images of
every class, probes VIM's blocks for the classes and writes `report.html` and
`report.json`. Nothing is downloaded: the pictures come with a Python package. A
run that was stopped goes on when it is started again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import time

from absl import flags, logging
from etils import epy
import numpy as np

from experiments import flags as flags_lib
from experiments.quickstart import budgets
from vim_tf import machine as machine_lib
from vim_tf import presets, protocols
from vim_tf.config import Stage1Config
from vim_tf.training import workdir as workdir_lib

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  import tensorflow as tf

  from experiments.quickstart import report
  from experiments.quickstart import samples as quickstart_samples
  from vim_tf.data import pipeline, sources
  from vim_tf.jobs import (
    evaluate_likelihood,
    pictures,
    probe_figures,
    references,
    restore,
    train_tokenizer,
    train_vim,
  )
  from vim_tf.jobs import probe as probe_job
  from vim_tf.metrics import baselines, reconstruction
  from vim_tf.training import strategy as strategy_lib

BUDGET = flags.DEFINE_enum(
  'budget',
  'short',
  list(budgets.BUDGETS),
  'short: about 12 minutes on two cores; long: about 25; tiny: a trial.',
)
WORKDIR = flags.DEFINE_string(
  'workdir', '', 'Where everything goes; by default runs/quickstart-BUDGET.'
)

_SHOWN = 16  # Held-out images in the report.
_OF_VIM = (
  *('bits_per_code', 'order0_bits_per_code', 'order1_bits_per_code'),
  'share_of_order1',
)


def main():
  """Trains, measures, draws and reports."""
  budget = budgets.BUDGETS[BUDGET.value]
  folder = workdir_lib.make_folder(
    WORKDIR.value or f'runs/quickstart-{BUDGET.value}'
  )
  clock = functools.partial(timed, folder / 'seconds.json')
  strategy = strategy_lib.make('one_device')

  # ---------------------------------------------------------- tokenizer, VIM
  precision = budgets.precision()
  first = budget.stage1(str(folder / 'data'), precision)
  with clock('tokenizer'):
    train_tokenizer.train(first, str(folder / 'tokenizer'), strategy)
  second = budget.stage2(first, str(folder / 'tokenizer'))
  with clock('vim'):
    train_vim.train(second, str(folder / 'vim'), strategy)

  # ----------------------------------------------------------------- figures
  tokenizer, vim = restore.both(folder / 'vim', str(folder / 'tokenizer'))
  with clock('baselines'):
    train, held_out = (
      sources.load(first.data, split)
      for split in (first.data.train_split, first.data.eval_split)
    )
    tokenizer_figures, shown = measure_tokenizer(
      tokenizer, train, held_out, first
    )
    vim_figures = measure_vim(tokenizer, vim, budgets.CODE_EPOCHS[BUDGET.value])
  with clock('samples'):
    drawn = quickstart_samples.draw(
      tokenizer,
      vim,
      second.data,
      budgets.SELECTION[BUDGET.value],
      references.heads_folder(folder / 'vim'),
    )
  with clock('probe'):
    name = 'tiny' if BUDGET.value == 'tiny' else 'quick'
    config = dataclasses.replace(
      presets.probe(name, second),
      data=first.data,
      vim=str(folder / 'vim'),
      tokenizer=str(folder / 'tokenizer'),
    )
    outcomes = probe_job.sweep(
      tokenizer, vim, train, held_out, config, folder / 'probe', strategy
    )
    probe = probe_figures.write(
      folder / 'probe', outcomes, tokenizer, vim, config
    )

  # ------------------------------------------------------------------ report
  parts = seconds(folder / 'seconds.json')
  report.write(
    report.Report(
      title='vim_tf quickstart',
      budget=BUDGET.value,
      figures={
        'tokenizer': tokenizer_figures,
        'vim': {**vim_figures, **drawn.figures},
        'probe': probe_figures.flat(probe),
        'seconds': {**parts, 'total': round(sum(parts.values()), 1)},
        'machine': machine(precision),
      },
      reconstructions=shown['tokenizer'],
      kmeans=shown['kmeans'],
      samples=drawn.first,
      selected=drawn.best,
      curves={
        'Tokenizer (ViT-VQGAN)': workdir_lib.read_metrics(folder / 'tokenizer'),
        'VIM': workdir_lib.read_metrics(folder / 'vim'),
      },
      panels={'Linear probe': [probe_figures.panel(probe)]},
      licence=train.licence,
    ),
    folder,
  )
  logging.info('The report is %s.', (folder / 'report.html').resolve())


def measure_tokenizer(
  tokenizer: restore.Restored,
  train: sources.Source,
  held_out: sources.Source,
  config: Stage1Config,
) -> tuple[dict, dict[str, np.ndarray]]:
  """The tokenizer beside a k-means codebook of raw patches.

  The k-means codebook has as many codes, the same patch size and the same
  training images.

  Returns:
    Figures on the held-out images, and pictures of some of them with their
    reconstructions by 'tokenizer' and 'kmeans'.
  """
  figures = train_tokenizer.Figures(tokenizer.model)(
    pipeline.evaluation_batches(held_out, config.data, batch_size=64)
  )
  train_images, _ = pipeline.evaluation_arrays(train, config.data)
  images, _ = pipeline.evaluation_arrays(held_out, config.data)
  logging.info('Fitting the k-means codebook of raw patches.')
  codebook = baselines.patch_codebook(
    train_images,
    config.model.codebook_size,
    config.model.patch_size,
    seed=config.run.seed,
  )
  kmeans_images = baselines.reconstruct(
    images, codebook, config.model.patch_size
  )
  kmeans_psnr = float(
    tf.reduce_mean(reconstruction.psnr(images, kmeans_images))
  )
  chosen = np.linspace(0, len(images) - 1, _SHOWN).astype(int)
  some = tf.constant(images[chosen])
  rebuilt = tokenizer.model.reconstruct(some)
  return {
    'psnr': figures.pop('mean_psnr'),
    'kmeans_psnr': kmeans_psnr,
    **figures,
    'parameters': tokenizer.model.count_params(),
    'steps': tokenizer.step,
    'codebook_size': config.model.codebook_size,
    'train_images': len(train_images),
    'held_out_images': len(images),
  }, {
    'tokenizer': pictures.pairs(some, rebuilt),
    'kmeans': pictures.pairs(some, kmeans_images[chosen]),
  }


def measure_vim(
  tokenizer: restore.Restored, vim: restore.Restored, code_epochs: int
) -> dict:
  """VIM beside order-0 and order-1 models of the same codes, in bits.

  These learn from the codes of `code_epochs` augmented passes over the training
  images, drawn as VIM's own were.
  """
  protocol = protocols.LikelihoodProtocol(batch_size=64, passes=code_epochs)
  figures = evaluate_likelihood.evaluate(tokenizer, vim, protocol)['figures']
  return {
    **{name: figures[name] for name in _OF_VIM},
    'parameters': vim.model.count_params(),
    'steps': vim.step,
  }


def machine(precision: str) -> dict:
  """What the figures were measured on."""
  return {
    'cpu': machine_lib.cpu(),
    'cores': machine_lib.cores(),
    'tensorflow': tf.__version__,
    'precision': precision,
  }


def seconds(file: pathlib.Path) -> dict[str, float]:
  """Seconds of each part, over all the times that a run was started."""
  parts = workdir_lib.read_json(file) if file.exists() else {}
  parts.pop('total', None)  # Which it held once.
  return parts


@contextlib.contextmanager
def timed(file: pathlib.Path, part: str):
  """Adds what runs inside to the seconds of a part."""
  started = time.monotonic()
  try:
    yield
  finally:
    parts = seconds(file)
    parts[part] = round(parts.get(part, 0.0) + time.monotonic() - started, 1)
    if file.parent.exists():
      workdir_lib.write_json(file, parts)


if __name__ == '__main__':
  flags_lib.run(main)
