"""One of two workers is killed: the other ends, and both go on."""

import pathlib
import random
import time

import tensorflow as tf

from tests.experiments import tiny_runs
from tests.jobs import comparing, worker_processes
from vim_tf import presets
from vim_tf.config import replace, to_json
from vim_tf.jobs import train_tokenizer
from vim_tf.training import checkpoints, preemption
from vim_tf.training import strategy as strategy_lib

_STEPS = 40
_SECONDS = 600.0  # To wait at most, on a busy machine.
_RUN = {
  'run.num_steps': str(_STEPS),
  'run.batch_size': '4',
  'run.log_every': '1',
  'run.checkpoint_every': '4',
  'run.steps_per_loop': '1',
  'run.eval_every': '0',
  'run.picture_every': '0',
}


def lost_worker(root: pathlib.Path, rng: random.Random) -> str:
  """Either worker of a run is killed at a random moment; both start again.

  Returns:
    What was lost, against the run of one worker; '' for nothing.
  """
  images = root / 'images'
  tiny_runs.make_images(images)
  config = replace(
    presets.stage1('tiny'), {**_RUN, 'data.name': f'folder:{images}'}
  )
  (root / 'config.json').write_text(to_json(config))
  killed = rng.randrange(2)
  workers = _start(root)
  moment = rng.randrange(2, _STEPS)  # Once they have found each other.
  worker_processes.wait_for(
    lambda: _saved(root) >= moment // 2, workers, _SECONDS, 'a checkpoint'
  )
  time.sleep(0.5 * rng.random())
  workers[killed].popen.kill()
  left = workers[1 - killed]
  status = left.wait(_SECONDS)
  if status == 0:
    return 'it was killed too late'
  if status != preemption.EXIT_STATUS or 'Traceback' in left.text():
    return f'the worker that was left ended with {status}'
  for worker in _start(root):
    if worker.wait(_SECONDS) != 0:
      return f'it did not go on: {worker.text()[-200:]}'
  train_tokenizer.train(
    config, str(root / 'one'), strategy_lib.make('one_device')
  )
  try:
    comparing.assert_close(tf.test.TestCase(), root / 'two', root / 'one')
  except AssertionError as error:
    return str(error).splitlines()[0]
  return ''


def _saved(root: pathlib.Path) -> int:
  """The newest step that is saved; 0 before there is one."""
  return max(checkpoints.steps(root / 'two' / 'checkpoints'), default=0)


def _start(root: pathlib.Path) -> list[worker_processes.Process]:
  return worker_processes.start_workers(
    2,
    'experiments.train_vit_vqgan',
    f'--config={root / "config.json"}',
    f'--workdir={root / "two"}',
  )
