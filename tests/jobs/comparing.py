"""Compares what two runs left: their metrics, and every saved tensor."""

import collections
import os
import pathlib

import numpy as np
import tensorflow as tf

from vim_tf.training import checkpoints
from vim_tf.training import strategy as strategy_lib
from vim_tf.training import workdir as workdir_lib

# Of a block's queries, keys and values together, in the tiny presets. No vector
# but their biases has it.
_QKV_WIDTH = 3 * 32
# What the runs to compare train, beside a stage's own settings.
SHORT_RUN = {
  'run.num_steps': '5',
  'run.batch_size': '16',
  'run.log_every': '1',
  'run.checkpoint_every': '5',
  'run.eval_every': '0',
  'run.picture_every': '0',
  'optimizer.ema_decay': '0.5',
}


def strategy(replicas: int) -> tf.distribute.Strategy:
  """Of as many replicas on devices of the CPU."""
  if replicas == 1:
    return strategy_lib.make('one_device')
  return tf.distribute.MirroredStrategy([f'cpu:{i}' for i in range(replicas)])


def read_checkpoint(
  workdir: str | os.PathLike, step: int | None = None
) -> dict[str, np.ndarray]:
  """Every tensor of a run's checkpoint, by default of the newest one."""
  folder = pathlib.Path(workdir) / 'checkpoints'
  step = checkpoints.steps(folder)[-1] if step is None else step
  reader = tf.train.load_checkpoint(
    str(folder / f'step-{step:09d}' / 'checkpoint')
  )
  return {
    name: reader.get_tensor(name)
    for name in reader.get_variable_to_shape_map()
    if not name.startswith('_CHECKPOINTABLE')
  }


def timeless_rows(workdir: str | os.PathLike) -> list[dict]:
  """A run's metrics without what time has a part in."""
  return [
    {key: value for key, value in row.items() if key != 'images_per_second'}
    for row in workdir_lib.read_metrics(workdir)
  ]


def assert_identical(test_case, found: os.PathLike, expected: os.PathLike):
  """Two runs ended with the same bits and told the same figures."""
  ours, theirs = read_checkpoint(found), read_checkpoint(expected)
  test_case.assertEqual(ours.keys(), theirs.keys())
  for name, value in theirs.items():
    test_case.assertEqual(ours[name].tobytes(), value.tobytes(), name)
  test_case.assertEqual(timeless_rows(found), timeless_rows(expected))


def assert_close(
  test_case,
  found: os.PathLike,
  expected: os.PathLike,
  tolerance: float = 1e-5,
) -> str:
  """Two runs ended with nearly the same weights, moments and figures.

  Left out are the biases of attention's keys, which add the same to all logits
  of a softmax: the loss does not depend on them, and Adam makes whole steps of
  the rounding errors that are their gradient.

  Args:
    test_case: The test that fails.
    found: A run's working directory.
    expected: Another one's.
    tolerance: Largest difference, absolute or relative.

  Returns:
    The largest differences that were found, in words.
  """
  ours, theirs = read_checkpoint(found), read_checkpoint(expected)
  test_case.assertEqual(ours.keys(), theirs.keys())
  weights = 0.0
  for name, value in theirs.items():
    ours_here = ours[name]
    if value.shape == (_QKV_WIDTH,):
      keys = slice(_QKV_WIDTH // 3, 2 * _QKV_WIDTH // 3)
      value, ours_here = np.delete(value, keys), np.delete(ours_here, keys)
    test_case.assertAllClose(ours_here, value, tolerance, tolerance, name)
    if name.startswith('model/'):
      weights = max(weights, np.abs(ours_here - value).max())
  figures = collections.Counter()
  rows = timeless_rows(expected)
  for one, other in zip(timeless_rows(found), rows, strict=True):
    test_case.assertEqual(one.keys(), other.keys())
    for key, value in other.items():
      far = abs(one[key] - value) / max(1.0, abs(value))
      test_case.assertLessEqual(far, tolerance, f'{key}: {one} {other}')
      figures[key] = max(figures[key], far)
  ((key, most),) = figures.most_common(1)
  return (
    f'largest difference of loss {figures["loss"]:.1e}, of all figures '
    f'{most:.1e} ({key}), of weights {weights:.1e}'
  )
