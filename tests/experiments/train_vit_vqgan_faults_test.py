"""Tests of `train_vit_vqgan` when it is asked to stop, or given bad images."""

import pathlib
import signal
import tempfile

import tensorflow as tf

from tests import testing
from tests.experiments import running, tiny_runs
from tests.jobs import worker_processes
from vim_tf.training import checkpoints, preemption
from vim_tf.training import workdir as workdir_lib

_BATCH = 4
_STEPS = 10
_SECONDS = 900.0  # To wait at most, on a busy machine.
_FLAGS = (
  '--preset=tiny',
  f'--batch_size={_BATCH}',
  '--log_every=1',
  '--steps_per_loop=1',
  '--checkpoint_every=1000000',
  '--init_from_data=false',  # A first step of a kind of its own.
  '--set=model.encoder.num_blocks=1',
  '--set=model.decoder.num_blocks=1',
)


class FaultsTest(running.Refused, tf.test.TestCase):
  leaves_folder = True

  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(tempfile.mkdtemp(dir=self.get_temp_dir()))
    self.images = self.root / 'images'
    tiny_runs.make_images(self.images)
    self.binary = running.Binary('train_vit_vqgan')

  def _flags(self, name: str, *flags: str) -> tuple[str, ...]:
    data = f'--data=folder:{self.images}'
    return *_FLAGS, data, f'--workdir={self.root / name}', *flags

  def _train(self, name: str, *flags: str) -> running.Result:
    return self.binary.run(*self._flags(name, *flags))

  def _rows(self, name: str) -> list[dict]:
    rows = workdir_lib.read_metrics(self.root / name)
    return [row for row in rows if 'loss' in row]

  def test_sigterm(self):
    """It saves and ends with the status of 'start me again'."""
    workdir = self.root / 'run'
    run = worker_processes.start(
      'experiments.train_vit_vqgan', *self._flags('run', '--steps=1000000')
    )
    worker_processes.wait_for(
      lambda: workdir.exists() and self._rows('run'), [run], _SECONDS, 'a step'
    )
    run.popen.send_signal(signal.SIGTERM)
    self.assertEqual(run.wait(_SECONDS), preemption.EXIT_STATUS, run.text())
    (step,) = checkpoints.steps(workdir / 'checkpoints')
    self.assertIn(f'is saved at step {step} of 1000000', run.text())
    self.assertNotIn('Traceback', run.text())
    self.assertEqual(
      [row['step'] for row in self._rows('run')], list(range(1, step + 1))
    )

  def test_bad_image(self):
    """A damaged image is named, or left out and counted."""
    file = sorted((self.images / 'train').glob('*/*.png'))[2]
    file.write_bytes(file.read_bytes()[:60])
    steps = (f'--steps={_STEPS}', '--decay_end=10')
    result = self._train('stops', *steps)
    self._assert_refused(result, str(file))
    with testing.eagerly():
      result = self._train('skips', *steps, '--on_bad_example=skip')
    self.assertEqual(result.status, 0, result.error)
    self.assertIn(
      f'1 replica(s), here on CPU:0, batch {_BATCH} in all, {_BATCH} each',
      result.error,
    )
    images = len(list((self.images / 'train').glob('*/*.png')))
    self.assertEqual(
      sum(row['broken_examples'] for row in self._rows('skips')),
      _STEPS * _BATCH / images,  # Once an epoch.
    )


if __name__ == '__main__':
  tf.test.main()
