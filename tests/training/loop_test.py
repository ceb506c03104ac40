"""Tests of the loop with a toy: intervals, kinds, exact resume, replicas."""

import collections
import dataclasses
import os
import pathlib
import re
import signal
import time
from unittest import mock

import numpy as np
import tensorflow as tf

from tests import testing
from vim_tf.config import OptimizerConfig, RunConfig, UserError
from vim_tf.training import (
  batches,
  checkpoints,
  intervals,
  loop,
  optimizers,
  preemption,
  summaries,
)
from vim_tf.training import workdir as workdir_lib

_RUN = RunConfig(
  num_steps=10,
  batch_size=4,
  steps_per_loop=4,
  log_every=2,
  eval_every=5,
  picture_every=0,
  checkpoint_every=2,
  keep_checkpoints=2,
)
_OPTIMIZER = OptimizerConfig(
  learning_rate=0.1,
  warmup_steps=3,
  decay='cosine',
  decay_end=10,
  clip_norm=1.0,
  ema_decay=0.9,
)


def _batches(first, context=None):
  """Batch i is a function of i alone; one input pipeline gives all of it."""
  del context

  def make(step):
    seed = tf.stack([step, 7])
    x = tf.random.stateless_normal([_RUN.batch_size, 3], seed)
    return {'x': x, 'y': tf.reduce_sum(x, axis=-1) + 1.0}

  return tf.data.Dataset.range(first, 10**6).map(make)


def _timeless(rows):
  return [
    {k: v for k, v in row.items() if k != 'images_per_second'} for row in rows
  ]


class _Toy:
  """Linear regression that takes note of what the loop asks for.

  Args:
    nan_at: Step at which one of its terms is not a number.
  """

  def __init__(self, nan_at=-1):
    self._nan_at = nan_at
    self.part = tf.Module()
    self.part.kernel = tf.Variable([[0.5], [-0.5], [0.0]], name='kernel')
    self.part.bias = tf.Variable([0.0], name='bias')
    self.averages = [tf.Variable(v) for v in self._variables()]
    self.optimizer = optimizers.Optimizer(
      _OPTIMIZER, self._variables(), self.averages
    )
    # Shared between replicas as an optimizer's state is.
    self.seen = tf.Variable(
      0,
      dtype=tf.int64,
      aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )
    self.traced = collections.Counter()

  def _variables(self):
    return [self.part.kernel, self.part.bias]

  def step_kind(self, step):
    return 'third' if step % 3 == 0 else 'plain'

  def replica_step(self, kind, batch, step):
    self.traced[kind] += 1
    replicas = tf.distribute.get_replica_context().num_replicas_in_sync
    with tf.GradientTape() as tape:
      error = (batch['x'] @ self.part.kernel + self.part.bias)[:, 0]
      error -= batch['y']
      loss = tf.reduce_sum(error**2) / _RUN.batch_size
    gradients = tape.gradient(loss, self._variables())
    figures = self.optimizer.apply(gradients)
    self.seen.assign_add(step)
    wrong = tf.equal(step, self._nan_at)
    share = 1.0 / replicas
    return {
      'loss': loss,
      'penalty': tf.where(wrong, np.nan, 0.0) * share,
      'is_third': tf.constant(share * (kind == 'third')),
      'step_modulo_3': tf.cast(step % 3, tf.float32) * share,
      **{name: value * share for name, value in figures.items()},
    }

  def checkpoint_contents(self):
    return {
      'part': self.part,
      'averages': tf.train.Checkpoint(a=self.averages),
      'optimizer': self.optimizer,
      'seen': self.seen,
    }

  def updates(self):
    return int(self.optimizer.iterations.numpy())

  def state(self):
    """Everything that a checkpoint holds, by its name there."""
    path = tf.train.Checkpoint(**self.checkpoint_contents()).write(
      str(pathlib.Path(tf.compat.v1.test.get_temp_dir()) / f'state-{id(self)}')
    )
    reader = tf.train.load_checkpoint(path)
    return {
      name: reader.get_tensor(name)
      for name in reader.get_variable_to_shape_map()
      if not name.startswith('_CHECKPOINTABLE')
    }


class LoopTest(tf.test.TestCase):
  def _path(self):
    return str(self.create_tempdir().full_path)

  def _train(self, toy, path, run=_RUN, strategy=None, evaluate=None):
    """Trains; returns the rows, and the steps of evaluations and pictures."""
    strategy = strategy or tf.distribute.OneDeviceStrategy('/cpu:0')
    drawn = []

    def draw():
      drawn.append(toy.updates())
      return {'picture': np.zeros([4, 4, 3], np.uint8)}

    workdir = workdir_lib.Workdir(path, 'toy', run)
    loop.train(
      toy,
      run,
      workdir,
      _batches,
      strategy,
      evaluate or (lambda: {'at': toy.updates()}),
      draw,
    )
    return workdir.rows(), drawn

  def test_everything_happens_at_its_interval(self):
    run = dataclasses.replace(_RUN, log_every=3, picture_every=4)
    path, toy = self._path(), _Toy()
    rows, drawn = self._train(toy, path, run)
    logged = [row for row in rows if 'loss' in row]
    evaluated = [row for row in rows if 'eval/at' in row]
    self.assertEqual([row['step'] for row in logged], [3, 6, 9, 10])
    # The weights are those of the step under which the row stands.
    self.assertEqual([row['step'] for row in evaluated], [5, 10])
    self.assertEqual([row['eval/at'] for row in evaluated], [5, 10])
    self.assertEqual(drawn, [4, 8, 10])
    self.assertEqual(
      sorted(p.name for p in (pathlib.Path(path) / 'samples').iterdir()),
      [f'picture-{step:09d}.png' for step in drawn],
    )
    folder = pathlib.Path(path) / 'checkpoints'
    self.assertEqual(checkpoints.steps(folder), [8, 10])
    self.assertNotEmpty(list((pathlib.Path(path) / 'events').iterdir()))
    for row in logged:
      self.assertGreater(row['images_per_second'], 0.0)

  def test_every_step_once_in_order_and_of_its_kind(self):
    toy = _Toy()
    rows, _ = self._train(
      toy, self._path(), dataclasses.replace(_RUN, log_every=1)
    )
    rows = [row for row in rows if 'loss' in row]
    self.assertEqual(int(toy.seen), sum(range(10)))
    self.assertEqual(toy.updates(), 10)
    for step, row in enumerate(rows):
      self.assertEqual(row['step'], step + 1)
      self.assertEqual(row['step_modulo_3'], step % 3)
      self.assertEqual(row['is_third'], float(step % 3 == 0))
    self.assertLess(rows[-1]['loss'], rows[0]['loss'])

  def test_each_kind_is_compiled_once(self):
    toy = _Toy()
    run = dataclasses.replace(_RUN, num_steps=23, steps_per_loop=7)
    self._train(toy, self._path(), run)
    self.assertEqual(toy.traced, {'plain': 1, 'third': 1})

  def test_rows_are_means_since_the_row_before(self):
    one, _ = self._train(
      _Toy(), self._path(), dataclasses.replace(_RUN, log_every=1)
    )
    losses = [row['loss'] for row in one if 'loss' in row]
    five, _ = self._train(
      _Toy(), self._path(), dataclasses.replace(_RUN, log_every=5)
    )
    self.assertAllClose(
      [row['loss'] for row in five if 'loss' in row],
      [np.mean(losses[:5]), np.mean(losses[5:])],
    )

  def test_a_killed_run_ends_as_if_it_had_not_been(self):
    # A row that a checkpoint falls into is the mean of both its parts.
    run = dataclasses.replace(_RUN, log_every=3)
    whole = _Toy()
    expected, _ = self._train(whole, self._path(), run)
    path, killed = self._path(), _Toy()

    def kill():
      raise KeyboardInterrupt

    with self.assertRaises(KeyboardInterrupt):
      self._train(killed, path, run, evaluate=kill)  # At step 5, saved at 4.
    self.assertEqual(killed.updates(), 5)
    resumed = _Toy()
    rows, _ = self._train(resumed, path, run)
    found, state = resumed.state(), whole.state()
    self.assertGreater(len(state), 8)  # Moments and averages, too.
    self.assertEqual(found.keys(), state.keys())
    for name, value in state.items():
      self.assertAllEqual(found[name], value, name)

    self.assertEqual(_timeless(rows), _timeless(expected))

  def test_asked_to_stop_it_saves_at_the_end_of_the_chunk(self):
    path, toy = self._path(), _Toy()
    run = dataclasses.replace(_RUN, checkpoint_every=10)
    before = signal.getsignal(signal.SIGTERM)
    # Tests may be run where it is ignored.
    ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)
    self.addCleanup(signal.signal, signal.SIGINT, ctrl_c)

    asked = set()

    def stop():  # Called at steps 5, which no checkpoint was due at, and 10.
      step = toy.updates()
      if step not in asked:
        asked.add(step)
        os.kill(os.getpid(), signal.SIGTERM if step == 5 else signal.SIGINT)
        time.sleep(0)  # Where Python sees to signals, at the latest.
      return {'at': step}

    for step, name in ((5, 'SIGTERM'), (10, 'Ctrl-C')):
      with self.assertRaisesRegex(
        preemption.Preempted, f'{name}.* step {step} of 10: .*same'
      ):
        self._train(toy, path, run, evaluate=stop)
      self.assertEqual(
        checkpoints.steps(pathlib.Path(path) / 'checkpoints')[-1], step
      )
    self.assertIs(signal.getsignal(signal.SIGTERM), before)
    resumed, whole = _Toy(), _Toy()
    # It evaluates what it was too much in a hurry for, and is done.
    rows, _ = self._train(resumed, path, run)
    expected, _ = self._train(whole, self._path(), run)
    self.assertEqual(_timeless(rows), _timeless(expected))
    self.assertEqual(resumed.state().keys(), whole.state().keys())
    for name, value in whole.state().items():
      self.assertAllEqual(resumed.state()[name], value, name)

  def test_a_long_run_says_something_soon(self):
    run = dataclasses.replace(
      _RUN, num_steps=30, steps_per_loop=100, log_every=100, eval_every=0
    )
    run = dataclasses.replace(run, checkpoint_every=100)
    with self.assertLogs('absl', 'INFO') as logs:
      rows, _ = self._train(_Toy(), self._path(), run)
    steps = [row['step'] for row in rows if 'loss' in row]
    self.assertEqual(steps, [10, 30])
    told = [line for line in logs.output if 'steps to come' in line]
    self.assertLen(told, 1)
    self.assertRegex(
      told[0], r'the 20 steps to come take 0:00:\d\d at .* images/s;'
    )

  def test_checkpoints_by_time(self):
    for minutes, expected in ((0.0, [10]), (1e-9, [8, 10])):
      run = dataclasses.replace(
        _RUN, checkpoint_every=100, checkpoint_minutes=minutes
      )
      path = self._path()
      self._train(_Toy(), path, run)
      folder = pathlib.Path(path) / 'checkpoints'
      self.assertEqual(checkpoints.steps(folder), expected)

  def test_a_chunk_is_no_longer_than_a_preemption_notice(self):
    run = dataclasses.replace(_RUN, num_steps=1000, steps_per_loop=100)
    run = dataclasses.replace(run, log_every=100, eval_every=100)
    run = dataclasses.replace(run, checkpoint_every=100)
    bar = summaries.Bar('slow', 0, 1000, kind=lambda step: '')
    self.assertEqual(intervals.steps_within(bar, run), 10)
    bar.timed(0, 1, 500.0)  # It was compiled.
    self.assertEqual(intervals.steps_within(bar, run), 10)
    for seconds, steps in ((4.0, 2), (30.0, 1)):
      bar.timed(1, 1, seconds)
      self.assertEqual(intervals.steps_within(bar, run), steps)
    fast = summaries.Bar('fast', 0, 1000, kind=lambda step: '')
    for _ in range(2):
      fast.timed(0, 10, 1.0)
    self.assertEqual(intervals.steps_within(fast, run), 100)
    self.assertEqual(intervals.chunk_end(0, run, 100), 10)
    self.assertEqual(intervals.chunk_end(10, run, 2), 12)
    self.assertEqual(intervals.chunk_end(12, run, 100), 100)

  def test_more_steps_and_other_intervals_go_on_as_if_always_so(self):
    """A finished run, and one whose intervals change in the middle."""
    whole, toy, path = _Toy(), _Toy(), self._path()
    self._train(whole, self._path())
    first = dataclasses.replace(
      _RUN, num_steps=4, steps_per_loop=1, log_every=3, checkpoint_every=3
    )
    before, _ = self._train(toy, path, first)
    resumed = _Toy()
    rows, _ = self._train(resumed, path)
    self.assertEqual(rows[: len(before)], before)
    self.assertEqual(
      [row['step'] for row in rows if 'loss' in row], [3, 4, 6, 8, 10]
    )
    for name, value in whole.state().items():
      self.assertAllEqual(resumed.state()[name], value, name)

  def test_a_damaged_checkpoint_costs_its_steps_alone(self):
    whole = _Toy()
    self._train(whole, self._path())
    path = self._path()
    self._train(_Toy(), path, dataclasses.replace(_RUN, num_steps=10))
    folder = pathlib.Path(path) / 'checkpoints' / 'step-000000010'
    (folder / 'checkpoint.index').write_bytes(b'')
    resumed = _Toy()
    self._train(resumed, path)
    for name, value in whole.state().items():
      self.assertAllEqual(resumed.state()[name], value, name)
    self.assertEqual(
      checkpoints.Checkpoints(
        folder.parent, _Toy().checkpoint_contents()
      ).restore(),
      10,
    )

  def test_a_finished_run_does_nothing(self):
    path = self._path()
    expected, _ = self._train(_Toy(), path)
    toy = _Toy()
    with self.assertLogs('absl', 'INFO') as logs:
      rows, drawn = self._train(toy, path)
    self.assertIn('all 10 steps are done', ' '.join(logs.output))
    self.assertEqual(rows, expected)
    self.assertEmpty(drawn)
    self.assertEmpty(toy.traced)

  def test_stops_when_a_term_is_not_finite(self):
    path = self._path()
    try:
      self._train(_Toy(nan_at=7), path)
      self.fail('it went on')
    except loop.NonFiniteError as error:
      caught = error
    # Though the error is kept with its frames, as a notebook does.
    workdir_lib.Workdir(path, 'toy', _RUN).close()
    self.assertIsInstance(caught, UserError)
    message = str(caught)
    self.assertNotIn('\n', message)
    self.assertStartsWith(message, 'penalty became nan at step 7:')
    self.assertEqual(
      checkpoints.steps(pathlib.Path(path) / 'checkpoints'), [4, 6]
    )
    rows = workdir_lib.read_metrics(path)
    self.assertEqual(max(row['step'] for row in rows), 6)

  def test_the_time_left_knows_of_kinds_to_come(self):
    class Late(_Toy):
      def step_kind(self, step):
        return 'early' if step < 6 else 'late'

    with (
      mock.patch.object(summaries, '_SECONDS_BETWEEN_LINES', -1.0),
      self.assertLogs('absl', 'INFO') as logs,
    ):
      self._train(Late(), self._path())
    lines = [line for line in logs.output if line.endswith(' left')]
    # Calls that compile tell nothing: the first one, and the late steps' first.
    found = [re.search(r', (\?|over)? ?\S* left$', line)[1] for line in lines]
    self.assertEqual(found, ['?', *['over'] * 4, None])

  def test_one_cpu_has_an_iterator_of_its_own_thread(self):
    # One that fetches to a device has a thread, whose end a run waits for.
    left_out = batches.Skips(pathlib.Path(self._path()), writes=False)
    for strategy, own in (
      (tf.distribute.OneDeviceStrategy('/cpu:0'), True),
      (tf.distribute.MirroredStrategy(['cpu:0', 'cpu:1']), False),
    ):
      iterator = batches.iterator(
        strategy, lambda first, _: _batches(first), left_out, 0
      )
      self.assertEqual(isinstance(iterator, tf.data.Iterator), own)

  def test_two_replicas_equal_one(self):
    one = _Toy()
    expected, _ = self._train(one, self._path())
    strategy = tf.distribute.MirroredStrategy(['cpu:0', 'cpu:1'])
    with strategy.scope():
      two = _Toy()
    rows, _ = self._train(two, self._path(), strategy=strategy)
    for name, value in one.state().items():
      self.assertAllClose(two.state()[name], value, 1e-5, 1e-6, name)
    for row, other in zip(rows, expected, strict=True):
      row.pop('images_per_second', None)
      other.pop('images_per_second', None)
      self.assertAllClose(row, other, 1e-4, 1e-5)

  def assertStartsWith(self, text, start):
    self.assertEqual(text[: len(start)], start)


if __name__ == '__main__':
  testing.main()
