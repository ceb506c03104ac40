"""Trains the softmax layers of a probe: tables of features in, layers out."""

from collections.abc import Mapping
import pathlib

import numpy as np
import tensorflow as tf

from vim_tf.config import ProbeConfig
from vim_tf.data import pipeline
from vim_tf.probe import features as features_lib
from vim_tf.probe import linear
from vim_tf.probe import step as step_lib
from vim_tf.training import loop, optimizers, workers
from vim_tf.training import workdir as workdir_lib


class Fit:
  """Trains softmax layers through the common loop.

  Args:
    config: Every setting.
    seed: Of the order of the examples.
    facts: What else a working directory says.
    strategy: Where replicas run.
    num_classes: Number of classes.
  """

  def __init__(
    self,
    config: ProbeConfig,
    seed: int,
    facts: Mapping,
    strategy: tf.distribute.Strategy,
    num_classes: int,
  ):
    self._config = config
    self._seed = seed
    self._facts = facts
    self._strategy = strategy
    self._num_classes = num_classes

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
    config = self._config
    facts = {
      **self._facts,
      'probe_seed': self._seed,
      'penalties': {name: list(values) for name, values in penalties.items()},
    }
    workdir = workdir_lib.Workdir(
      path, 'probe', config, facts, workers.is_chief(self._strategy)
    )
    with self._strategy.scope():
      layers = {
        name: linear.SoftmaxLayer(
          table.features[name].shape[-1], self._num_classes, values, name=name
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
      return {
        f'{name}/top1': float(
          linear.accuracies(layer, features[name], labels)['top1'].max()
        )
        for name, layer in layers.items()
      }

    loop.train(
      step,
      config.run,
      workdir,
      lambda first, context: feature_batches(
        table, images, config.run.batch_size, self._seed, first, context
      ),
      self._strategy,
      evaluate,
      dict,
      title,
    )
    return layers


@tf.autograph.experimental.do_not_convert
def feature_batches(
  table: features_lib.Table,
  images: np.ndarray,
  batch_size: int,
  seed: int,
  start_step: int,
  input_context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
  """Endless batches of features; each crop of each image is an example.

  Args:
    table: The features.
    images: Indices of the images to draw from.
    batch_size: Examples of one step.
    seed: The order is a function of it.
    start_step: Step of the first batch.
    input_context: Of `tf.distribute`: each input pipeline gives its
      contiguous share of every batch.

  Returns:
    Dictionaries: float32 `[batch, width]` by the name of the features;
    'labels', int32 `[batch]`. `batch` is `batch_size` divided by the number
    of input pipelines.
  """
  size, share = pipeline.own_share(batch_size, input_context)
  count = table.num_passes * len(images)
  start = start_step * batch_size
  draws = pipeline.draw_examples(count, None, seed=seed, epoch=start // count)
  names = list(table.features)

  def read(index):
    crop, place = np.divmod(index, len(images))
    image = images[place]
    return [
      *(table.features[name][crop, image] for name in names),
      table.labels[image],
    ]

  def gather(drawn):
    drawn = share(drawn)
    values = tf.numpy_function(
      read, [drawn['index']], [tf.float32] * len(names) + [tf.int32]
    )
    batch = dict(zip([*names, 'labels'], values))
    for name in names:
      batch[name].set_shape([size, table.features[name].shape[-1]])
    batch['labels'].set_shape([size])
    return batch

  data = draws.skip(start % count).batch(batch_size, drop_remainder=True)
  return data.map(gather).prefetch(2).with_options(pipeline.options())
