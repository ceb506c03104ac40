"""At which steps the host has something to do, and how long a chunk may be."""

from vim_tf.config import RunConfig
from vim_tf.training import summaries

FIRST_STEPS = 10
"""Steps after which there is something to read."""
_CHUNK_SECONDS = 10.0
"""Longest chunk: a preemption notice of 30 seconds is to hold a save, too."""


def chunk_end(step: int, run: RunConfig, most: int) -> int:
  """The next step, at most `most` on, at which the host has something to do."""
  lengths = (
    run.steps_per_loop,
    run.log_every,
    run.eval_every,
    run.picture_every,
    run.checkpoint_every,
  )
  ends = [(step // every + 1) * every for every in lengths if every]
  if step < FIRST_STEPS:
    ends.append(FIRST_STEPS)
  return min(run.num_steps, step + most, *ends)


def steps_within(bar: summaries.Bar, run: RunConfig) -> int:
  """Steps of the next chunk at most, for it not to last too long."""
  rates = bar.rates()
  if not rates:  # Nothing but compilations so far.
    return FIRST_STEPS
  within = int(_CHUNK_SECONDS / max(rates.values()))
  return min(run.steps_per_loop, max(1, within))


def has_row(step: int, run: RunConfig) -> bool:
  """Whether the metrics have a row of a step: soon after the start, too."""
  early = step == FIRST_STEPS < run.log_every
  return early or due(step, run.log_every, run.num_steps)


def due(step: int, every: int, last: int) -> bool:
  """Whether a step is a multiple of `every` (0: none is), or the last."""
  return step == last or bool(every and step % every == 0)
