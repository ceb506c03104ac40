"""Rejection sampling: a classifier keeps the best share of the candidates.

The paper reports it beside plain sampling (Table 6) and leaves the procedure
to VQGAN's (Esser et al., 2021): of each class more images are drawn than are
wanted, a classifier's probability of that class ranks them, and the best are
kept. The acceptance rate is the share that is kept; 1 is plain sampling.

The network that selects must never be the one that scores the samples.
"""

import collections
from collections.abc import Callable
import dataclasses
import math

from etils import epy
import numpy as np

from vim_tf.config import ConfigError

with epy.lazy_imports():  # Flags check the acceptance without TensorFlow.
  from vim_tf.nn import replicas

Draw = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From class ids and seeds `[batch]` to codes and images of them."""

Score = Callable[[np.ndarray], np.ndarray]
"""From images to class probabilities `[batch, num_classes]`."""


@dataclasses.dataclass(frozen=True)
class Kept:
  """The candidates that were kept, one for each wanted image.

  Attributes:
    seeds: `[count]`; drawn alone with its class, a seed gives the same image.
    codes: int32 `[count, num_codes]`.
    images: As they were drawn, `[count, height, width, 3]`.
    probabilities: Of the wanted class, float32 `[count]`; NaN where nothing
      was ranked, because the acceptance rate is 1.
    num_candidates: How many images were drawn in all.
  """

  seeds: np.ndarray
  codes: np.ndarray
  images: np.ndarray
  probabilities: np.ndarray
  num_candidates: int


def check_acceptance(rate: float):
  """Raises a `ConfigError` unless it is a share that can be kept."""
  if not 0 < rate <= 1:
    raise ConfigError(f'acceptance is {rate}, but must be in (0, 1].')


def num_candidates(wanted: int, acceptance: float) -> int:
  """How many images are drawn so that `wanted` are the accepted share."""
  # 3 / 0.3 is a little above 10.
  return math.ceil(wanted / acceptance * (1 - 1e-9))


def candidates(
  class_ids: np.ndarray, *, seed: int, acceptance: float
) -> tuple[np.ndarray, np.ndarray]:
  """Which images are drawn, round after round of the wanted ones.

  The i-th wanted image is drawn with the seed `seed + i`, in the next round
  with `seed + count + i`, and so on until its class has enough. So the
  candidates of a rate are among those of any lower one, and the first round is
  what plain sampling would have drawn.

  Args:
    class_ids: Class of each wanted image, `[count]`.
    seed: Seed of the first image.
    acceptance: Share of the candidates that is kept, in (0, 1].

  Returns:
    Class ids and seeds of the candidates, by rising seed.

  Raises:
    ConfigError: If the acceptance rate is out of range.
  """
  check_acceptance(acceptance)
  class_ids = np.asarray(class_ids)
  ids, seeds = [], []
  for class_id in np.unique(class_ids):
    places = np.flatnonzero(class_ids == class_id)
    found = np.arange(num_candidates(len(places), acceptance))
    rounds, which = np.divmod(found, len(places))
    ids.append(np.full([len(found)], class_id))
    seeds.append(seed + rounds * len(class_ids) + places[which])
  ids, seeds = np.concatenate(ids), np.concatenate(seeds)
  order = np.argsort(seeds)
  return ids[order], seeds[order]


def sample(
  draw: Draw,
  score: Score | None,
  class_ids: np.ndarray,
  *,
  seed: int,
  acceptance: float,
  batch_size: int,
) -> Kept:
  """Draws candidates and keeps the best of each class.

  What is drawn depends on the seed alone, and not on the batch size or the
  classifier; see `candidates`. Of equal probabilities the earlier candidate is
  kept. No more than the best so far and one batch are held in memory.

  Args:
    draw: Draws a batch; gets batches of one size, see `replicas.parts`.
    score: Classifies a batch; unused, and may be None, at acceptance 1.
    class_ids: Class of each wanted image, `[count]`.
    seed: Seed of the first candidate.
    acceptance: Share of the candidates that is kept, in (0, 1].
    batch_size: Candidates drawn at once, at most.

  Returns:
    The kept ones: at the places of a class its best, the best first; at
    acceptance 1 as they were drawn.

  Raises:
    ConfigError: If the acceptance rate is out of range, or the classifier
      does not know a class.
  """
  class_ids = np.asarray(class_ids)
  ids, seeds = candidates(class_ids, seed=seed, acceptance=acceptance)
  ranked = acceptance < 1
  wanted = collections.Counter(class_ids.tolist())
  best = collections.defaultdict(list)
  for part, own in replicas.parts(len(ids), batch_size):
    codes, images = draw(ids[part], seeds[part])
    part = part[:own]
    probabilities = np.full([own], np.nan, np.float32)
    if ranked:
      probabilities = _of_class(score(images)[:own], ids[part])
    for row in zip(part, probabilities, codes, images):
      best[int(ids[row[0]])].append(row)
    if ranked:
      for class_id in set(ids[part].tolist()):
        rows = sorted(best[class_id], key=lambda row: (-row[1], row[0]))
        best[class_id] = rows[: wanted[class_id]]
  rows = [best[class_id].pop(0) for class_id in class_ids.tolist()]
  places, probabilities, codes, images = zip(*rows)
  return Kept(
    seeds=seeds[np.array(places)],
    codes=np.stack(codes),
    images=np.stack(images),
    probabilities=np.array(probabilities, np.float32),
    num_candidates=len(ids),
  )


def _of_class(probabilities: np.ndarray, ids: np.ndarray) -> np.ndarray:
  """Each image's probability of its class, `[batch]`."""
  classes = probabilities.shape[1]
  if ids.max() >= classes:
    raise ConfigError(
      f'The classifier tells {classes} classes apart, but class {ids.max()} '
      "is wanted: choose one of the model's classes."
    )
  found = np.asarray(probabilities, np.float32)[np.arange(len(ids)), ids]
  return np.where(np.isnan(found), -np.inf, found)
