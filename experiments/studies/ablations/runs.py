"""One run of one row of the ablations: train, measure, give the figures."""

from collections.abc import Mapping
import dataclasses
import functools
import pathlib

import numpy as np
import tensorflow as tf

from experiments.studies.ablations import rows as rows_lib
from experiments.studies.ablations.budgets import Budget
from experiments.studies.ablations.rows import NETWORK, Row
from vim_tf import protocols
from vim_tf.data import pipeline, sources
from vim_tf.jobs import (
  evaluate_reconstructions,
  pictures,
  references,
  restore,
  train_tokenizer,
  train_vim,
)
from vim_tf.jobs import probe as probe_job
from vim_tf.jobs import sample as sample_job
from vim_tf.probe import features as features_lib
from vim_tf.vim import sampling

_SHOWN = 12  # Images of a row's picture.
_EVAL_BATCH = 32
_SAMPLE_BATCH = 60

_OF_TOKENIZER = {
  'l1': 'l1',
  'l2': 'l2',
  'psnr': 'mean_psnr',
  'ssim': 'ssim',
  'lpips': 'lpips_vgg',
  'logit_laplace': 'logit_laplace_nll',
  'usage': 'usage_per_256_images',
  'perplexity': 'perplexity',
  'rfd': f'rfd_{NETWORK}',
  'rkd': f'rkd_{NETWORK}',
}
_OF_SAMPLES = {
  'gfd': f'gfd_{NETWORK}',
  'gkd': f'gkd_{NETWORK}',
  'gis': f'is_{NETWORK}',
}


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What a run gave.

  Attributes:
    figures: By metric; see `claims.METRICS`, and more.
    picture: Some reconstructions or samples in one row, uint8
      `[height, width, 3]`; None of a probe.
  """

  figures: dict[str, float]
  picture: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Runner:
  """Does the runs of one budget in one folder.

  A run that was stopped goes on from its checkpoint. What a run stands upon is
  trained first if it is not there.

  Attributes:
    folder: Where working directories go, one a row and seed.
    budget: What a run may cost.
    rows: All rows by name.
    strategy: Where replicas run.
    ready: The working directories of what is trained.
  """

  folder: pathlib.Path
  budget: Budget
  rows: Mapping[str, Row]
  strategy: tf.distribute.Strategy
  ready: set[pathlib.Path] = dataclasses.field(default_factory=set)

  def __call__(self, row: Row, seed: int) -> Outcome:
    """Does one run.

    Raises:
      UserError: If the folder holds a run of other settings, or a loss is not
        finite.
      Preempted: If SIGTERM or Ctrl-C came; what was done is saved.
    """
    return {
      rows_lib.TOKENIZER: self._tokenizer_run,
      rows_lib.VIM: self._samples_run,
      rows_lib.SAMPLES: self._samples_run,
      rows_lib.PROBE: self._probe_run,
    }[row.kind](row, seed)

  def originals(self) -> np.ndarray:
    """The held-out images that the rows' pictures reconstruct, in one row."""
    return pictures.grid(self._some_images, _SHOWN)

  # ------------------------------------------------------------------- stages
  def _tokenizer_run(self, row: Row, seed: int) -> Outcome:
    tokenizer = restore.tokenizer(self._tokenizer(row, seed))
    result, _ = evaluate_reconstructions.evaluate(
      tokenizer,
      protocols.ReconstructionProtocol(
        data=tokenizer.config.data,
        max_images=self.budget.max_images,
        batch_size=min(_EVAL_BATCH, self.budget.max_images),
        network=NETWORK,
      ),
    )
    rebuilt = tokenizer.model.reconstruct(tf.constant(self._some_images))
    return Outcome(
      _chosen(result['figures'], _OF_TOKENIZER), pictures.grid(rebuilt, _SHOWN)
    )

  def _samples_run(self, row: Row, seed: int) -> Outcome:
    model_row = self.rows[row.vim] if row.vim else row
    tokenizer, vim = restore.both(self._vim(model_row, seed))
    data, evaluator, counts = self._evaluator
    classifier = None
    if row.acceptance < 1:
      classifier = references.load_classifier(
        rows_lib.CLASSIFIER, vim, data, self._heads, evaluator.network
      )
    ids = references.spread(
      self.budget.samples, vim.config.model.num_classes, counts
    )
    kept = sample_job.Sampler(tokenizer.model, vim.model).keep_best(
      ids,
      0,
      sampling.SamplingConfig(),  # The paper's (4.1).
      acceptance=row.acceptance,
      classifier=classifier,
      batch_size=min(_SAMPLE_BATCH, self.budget.samples),
    )
    scores = evaluator.score(kept.images, ids)
    figures = _chosen(scores, _OF_SAMPLES)
    figures['recognised'] = scores['recognition']['accuracy']
    if row.kind == rows_lib.VIM:
      batches = pipeline.evaluation_batches(
        data.source(data.config.eval_split),
        data.config,
        batch_size=_EVAL_BATCH,
        max_examples=self.budget.max_images,
      )
      found = train_vim.Figures(vim.model, tokenizer.model)(batches)
      figures['bits_per_code'] = found['bits_per_code']
      figures['bits_per_image'] = (
        found['bits_per_code'] * vim.config.model.num_codes
      )
    places = np.linspace(0, len(ids) - 1, _SHOWN).astype(int)
    shown = kept.images[places] / np.float32(255)
    return Outcome(figures, pictures.grid(shown, _SHOWN))

  def _probe_run(self, row: Row, seed: int) -> Outcome:
    path = self._vim(row, seed)
    tokenizer, vim = restore.both(path)
    config = rows_lib.probe(self.budget, vim.config, seed)
    (found,) = probe_job.sweep(
      tokenizer,
      vim,
      sources.load(config.data, config.data.train_split),
      sources.load(config.data, config.data.eval_split),
      config,
      path / 'probe',
      self.strategy,
    )
    blocks = vim.config.model.transformer.num_blocks
    by_block = [found.top1[features_lib.block_name(i)] for i in range(blocks)]
    return Outcome(
      {
        'top1': found.top1[found.best_block],
        'top1_first': by_block[0],
        'top1_middle': by_block[(blocks - 1) // 2],
        'top1_last': by_block[-1],
      },
      None,
    )

  # ------------------------------------------------------------------ training
  def _tokenizer(self, row: Row, seed: int) -> pathlib.Path:
    """The working directory of a trained tokenizer."""
    path = self._path(row, seed)
    if path not in self.ready:
      config = rows_lib.stage1(row, self.budget, seed, self._data_dir)
      train_tokenizer.train(
        config, str(path), self.strategy, f'{row.name}, seed {seed}'
      )
      self.ready.add(path)
    return path

  def _vim(self, row: Row, seed: int) -> pathlib.Path:
    """The working directory of a trained VIM."""
    path = self._path(row, seed)
    if path not in self.ready:
      tokenizer = self._tokenizer(self.rows[row.tokenizer], seed)
      config = rows_lib.stage2(
        row, self.budget, seed, self._data_dir, str(tokenizer)
      )
      train_vim.train(
        config, str(path), self.strategy, f'{row.name}, seed {seed}'
      )
      self.ready.add(path)
    return path

  def _path(self, row: Row, seed: int) -> pathlib.Path:
    return self.folder / f'{row.name}-{seed}'

  # ----------------------------------------------------------------- measuring
  @property
  def _data_dir(self) -> str:
    return str(self.folder / 'data')

  @property
  def _heads(self) -> pathlib.Path:
    return self.folder / 'classifiers'

  @functools.cached_property
  def _base(self):
    return rows_lib.stage1(self.rows['base'], self.budget, 0, self._data_dir)

  @functools.cached_property
  def _some_images(self) -> np.ndarray:
    data = self._base.data
    images, _ = pipeline.evaluation_arrays(
      sources.load(data, data.eval_split), data
    )
    return images[np.linspace(0, len(images) - 1, _SHOWN).astype(int)]

  @functools.cached_property
  def _evaluator(self):
    """The real images, what samples are held against, images a class."""
    data = references.Data(
      self._base.data, self.budget.max_images, _SAMPLE_BATCH
    )
    file = self.folder / 'reference.npz'
    evaluator, counts = references.load_evaluator(
      NETWORK,
      data,
      reference=str(file) if file.exists() else '',
      save_reference='' if file.exists() else str(file),
      folder=self._heads,
    )
    return data, evaluator, counts


def _chosen(figures: Mapping, names: Mapping[str, str]) -> dict[str, float]:
  return {
    ours: float(figures[theirs])
    for ours, theirs in names.items()
    if theirs in figures
  }
