"""The validation part of the training images, and checks of their labels."""

from collections.abc import Sequence

import numpy as np

from vim_tf.config import UserError


def check_labels(labels: np.ndarray, class_names: Sequence[str], what: str):
  """Refuses labels with which no softmax layer can be trained.

  Args:
    labels: Class of each image, int `[num_images]`.
    class_names: Name of each class.
    what: What the images are, for the message.

  Raises:
    UserError: If there are no classes to tell apart, a label is outside of
      the classes, or a class has no images.
  """
  count = len(class_names)
  if count < 2:
    raise UserError(
      f'The {what} have no classes that a probe could tell apart.'
    )
  wrong = labels[(labels < 0) | (labels >= count)]
  if wrong.size:
    raise UserError(
      f'The {what} have the label {wrong[0]}, but must have labels from 0 to '
      f'{count - 1}, one for each of the {count} classes.'
    )
  missing = np.flatnonzero(np.bincount(labels, minlength=count) == 0)
  if missing.size:
    raise UserError(
      f'The {what} have no image of the class {class_names[missing[0]]!r}: a '
      'probe needs at least one of every class.'
    )


def draw_labelled(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
  """Draws a few images of each class, for probes with few labels.

  Args:
    labels: Class of each image, int `[num_images]`.
    count: Images of each class at most.
    seed: The draw is a function of it.

  Returns:
    Their indices in rising order, int `[num_drawn]`.
  """
  rng = np.random.default_rng([seed, 1])
  drawn = [
    rng.permutation(np.flatnonzero(labels == label))[:count]
    for label in np.unique(labels)
  ]
  return np.sort(np.concatenate(drawn))


def hold_out(
  labels: np.ndarray, groups: np.ndarray | None, share: float, seed: int
) -> np.ndarray:
  """Chooses a share of each class, without tearing groups apart.

  Args:
    labels: Class of each image, int `[num_images]`.
    groups: Which images belong together (the variants of one glyph), int
      `[num_images]`; None: every image stands for itself.
    share: Share of each class, in (0, 1); at least one group of each class
      stays behind.
    seed: The choice is a function of it.

  Returns:
    bool `[num_images]`: whether an image was chosen.
  """
  if groups is None:
    groups = np.arange(len(labels))
  rng = np.random.default_rng(seed)
  members: dict[int, dict[int, list[int]]] = {}
  of_group: dict[int, int] = {}
  for index, (label, group) in enumerate(zip(labels, groups)):
    home = of_group.setdefault(int(group), int(label))
    members.setdefault(home, {}).setdefault(int(group), []).append(index)
  chosen = np.zeros(len(labels), bool)
  for label in sorted(members):
    sets = list(members[label].values())
    quota = round(share * sum(map(len, sets)))
    for place in rng.permutation(len(sets))[1:]:  # One stays behind.
      if quota <= 0:
        break
      chosen[sets[place]] = True
      quota -= len(sets[place])
  return chosen
