"""The order in which training examples are drawn: a function of the seed.

Nothing here has a state: every epoch's order is computed from (seed, epoch),
so that a run goes on from any step without a saved iterator.
"""

import numpy as np


def epoch_order(
  seed: int, epoch: int, num_examples: int
) -> tuple[np.ndarray, np.ndarray]:
  """One epoch that draws every example once.

  Args:
    seed: The run's seed, at least 0.
    epoch: Number of the epoch, from 0.
    num_examples: Examples of the source.

  Returns:
    Indices, int64 `[num_examples]`, and for each how often it was drawn in
    earlier epochs (here `epoch`), int64 `[num_examples]`.
  """
  order = _rng(seed, epoch).permutation(num_examples)
  return order, np.full_like(order, epoch)


def balanced_order(
  seed: int, epoch: int, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """One epoch that draws every class equally often (up to one).

  The classes take turns over all epochs, and each runs through permutations
  of its own examples, so that small classes come round more often.

  Args:
    seed: The run's seed, at least 0.
    epoch: Number of the epoch, from 0.
    labels: Class of each example, int `[num_examples]`.

  Returns:
    Indices, int64 `[num_examples]`, and for each how often it was drawn
    before, int64 `[num_examples]`: what stands for the epoch in its
    augmentation, lest an example be drawn twice alike.
  """
  num_examples = len(labels)
  present = np.unique(labels)
  turns = np.arange(epoch * num_examples, (epoch + 1) * num_examples)
  which, draws = turns % len(present), turns // len(present)
  indices = np.empty(num_examples, np.int64)
  rounds = np.empty(num_examples, np.int64)
  for place, label in enumerate(present):
    members = np.flatnonzero(labels == label)
    slots = np.flatnonzero(which == place)
    rounds[slots], positions = np.divmod(draws[slots], len(members))
    for number in np.unique(rounds[slots]):
      here = rounds[slots] == number
      shuffled = _rng(seed, label, number).permutation(members)
      indices[slots[here]] = shuffled[positions[here]]
  mixed = _rng(seed, epoch).permutation(num_examples)
  return indices[mixed], rounds[mixed]


def _rng(*key: int) -> np.random.Generator:
  return np.random.default_rng([int(part) for part in key])
