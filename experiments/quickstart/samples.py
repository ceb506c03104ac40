"""The samples that the quickstart shows: the first drawn, and the best of many.

The best are chosen by rejection as in the paper (Table 6): a classifier ranks
the candidates of a class. A classifier on another network, which neither VIM
nor the choice ever met, tells how many of either are recognised.
"""

from collections.abc import Iterator
import dataclasses
import pathlib

import numpy as np

from experiments.quickstart.budgets import Selection
from vim_tf.config import DataConfig
from vim_tf.data import images as images_lib
from vim_tf.data import openmoji, sources
from vim_tf.jobs import references, restore
from vim_tf.jobs import sample as sample_job
from vim_tf.metrics import classifiers, feature_networks
from vim_tf.vim import sampling

SAMPLING = sampling.SamplingConfig(
  temperature=1.0, top_p=0.95, guidance_scale=2.0
)
SEED = 0
SELECTS, SCORES = 'head:efficientnet_lite2', 'efficientnet_lite0'

_BATCH = 64  # Images that a network sees at once.


@dataclasses.dataclass(frozen=True)
class Drawn:
  """What was drawn.

  Attributes:
    first: The first samples, uint8 `[count, height, width, 3]` by group.
    best: The same number of the best, the best first.
    figures: How they were drawn, and which shares of either and of the real
      held-out images are recognised, every class counting alike.
  """

  first: dict[str, np.ndarray]
  best: dict[str, np.ndarray]
  figures: dict


def draw(
  tokenizer: restore.Restored,
  vim: restore.Restored,
  config: DataConfig,
  selection: Selection,
  folder: pathlib.Path,
) -> Drawn:
  """Draws images of every group twice, without and with selection.

  Args:
    tokenizer: Turns codes into images.
    vim: Draws the codes.
    config: The real images that the classifiers learn from.
    selection: How many, and how the best are chosen.
    folder: Where the classifiers' heads are kept.
  """
  data, by_group = (
    references.Data(c, selection.max_images, min(_BATCH, selection.max_images))
    for c in (config, dataclasses.replace(config, classes_of='group'))
  )
  ids, groups = _classes(data.source(config.train_split), selection.count)
  names = openmoji.CLASS_NAMES
  network = feature_networks.load(SCORES)
  classifier = references.load_classifier(SELECTS, vim, data, folder, network)
  sampler = sample_job.Sampler(tokenizer.model, vim.model)

  def keep(acceptance):
    return sampler.keep_best(
      ids,
      SEED,
      SAMPLING,
      acceptance=acceptance,
      classifier=classifier,
      batch_size=len(ids),
    )

  first, best = keep(1.0), keep(selection.acceptance)
  head = references.train_head(network, by_group, folder)

  def recognised(images):
    features, _ = feature_networks.run(network, _batches(images))
    found = classifiers.accuracy(head.probabilities(features), groups, names)
    return found['mean_class_accuracy']

  def by_class(images):
    return {name: images[groups == i] for i, name in enumerate(names)}

  return Drawn(
    by_class(first.images),
    by_class(best.images),
    {
      'sampling': {**vars(SAMPLING), 'seed': SEED},
      'acceptance': selection.acceptance,
      'recognised_selected': recognised(best.images),
      'recognised_samples': recognised(first.images),
      'recognised_held_out': head.protocol['held_out']['mean_class_accuracy'],
    },
  )


def _classes(source: sources.Source, count: int):
  """Subgroups to draw, of each group `count`, as frequent as in the data.

  Returns:
    Their ids, and the id of the group of each, `[groups * count]`.
  """
  group_of = np.array(
    [openmoji.CLASS_NAMES.index(x) for x in openmoji.subgroups().values()]
  )
  counts = np.bincount(source.labels, minlength=len(group_of))
  ids = np.concatenate(
    [
      references.spread(count, len(group_of), counts * (group_of == group))
      for group in range(len(openmoji.CLASS_NAMES))
    ]
  )
  return ids, group_of[ids]


def _batches(images: np.ndarray) -> Iterator[np.ndarray]:
  for i in range(0, len(images), _BATCH):
    yield images_lib.from_uint8(images[i : i + _BATCH])
