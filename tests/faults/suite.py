"""Tries every fault many times and prints what was lost: nothing.

  ./bazelw run //tests:fault_suite -- --kills=20 --times=20

Runs of every stage are killed with SIGKILL at random moments (while they
start, train or save), started again each time, and held against a run that was
never killed, bit by bit. Then come the other faults, the last of which is that
one of two workers is killed, unless they are to be tried 0 times. It takes from
minutes to more than an hour (`--stages=probe --times=0` or `--stages=
--times=20` does a part); it ends with status 1 if anything was lost.
"""

import pathlib
import random
import sys
import tempfile

from absl import app, flags, logging

from tests.faults import forks, kills, lost_worker, single, stages

KILLS = flags.DEFINE_integer('kills', 20, 'Kills of each stage.')
TIMES = flags.DEFINE_integer('times', 20, 'Times that other faults are tried.')
SEED = flags.DEFINE_integer('seed', 0, 'Chooses moments and places.')
STAGES = flags.DEFINE_list(
  'stages',
  ['stage1', 'stage2', 'probe', 'quickstart'],
  'Stages whose runs are killed.',
)


def main(argv):
  """Tries everything, prints a table."""
  del argv
  logging.set_verbosity(logging.ERROR)
  rng = random.Random(SEED.value)
  lost = 0
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    if STAGES.value:
      forks.finish(lambda: stages.prepare(root), root / 'prepare.log')
    known = stages.all_stages(root)
    for name in STAGES.value:
      outcome = kills.torment(known[name], root, KILLS.value, rng)
      what = ', '.join(f'{n} {moment}' for moment, n in outcome.kills.items())
      _tell(
        f'{name} killed {sum(outcome.kills.values())} times ({what}) in '
        f'{outcome.runs} run(s); {outcome.redone} steps computed again',
        outcome.lost,
      )
      lost += len(outcome.lost)
  faults = (*single.FAULTS, lost_worker.lost_worker) if TIMES.value else ()
  for fault in faults:  # From here on TensorFlow computes here, too.
    found = single.try_often(fault, TIMES.value, rng)
    problems = [f'{text} ({n} times)' for text, n in found.items() if text]
    name = fault.__name__.replace('_', ' ')
    _tell(f'{name}, {sum(found.values())} times', problems)
    lost += len(problems)
  sys.exit(1 if lost else 0)


def _tell(what: str, problems: list[str]):
  print(f'{what}. Lost: {"; ".join(problems) or "nothing"}.', flush=True)


if __name__ == '__main__':
  app.run(main)
