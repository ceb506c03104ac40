"""Tests of two worker processes on loopback: they equal one; when one ends."""

import pathlib
import signal

from absl.testing import parameterized
import tensorflow as tf

from tests import testing
from tests.experiments import tiny_runs
from tests.jobs import comparing, worker_processes
from vim_tf import presets
from vim_tf.config import ConfigError, replace, to_json
from vim_tf.jobs import train_tokenizer, train_vim
from vim_tf.training import checkpoints, preemption
from vim_tf.training import strategy as strategy_lib
from vim_tf.training import workdir as workdir_lib

_SECONDS = 900.0  # To wait at most, on a busy machine.


class MultiWorkerTest(parameterized.TestCase, tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root = testing.new_folder('workers')
    runs = tiny_runs.shared()
    cls.images, cls.tokenizer = runs.images, runs.tokenizer

  def _config(self, stage: int, **changes):
    changes = {
      **comparing.SHORT_RUN,
      'data.name': f'folder:{self.images}',
      **changes,
    }
    if stage == 1:
      changes |= {
        'codebook.revival_interval': '2',
        'codebook.revival_steps': '100',
      }
      return replace(presets.stage1('tiny'), changes)
    changes |= {'tokenizer': str(self.tokenizer), 'model.num_classes': '2'}
    return replace(presets.stage2('tiny'), changes)

  def _start(self, stage: int, config, workdir: pathlib.Path):
    file = workdir.with_suffix('.json')
    file.write_text(to_json(config))
    arguments = [f'--config={file}', f'--workdir={workdir}']
    if stage == 2:
      arguments.append(f'--tokenizer={self.tokenizer}')
    return worker_processes.start_workers(
      2,
      f'experiments.train_{"vit_vqgan" if stage == 1 else "vim"}',
      *arguments,
    )

  @parameterized.parameters(1, 2)
  def test_two_workers_equal_one(self, stage):
    config = self._config(stage)
    workers = self._start(stage, config, self.root / f'two-{stage}')
    expected = self.root / f'one-{stage}'
    train = train_tokenizer.train if stage == 1 else train_vim.train
    train(config, str(expected), strategy_lib.make('one_device'))
    for worker in workers:
      self.assertEqual(worker.wait(_SECONDS), 0, worker.text())
      self.assertRegex(
        worker.text(),
        r'2 replica\(s\), here on CPU:0, batch 16 in all, 8 each',
      )
    told = comparing.assert_close(self, self.root / f'two-{stage}', expected)
    print(f'stage {stage}, 2 workers: {told}')

  def test_a_worker_is_lost_or_asked_to_stop(self):
    config = self._config(
      1, **{'run.num_steps': '1000000', 'run.steps_per_loop': '1'}
    )
    workdir = self.root / 'endless'

    def saved():
      return max(checkpoints.steps(workdir / 'checkpoints'), default=0)

    workers = self._start(1, config, workdir)
    worker_processes.wait_for(saved, workers, _SECONDS, 'a checkpoint')
    workers[1].popen.kill()
    self.assertEqual(workers[0].wait(_SECONDS), preemption.EXIT_STATUS)
    self.assertIn('another worker has ended', workers[0].text())
    self.assertNotIn('Traceback', workers[0].text())

    before = saved()
    workers = self._start(1, config, workdir)
    worker_processes.wait_for(
      lambda: saved() > before, workers, _SECONDS, 'a later checkpoint'
    )
    workers[1].popen.send_signal(signal.SIGTERM)
    for worker in workers:
      self.assertEqual(
        worker.wait(_SECONDS), preemption.EXIT_STATUS, worker.text()
      )
      self.assertIn(f'is saved at step {saved()} of', worker.text())
      self.assertIn(f'from step {before} to', worker.text())
    rows = workdir_lib.read_metrics(workdir)
    steps = [row['step'] for row in rows if 'loss' in row]
    self.assertEqual(steps, list(range(1, saved() + 1)))

  def test_no_cluster(self):
    with self.assertRaisesRegex(ConfigError, 'needs the environment variable'):
      strategy_lib.make('multi_worker')


if __name__ == '__main__':
  tf.test.main()
