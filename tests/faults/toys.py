"""A run of linear regression through the real loop: cheap to start often."""

import contextlib
import pathlib
from unittest import mock

import numpy as np
import tensorflow as tf

from vim_tf.config import STOP, Faults, OptimizerConfig, RunConfig
from vim_tf.training import loop, optimizers
from vim_tf.training import workdir as workdir_lib

STEPS = 12
RUN = RunConfig(
  num_steps=STEPS,
  batch_size=4,
  steps_per_loop=2,
  log_every=2,
  eval_every=0,
  picture_every=0,
  checkpoint_every=2,
  keep_checkpoints=2,
)


class Toy:
  """Linear regression whose data are not a number in some batches.

  Args:
    padding: Floats that only make its checkpoints larger.
  """

  def __init__(self, padding: int = 1):
    self.part = tf.Module()
    self.part.kernel = tf.Variable([[0.5], [-0.5], [0.0]])
    self.part.padding = tf.Variable(tf.zeros([padding]))
    self.optimizer = optimizers.Optimizer(
      OptimizerConfig(learning_rate=0.1), [self.part.kernel]
    )

  def step_kind(self, step: int) -> str:
    del step
    return 'plain'

  def replica_step(self, kind, batch, step):
    del kind, step
    with tf.GradientTape() as tape:
      error = (batch['x'] @ self.part.kernel)[:, 0] - batch['y']
      loss = tf.reduce_mean(error**2)
    self.optimizer.apply(tape.gradient(loss, [self.part.kernel]))
    return {'loss': loss, 'first_x': batch['x'][0, 0]}

  def checkpoint_contents(self):
    return {'part': self.part, 'optimizer': self.optimizer}

  def state(self) -> list[np.ndarray]:
    """The weights and all of the optimizer's variables."""
    return [v.numpy() for v in (self.part.kernel, *self.optimizer.variables)]


def batch_values(number: int) -> np.ndarray:
  """What batch `number` holds, float32 `[4, 3]`."""
  return np.random.default_rng(number).normal(size=[4, 3]).astype(np.float32)


def train(
  path: pathlib.Path,
  bad: frozenset[int] = frozenset(),
  faults: Faults = STOP,
  padding: int = 1,
) -> Toy:
  """Trains a toy in `path`, or goes on.

  Args:
    path: The working directory.
    bad: Numbers of the batches that hold something that is not a number.
    faults: What to do about that.
    padding: Floats that make its checkpoints larger.
  """

  def batches(first, context):
    del context

    def make(number):
      x = batch_values(int(number))
      y = x.sum(axis=1) + (np.nan if int(number) in bad else 0.0)
      return x, y.astype(np.float32)

    def shaped(number):
      x, y = tf.numpy_function(make, [number], [tf.float32, tf.float32])
      return {'x': tf.ensure_shape(x, [4, 3]), 'y': tf.ensure_shape(y, [4])}

    return tf.data.Dataset.range(first, 10**6).map(shaped)

  toy = Toy(padding)
  with contextlib.closing(
    workdir_lib.Workdir(str(path), 'toy', RUN)
  ) as workdir:
    loop.train(
      toy,
      RUN,
      workdir,
      batches,
      tf.distribute.OneDeviceStrategy('/cpu:0'),
      dict,
      dict,
      'toy',
      faults,
    )
  return toy


def jumping_clock(rng):
  """While it is entered, the time of day jumps by days, both ways."""
  return mock.patch('time.time', lambda: 1.7e9 + rng.uniform(-1e6, 1e6))
