"""What a training is about to do, to be read before its first step."""

from collections.abc import Mapping, Sequence
import dataclasses
import datetime
import math
import os

import numpy as np
import tensorflow as tf

from vim_tf.config import RunConfig, UserError

_MOST_CLASSES = 12  # That are listed one by one.


@dataclasses.dataclass(frozen=True)
class Split:
  """The images of one split.

  Attributes:
    name: What the split is called, with its data set.
    images: How many there are.
    class_names: Name of each class; a single one: they have none.
    labels: Class of each image, int `[images]`; None: not known before they
      are read.
    crops: Examples that each image gives, as cached codes do.
  """

  name: str
  images: int
  class_names: Sequence[str]
  labels: np.ndarray | None = None
  crops: int = 1

  @classmethod
  def of(cls, source) -> 'Split':
    """The split that a `vim_tf.data.sources.Source` is."""
    return cls(
      f'{source.name} ({source.split})',
      source.num_examples,
      source.class_names,
      source.labels,
    )

  def __str__(self) -> str:
    text = f'{_count(self.images, "image")} of {self.name}'
    if self.crops > 1:
      text += f', {self.crops} crops of each'
    classes = len(self.class_names)
    if classes < 2:
      return f'{text}, without classes'
    text += f', in {classes} classes'
    if self.labels is None:
      return text
    counts = np.bincount(self.labels, minlength=classes)
    if classes > _MOST_CLASSES:
      return f'{text} of {counts.min():,} to {counts.max():,}'
    named = (f'{n} {count:,}' for n, count in zip(self.class_names, counts))
    return f'{text} ({", ".join(named)})'


def check_batch(batch_size: int, train: Split):
  """Refuses a batch that no epoch can fill.

  Raises:
    UserError: If the batch is larger than the data.
  """
  examples = train.images * train.crops
  if batch_size > examples:
    raise UserError(
      f'batch_size is {batch_size}, but {train.name} has only '
      f'{_count(examples, "example")} to train on: give a smaller batch, or '
      'more images.'
    )


def describe(
  title: str,
  run: RunConfig,
  train: Split,
  held_out: Split,
  parameters: Mapping[str, int],
  folder: str | os.PathLike,
  pictures: bool = True,
) -> list[str]:
  """Tells what a training of models with so many parameters is about to do."""
  epochs = run.num_steps * run.batch_size / (train.images * train.crops)
  sizes = (f'{name} {count:,}' for name, count in parameters.items())
  written = f'everything is written to {folder}'
  if pictures:
    written += f', pictures to its samples/ {_when(run.picture_every)}'
  lines = (
    f'trains on {train}',
    f'holds out {held_out}; measures '
    f'{_count(min(held_out.images, run.eval_examples), "image")} '
    f'{_when(run.eval_every)}',
    f'parameters: {", ".join(sizes)}',
    f'{run.num_steps:,} steps of {run.batch_size:,} are {epochs:,.3g} epochs; '
    'what they take is told after some of them',
    written,
  )
  return [f'{title}: {line}.' for line in lines]


def estimate(
  title: str,
  steps: int,
  run: RunConfig,
  seconds: float,
  strategy: tf.distribute.Strategy,
) -> str:
  """What the steps to come will take, in one line.

  Args:
    title: What the training is called.
    steps: How many there are.
    run: Its batch.
    seconds: Of all of them, as measured on the first ones.
    strategy: Where they run. A replica of a TPU is a chip, from v4 on.
  """
  text = (
    f'{title}: the {_count(steps, "step")} to come take '
    f'{datetime.timedelta(seconds=math.ceil(seconds))} at '
    f'{steps * run.batch_size / seconds:,.1f} images/s'
  )
  chips = strategy.num_replicas_in_sync
  if isinstance(strategy, tf.distribute.TPUStrategy):
    chip_hours = seconds / 3600 * chips
    text += f' on {_count(chips, "chip")}, {chip_hours:,.1f} chip-hours'
  return f'{text}; evaluations and checkpoints come on top.'


def _when(every: int) -> str:
  return f'every {every:,} steps' if every else 'at the end'


def _count(number: int, what: str) -> str:
  return f'{number:,} {what}{"s" if number != 1 else ""}'
