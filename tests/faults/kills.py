"""Kills runs at random moments, starts them again, and compares the ends."""

import dataclasses
import itertools
import pathlib
import random
import time

from tests.faults import forks, stages
from tests.jobs import comparing
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
    runs: Over how many runs, one after the other, the kills fell.
  """

  kills: dict[str, int]
  redone: int
  lost: list[str]
  runs: int = 0


def torment(
  stage: stages.Stage, root: pathlib.Path, kills: int, rng: random.Random
) -> Outcome:
  """Kills a run so many times, lets it end, and compares.

  A run that comes to its end before that is followed by another one.

  Args:
    stage: What to run.
    root: Where its runs go, the killed ones and the other.
    kills: Times to kill it with SIGKILL.
    rng: Chooses the moments.
  """
  log = root / f'{stage.name}.log'
  whole = root / f'{stage.name}-whole'
  started = time.monotonic()
  forks.finish(lambda: stage.train(whole), log)
  seconds = time.monotonic() - started
  outcome = Outcome(dict.fromkeys(MOMENTS, 0), 0, [])
  for number in itertools.count():
    killed = root / f'{stage.name}-killed-{number}'
    while (left := kills - sum(outcome.kills.values())) > 0:
      if not _kill(stage, killed, log, seconds, rng, outcome):
        break
    forks.finish(lambda path=killed: stage.train(path), log)
    outcome.runs += 1
    outcome.lost += _differences(stage, killed, whole)
    if not left:
      return outcome


def _kill(stage, path, log, seconds, rng, outcome) -> bool:
  """Starts a run and kills it; False if it came to its end before."""
  moment = rng.choice(MOMENTS)
  run = forks.Fork(lambda: stage.train(path), log)
  _await(moment, run, stage, path, seconds, rng)
  before = _steps_told(stage, path)
  run.kill()
  status = run.wait()
  if status > 0:
    raise RuntimeError(f'ended with {status}:\n{log.read_text()[-3000:]}')
  if not status:
    return False
  outcome.kills[moment] += 1
  outcome.redone += before - _steps_saved(stage, path)
  return True


def _await(moment, run, stage, path, seconds, rng):
  """Waits for the moment at which a run shall be killed."""
  if moment == 'starting':
    time.sleep(rng.uniform(0.0, 0.3 * seconds))
    return
  if moment == 'saving':

    def writing():
      return any(
        any((path / name / 'checkpoints').glob('*.writing-*'))
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
