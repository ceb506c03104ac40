"""Linear probes of a VIM and of what it must beat, by one and the same way.

For each seed a part of the training images is set aside. Softmax layers on the
rest, one for every kind of features and every penalty, are trained side by
side, and the part set aside chooses block and penalty. The layers chosen are
trained again on all training images, and only those ever see the held-out
images.
"""

from collections.abc import Callable, Mapping
import dataclasses
import os
import pathlib

from absl import logging
import numpy as np
import tensorflow as tf

from vim_tf.config import ALL_BLOCKS, ConfigError, ProbeConfig
from vim_tf.data import errors, pipeline, sources
from vim_tf.jobs import probe_features, probe_figures, restore
from vim_tf.probe import features as features_lib
from vim_tf.probe import linear, splits
from vim_tf.probe import step as step_lib
from vim_tf.training import loop, optimizers, preamble, workers
from vim_tf.training import strategy as strategy_lib
from vim_tf.training import workdir as workdir_lib


def probe(
  config: ProbeConfig,
  path: str | os.PathLike,
  strategy: tf.distribute.Strategy | None = None,
  on_bad_example: str = 'stop',
) -> dict:
  """Probes a VIM, and writes what `probe_figures.write` writes.

  Args:
    config: Every setting; `config.vim` names the stage-2 run.
    path: The working directory; a probe that was stopped goes on from it.
    strategy: Where replicas of the models and of the softmax layers run; None:
      'auto'.
    on_bad_example: At an image that cannot be read 'stop', or 'skip' it.

  Returns:
    The figures of `probe_figures.summarize`.

  Raises:
    UserError: If a run or the data cannot be read, or as of `sweep`.
  """
  strategy = strategy or strategy_lib.make()  # Before anything is computed.
  if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
    raise ConfigError('A probe runs on one machine: give another --strategy.')
  with strategy.scope():
    tokenizer, vim = restore.both(config.vim, config.tokenizer)
  outcomes = sweep(
    tokenizer,
    vim,
    *(
      sources.load(config.data, split, on_bad_example)
      for split in (config.data.train_split, config.data.eval_split)
    ),
    config,
    path,
    strategy,
  )
  return probe_figures.write(path, outcomes, tokenizer, vim, config)


def sweep(
  tokenizer: restore.Restored,
  vim: restore.Restored,
  train: sources.Source,
  held_out: sources.Source,
  config: ProbeConfig,
  path: str | os.PathLike,
  strategy: tf.distribute.Strategy,
) -> list[probe_figures.Outcome]:
  """Probes a VIM; `probe_figures` puts the outcomes together.

  Args:
    tokenizer: Makes the codes.
    vim: Learned them; nothing of it is changed.
    train: Images to train and to choose on.
    held_out: Images to measure on.
    config: Every setting.
    path: The working directory; a probe that was stopped goes on from it.
    strategy: Where replicas of the softmax layers run.

  Returns:
    The outcome of each seed.

  Raises:
    UserError: If there is no such block, the labels cannot be used, or the
      directory is that of another run.
  """
  path = workdir_lib.make_folder(path)
  workdir_lib.check(path, 'probe', config)  # Told before anything is computed.
  probe_features.check_block(vim.model, config.fixed_block)
  for source, what in (
    (train, 'training images'),
    (held_out, 'held-out images'),
  ):
    if source.labels is not None:
      _check_labels(source, source.labels, what)
  if train.class_names != held_out.class_names:
    raise workdir_lib.WorkdirError(
      f'{train.name} has other classes in its split {train.split!r} than in '
      f'{held_out.split!r}.'
    )
  facts = {
    'class_names': list(train.class_names),
    'data_fingerprint': train.fingerprint,
    'held_out_fingerprint': held_out.fingerprint,
    'tokenizer_fingerprint': restore.fingerprint(tokenizer.model),
    'vim_fingerprint': restore.fingerprint(vim.model),
  }
  workdir = workdir_lib.Workdir(path, 'probe', config, facts)
  for line in preamble.describe(
    'probe',
    config.run,
    dataclasses.replace(preamble.Split.of(train), crops=1 + config.passes),
    preamble.Split.of(held_out),
    {'VIM, which is not trained': vim.model.count_params()},
    path,
    pictures=False,
  ):
    logging.info(line)
  probe_features.warn(tokenizer, vim)

  # ---------------------------------------------------------------- features
  logging.info('Features of %d images.', train.num_examples)
  extract = probe_features.extractor(tokenizer, vim, config)
  known = _tables(extract, train, held_out, config, workdir.path / 'features')
  for table, what in zip(known, ('training images', 'held-out images')):
    source = train if what.startswith('training') else held_out
    _check_labels(source, table.labels, what)

  # ------------------------------------------------------------------ probes
  outcomes = []
  for seed in range(config.run.seed, config.run.seed + config.num_seeds):
    tables = known
    if config.baselines:
      extract = probe_features.untrained_extractor(tokenizer, vim, config, seed)
      folder = path / 'features' / f'untrained-{seed}'
      more = _tables(extract, train, held_out, config, folder)
      tables = tuple(
        features_lib.Table({**a.features, **b.features}, a.labels)
        for a, b in zip(known, more)
      )
    outcomes.append(
      _probe(
        *tables,
        train,
        config,
        seed,
        workdir.path / f'seed-{seed}',  # Locked as long as this lasts.
        facts,
        strategy,
      )
    )
  return outcomes


def _check_labels(source: sources.Source, labels: np.ndarray, what: str):
  splits.check_labels(labels, source.class_names, f'{what} of {source.name}')


def _tables(
  extract: Callable, train, held_out, config: ProbeConfig, folder: pathlib.Path
) -> tuple[features_lib.Table, features_lib.Table]:
  """Features of training and held-out images, in all crops that count."""
  batch_size = probe_features.BATCH

  def passes(source, augmented):
    return [
      pipeline.evaluation_batches(source, config.data, batch_size=batch_size),
      *(
        pipeline.epoch_batches(
          source,
          config.data,
          batch_size=batch_size,
          seed=config.run.seed,
          epoch=i,
        )
        for i in range(augmented)
      ),
    ]

  held_out_passes = config.passes if config.views == 'augmented' else 0
  return tuple(
    features_lib.tabulate(
      extract,
      passes(source, count),
      source.num_examples,
      folder / name,
      source.on_bad_example == errors.SKIP,
    )
    for source, count, name in (
      (train, config.passes, 'train'),
      (held_out, held_out_passes, 'held_out'),
    )
  )


@dataclasses.dataclass(frozen=True)
class _Fit:
  """Trains softmax layers through the common loop, in the order of a seed."""

  config: ProbeConfig
  seed: int
  facts: Mapping  # What else a working directory says.
  strategy: tf.distribute.Strategy
  num_classes: int

  def __call__(
    self,
    penalties: Mapping[str, tuple[float, ...]],
    table: features_lib.Table,
    images: np.ndarray,
    path: pathlib.Path,
    shown: tuple[Mapping[str, np.ndarray], np.ndarray],
    title: str,
  ) -> dict[str, linear.SoftmaxLayer]:
    """Trains one layer for each kind of features and each of its penalties.

    Args:
      penalties: Of each kind of features.
      table: The features.
      images: Which images to train on.
      path: The working directory.
      shown: Features `[num_images, width]` and labels to evaluate on.
      title: What the progress bar says.

    Returns:
      The trained layers.
    """
    config = self.config
    facts = {
      **self.facts,
      'probe_seed': self.seed,
      'penalties': {name: list(values) for name, values in penalties.items()},
    }
    workdir = workdir_lib.Workdir(
      path, 'probe', config, facts, workers.is_chief(self.strategy)
    )
    with self.strategy.scope():
      layers = {
        name: linear.SoftmaxLayer(
          table.features[name].shape[-1], self.num_classes, values, name=name
        )
        for name, values in penalties.items()
      }
      for name, layer in layers.items():
        layer.build()
        if config.normalize == 'standardize':
          layer.standardize(*linear.statistics(table.features[name], images))
      optimizer = optimizers.Optimizer(
        config.optimizer, step_lib.variables(layers)
      )
      step = step_lib.ProbeStep(layers, optimizer)
    features, labels = shown

    def evaluate():
      found = self.accuracies(layers, features, labels)
      return {
        f'{name}/top1': float(x['top1'].max()) for name, x in found.items()
      }

    loop.train(
      step,
      config.run,
      workdir,
      lambda first, context: probe_features.feature_batches(
        table, images, config.run.batch_size, self.seed, first, context
      ),
      self.strategy,
      evaluate,
      dict,
      title,
    )
    return layers

  def accuracies(self, layers, features, labels) -> dict[str, dict]:
    """What `linear.accuracies` gives, by the name of the features."""
    return {
      name: linear.accuracies(layer, features[name], labels, self.strategy)
      for name, layer in layers.items()
    }


def _probe(
  table: features_lib.Table,
  held_out: features_lib.Table,
  train: sources.Source,
  config: ProbeConfig,
  seed: int,
  path: pathlib.Path,
  facts: Mapping,
  strategy: tf.distribute.Strategy,
) -> probe_figures.Outcome:
  """One seed: choose, train again on everything, measure."""
  num_classes = len(train.class_names)
  groups = train.groups
  if config.labels_per_class:
    drawn = splits.draw_labelled(table.labels, config.labels_per_class, seed)
    table = table.part(drawn)
    groups = None if groups is None else groups[drawn]
  fit = _Fit(config, seed, facts, strategy, num_classes)
  validation, penalty = _choose(fit, table, groups, config, seed, path)
  best = _best(validation, probe_features.BLOCK)
  untrained = _best(validation, probe_features.UNTRAINED)
  if config.block == ALL_BLOCKS:
    wanted = list(table.features)
  else:
    wanted = [
      name
      for name in table.features
      if name in (best, untrained) or probe_features.block_index(name) is None
    ]

  # ----------------------------------------------------------------- measure
  augmented = config.views == 'augmented'
  every = np.arange(held_out.num_images)
  shown, labels = held_out.only(wanted).views(every, augmented)
  layers = fit(
    {name: (penalty[name],) for name in wanted},
    table.only(wanted),
    np.arange(table.num_images),
    path / 'final',
    (shown, labels),
    f'probes, seed {seed}',
  )
  figures = fit.accuracies(layers, shown, labels)
  return probe_figures.Outcome(
    best_block=best,
    best_untrained=untrained,
    penalty=penalty,
    validation=validation,
    top1={name: float(found['top1'][0]) for name, found in figures.items()},
    top5={name: float(found['top5'][0]) for name, found in figures.items()},
    right={
      name: found['right'].reshape(-1, held_out.num_images).mean(axis=0)
      for name, found in figures.items()
    },
    largest_class=float(
      np.bincount(held_out.labels).max() / len(held_out.labels)
    ),
  )


def _choose(
  fit: _Fit,
  table: features_lib.Table,
  groups: np.ndarray | None,
  config: ProbeConfig,
  seed: int,
  path: pathlib.Path,
) -> tuple[dict[str, float], dict[str, float]]:
  """Top-1 on the validation part and the best penalty, by name.

  A probe that goes on keeps to what it chose: features that were computed
  again may differ in their last bit, and that might turn a tie.
  """
  file = path / 'choice' / 'chosen.json'
  if file.exists():
    kept = workdir_lib.read_json(file)
    return kept['validation'], kept['penalty']
  chosen = splits.hold_out(table.labels, groups, config.validation_share, seed)
  if not chosen.any():
    raise workdir_lib.WorkdirError(
      f'A share of {config.validation_share} of each class is not one image: '
      'give a larger validation_share.'
    )
  part = np.flatnonzero(chosen)
  shown, labels = table.views(part, config.views == 'augmented')
  layers = fit(
    {name: config.penalties for name in table.features},
    table,
    np.flatnonzero(~chosen),
    path / 'choice',
    (shown, labels),
    f'probes to choose from, seed {seed}',
  )
  validation, penalty = {}, {}
  for name, accuracies in fit.accuracies(layers, shown, labels).items():
    found = accuracies['top1']
    place = np.flatnonzero(found == found.max())[-1]  # The strongest of equals.
    validation[name] = float(found[place])
    penalty[name] = config.penalties[place]
  workdir_lib.write_json(file, {'validation': validation, 'penalty': penalty})
  return validation, penalty


def _best(validation: Mapping[str, float], prefix: str) -> str:
  """The best block of a VIM; of equals the one nearest to the middle."""
  blocks = [name for name in validation if name.startswith(prefix)]
  middle = (len(blocks) - 1) / 2
  return max(
    blocks,
    key=lambda name: (validation[name], -abs(blocks.index(name) - middle)),
    default='',
  )
