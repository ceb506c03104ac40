"""Kills runs at random moments, starts them again, and compares the ends."""

import dataclasses
import pathlib
import random
import time

from tests.experiments import comparing
from tests.faults import forks, stages
from vim_tf.training import checkpoints

_PATIENCE = 600.0  # Seconds until a run is killed whatever it does.
MOMENTS = ('starting', 'training', 'saving')


@dataclasses.dataclass
class Outcome:
  """What kills did to a stage.

  Attributes:
    kills: How many hit a running process, by what it was doing.
    redone: Steps that were computed again in all.
    lost: What differs from a run that was never killed; nothing if empty.
  """

  kills: dict[str, int]
  redone: int
  lost: list[str]


def torment(
  stage: stages.Stage, root: pathlib.Path, kills: int, rng: random.Random
) -> Outcome:
  """Kills a run so many times, lets it end, and compares.

  Args:
    stage: What to run.
    root: Where its two runs go, the killed one and the other.
    kills: Times to kill it with SIGKILL.
    rng: Chooses the moments.
  """
  log = root / f'{stage.name}.log'
  whole, killed = root / f'{stage.name}-whole', root / f'{stage.name}-killed'
  started = time.monotonic()
  forks.finish(lambda: stage.train(whole), log)
  seconds = time.monotonic() - started
  counts, redone = dict.fromkeys(MOMENTS, 0), 0
  while sum(counts.values()) < kills:
    moment = rng.choice(MOMENTS)
    run = forks.Fork(lambda: stage.train(killed), log)
    _await(moment, run, stage, killed, seconds, rng)
    before = _steps_told(stage, killed)
    run.kill()
    if run.wait() >= 0:
      break  # It came to its end before, and there is no more to kill.
    counts[moment] += 1
    redone += before - _steps_saved(stage, killed)
  forks.finish(lambda: stage.train(killed), log)
  return Outcome(counts, redone, _differences(stage, killed, whole))


def _await(moment, run, stage, path, seconds, rng):
  """Waits for the moment at which a run shall be killed."""
  if moment == 'starting':
    time.sleep(rng.uniform(0.0, 0.3 * seconds))
    return
  if moment == 'saving':

    def writing():
      return any(
        any((path / name / 'checkpoints').glob('writing-*'))
        for name in stage.workdirs
      )

    # The first few checkpoints are let pass, lest no run gets on.
    for _ in range(rng.randint(1, 3)):
      run.wait_until(writing, _PATIENCE)
      run.wait_until(lambda: not writing(), 0.002)
    return
  first = _steps_told(stage, path)
  goal = first + rng.randint(2, 8)
  # Not as often as it can: rows are dear to read, for the run to be killed too.
  run.wait_until(
    lambda: _steps_told(stage, path) >= goal, _PATIENCE, every=0.02
  )
  time.sleep(rng.uniform(0.0, 0.01 * seconds))


def _steps_told(stage, path) -> int:
  """Steps of the rows that were logged, over all parts of a run."""
  return sum(
    max(
      (row['step'] for row in comparing.timeless_rows(path / name)), default=0
    )
    for name in stage.workdirs
  )


def _steps_saved(stage, path) -> int:
  return sum(
    max(checkpoints.steps(path / name / 'checkpoints'), default=0)
    for name in stage.workdirs
  )


def _differences(stage, found, expected) -> list[str]:
  """Names of tensors and rows that are not the same, to the bit."""
  wrong = []
  for name in stage.workdirs:
    ours = comparing.read_checkpoint(found / name)
    theirs = comparing.read_checkpoint(expected / name)
    wrong += [
      f'{name}:{key}'
      for key in ours.keys() | theirs.keys()
      if key not in ours
      or key not in theirs
      or ours[key].tobytes() != theirs[key].tobytes()
    ]
    if comparing.timeless_rows(found / name) != comparing.timeless_rows(
      expected / name
    ):
      wrong.append(f'{name}:metrics.jsonl')
  return wrong
