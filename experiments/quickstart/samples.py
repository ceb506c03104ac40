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
    first: The first samples, uint8 `[count, height, width, 3]` by class name.
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
  """Draws images of every class twice, without and with selection.

  Args:
    tokenizer: Turns codes into images.
    vim: Draws the codes.
    config: The real images that the classifiers learn from.
    selection: How many, and how the best are chosen.
    folder: Where the classifiers' heads are kept.
  """
  names = vim.record['class_names']
  ids = np.repeat(np.arange(len(names)), selection.count)
  data = references.Data(
    config, selection.max_images, min(_BATCH, selection.max_images)
  )
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
  head = references.train_head(network, data, folder)

  def recognised(images):
    features, _ = feature_networks.run(network, _batches(images))
    found = classifiers.accuracy(head.probabilities(features), ids, names)
    return found['mean_class_accuracy']

  def by_class(images):
    return {name: images[ids == i] for i, name in enumerate(names)}

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


def _batches(images: np.ndarray) -> Iterator[np.ndarray]:
  for i in range(0, len(images), _BATCH):
    yield images_lib.from_uint8(images[i : i + _BATCH])
