"""What samples are compared with: real images in a network's features.

An evaluator measures how far samples are from real images, and whether a
classifier that the model never met recognises them. That classifier is a head
on the same network's features, trained on the real training images.
"""

import dataclasses
import functools
import pathlib

from absl import logging
import numpy as np

from vim_tf.config import DataConfig, UserError
from vim_tf.data import images as images_lib
from vim_tf.data import pipeline, sources
from vim_tf.jobs import restore
from vim_tf.metrics import classifiers, feature_networks, generation
from vim_tf.nn import replicas

CROP = 'center'
CLASSIFIER = 'head:efficientnet_lite2'
"""Classifier that selects samples, unless another one is named."""


def heads_folder(workdir: str) -> pathlib.Path:
  """Where a run keeps the heads that were trained on its images."""
  return pathlib.Path(workdir) / 'classifiers'


@dataclasses.dataclass(frozen=True)
class RealImages:
  """Images of one split, as a network sees them.

  Attributes:
    source: The split.
    features: `[images, num_features]`.
    logits: `[images, network's classes]`, or None.
    labels: Class of each, `[images]`.
  """

  source: sources.Source
  features: np.ndarray
  logits: np.ndarray | None
  labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Data:
  """Real images, and how many of them.

  Attributes:
    config: Name, splits and size.
    max_images: Images of a split at most.
    batch_size: Images at once; changes no figure.
    on_bad_example: At an image that cannot be read 'stop', or 'skip' it.
  """

  config: DataConfig
  max_images: int
  batch_size: int
  on_bad_example: str = 'stop'

  def source(self, split: str) -> sources.Source:
    """A split, loaded once."""
    if split not in self._loaded:
      self._loaded[split] = sources.load(
        self.config, split, self.on_bad_example
      )
    return self._loaded[split]

  @functools.cached_property
  def _loaded(self) -> dict[str, sources.Source]:
    return {}

  def read(
    self, network: feature_networks.FeatureNetwork, split: str, through=None
  ) -> RealImages:
    """Features of a split.

    Args:
      network: Gives the features.
      split: Name of the split.
      through: If given, maps each batch of images first, such as through the
        tokenizer.
    """
    source = self.source(split)
    batches = pipeline.evaluation_batches(
      source,
      self.config,
      batch_size=self.batch_size,
      max_examples=self.max_images,
    )
    logging.info('%s: features of %s images.', network.name, split)
    features, logits, labels = [], [], []
    for batch in batches:
      keep = batch['mask'].numpy() > 0
      images = batch['images'] if through is None else through(batch['images'])
      x, y = network(images)
      features.append(x[keep])
      labels.append(batch['labels'].numpy()[keep])
      if y is not None:
        logits.append(y[keep])
    if not features:
      raise UserError(f'{source.name} {split} holds no images.')
    return RealImages(
      source,
      np.concatenate(features),
      np.concatenate(logits) if logits else None,
      np.concatenate(labels),
    )


def train_head(
  network: feature_networks.FeatureNetwork,
  data: Data,
  folder: pathlib.Path | None,
  train: RealImages | None = None,
) -> classifiers.Head:
  """A head on a network's features for the data at hand, or the kept one.

  Args:
    network: Gives the features.
    data: The images: it learns from the training split, and its accuracy on
      the held-out one is noted in its protocol.
    folder: Where it is kept; None: nowhere.
    train: The training images' features, if they are there already.
  """
  config = data.config
  source = data.source(config.train_split)
  expected = {
    'network': network.name,
    'network_source': network.source,
    'data': source.name,
    'train_split': config.train_split,
    'held_out_split': config.eval_split,
    'data_fingerprint': source.fingerprint,
    'image_size': config.image_size,
    'max_images': data.max_images,
  }
  path = folder and folder / f'{network.name}.npz'
  head = path and classifiers.Head.load(path, expected)
  if head is not None:
    return head
  train = train or data.read(network, config.train_split)
  names = list(source.class_names)
  logging.info('A head on %s is being trained.', network.name)
  head = classifiers.train_head(
    train.features, train.labels, len(names), expected
  )
  held_out = data.read(network, config.eval_split)
  probabilities = head.probabilities(held_out.features)
  measured = classifiers.accuracy(probabilities, held_out.labels, names)
  facts = {'train_images': len(train.labels), 'held_out': measured}
  head = dataclasses.replace(head, protocol={**head.protocol, **facts})
  logging.info(
    'It recognises %.1f%% of %d held-out images.',
    100 * measured['accuracy'],
    len(held_out.labels),
  )
  if path:
    try:
      folder.mkdir(exist_ok=True)
      head.save(path)
    except OSError as error:
      logging.warning('It is not kept: %s: %s.', path, error.strerror)
  return head


def load_classifier(
  name: str,
  vim: restore.Restored,
  data: Data,
  folder: pathlib.Path | None,
  scoring: feature_networks.FeatureNetwork | None = None,
) -> classifiers.Classifier:
  """The classifier that selects samples of a model.

  Args:
    name: 'head:NETWORK', 'resnet101', 'resnet101:PATH' or 'file:PATH'.
    vim: The model whose classes it must know.
    data: What a head is trained on.
    folder: Where a head is kept; None: nowhere.
    scoring: The network that will score what is selected, if one will.

  Raises:
    UserError: There is no such classifier, it cannot be loaded, it does not
      know the model's classes, or it is the network that scores.
  """

  def check(source):
    if scoring is not None:
      classifiers.check_independent(name, source, scoring.name, scoring.source)

  check_conditional(vim)
  classes = vim.config.model.num_classes
  with replicas.of(vim.model).scope():
    if name.startswith(classifiers.HEAD):
      network = feature_networks.load(name.removeprefix(classifiers.HEAD))
      check(network.source)  # Before a head is trained for nothing.
      head = train_head(network, data, folder)
      classifier = classifiers.head_classifier(head, network)
    else:
      classifier = classifiers.load(name)
      check(classifier.source)
  classifier.check_classes(classes, data.config.image_size)
  return classifier


def check_conditional(vim: restore.Restored):
  """Raises a `UserError` if a model has no classes to select by."""
  if not vim.config.model.num_classes:
    raise UserError(
      '--acceptance is below 1, but the model has no classes that a '
      'classifier could rank its samples by.'
    )


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """Measures samples.

  Attributes:
    network: The network that scores.
    reference: Real images in its features.
    class_names: Names of the data's classes.
    head: Recognises classes in its features; None: nothing of classes.
  """

  network: feature_networks.FeatureNetwork
  reference: generation.Reference
  class_names: list[str]
  head: classifiers.Head | None

  def score(self, images: np.ndarray, labels: np.ndarray | None) -> dict:
    """Scores generated images.

    Args:
      images: uint8 `[count, height, width, 3]`.
      labels: The class that each should be of; None: of none.

    Returns:
      See `score_features`.
    """
    features, logits = feature_networks.run(
      self.network,
      (
        images_lib.from_uint8(images[i : i + 32])
        for i in range(0, len(images), 32)
      ),
    )
    return self.score_features(features, logits, labels)

  def score_features(self, features, logits, labels) -> dict:
    """Scores images by their features.

    Returns:
      'gfd_', 'gkd_', 'gkd_error_', 'gprecision_' and 'grecall_<network>':
      distances from the reference; 'is_<network>', the classifier score over
      the network's own classes, if it has logits; 'class_score_<network>',
      the same over the classes of the data, if there is a head;
      'recognition' as `classifiers.accuracy` gives it, if there are labels,
      too.
    """
    name = self.network.name
    scores = generation.compare(self.reference.features, features, name)
    # Distances of samples must not be taken for those of reconstructions.
    figures = {f'g{key}': value for key, value in scores.items()}
    if logits is not None:
      figures[f'is_{name}'] = generation.classifier_score(logits)
    if self.head is None:
      return figures
    figures[f'class_score_{name}'] = generation.classifier_score(
      self.head.logits(features)
    )
    if labels is not None:
      figures['recognition'] = classifiers.accuracy(
        self.head.probabilities(features), labels, self.class_names
      )
    return figures


def load_evaluator(
  network_name: str,
  data: Data,
  *,
  reference: str = '',
  save_reference: str = '',
  reference_split: str = '',
  folder: pathlib.Path | None = None,
) -> tuple[Evaluator, np.ndarray | None]:
  """Makes or reads what samples are held against.

  Args:
    network_name: Name of the network that scores.
    data: The real images.
    reference: File of `generation.Reference` to read; '': it is made anew.
    save_reference: File to write a new one to; '': none.
    reference_split: Split that the reference is made of; '': training.
    folder: Where the recognising head is kept; None: nowhere.

  Returns:
    The evaluator, and how often each class is in the split of the reference;
    None for the latter if that is streamed.

  Raises:
    UserError: If the network or the reference cannot be read, or the
      reference is of another network.
  """
  config = data.config
  split = reference_split or config.train_split
  network = feature_networks.load(network_name)
  source = data.source(split)
  real = None
  if reference:
    found = generation.Reference.load(
      reference,
      network=network.name,
      source=network.source,
      crop=f'{CROP} {config.image_size}',
    )
  else:
    real = data.read(network, split)
    found = generation.Reference(
      features=real.features,
      network=network.name,
      source=network.source,
      dataset=f'{source.name} {source.version}'.strip(),
      split=split,
      crop=f'{CROP} {config.image_size}',
    )
    if save_reference:
      try:
        found.save(save_reference)
      except OSError as error:
        raise UserError(
          f'Cannot write --save_reference={save_reference}: {error.strerror}.'
        ) from error
  head = None
  if source.conditional:
    train = real if split == config.train_split else None
    head = train_head(network, data, folder, train)
  counts = None
  if source.labels is not None:
    counts = np.bincount(source.labels, minlength=len(source.class_names))
  return Evaluator(network, found, list(source.class_names), head), counts


def spread(count: int, num_classes: int, counts: np.ndarray | None):
  """Classes of samples, each as often as among the real images.

  Args:
    count: How many samples.
    num_classes: Classes of the model; 0: it has none.
    counts: Images of each class; None: all classes alike.

  Returns:
    Class ids `[count]` in rising order; shares are rounded by the largest
    remainders.
  """
  if not num_classes:
    return np.zeros([count], np.int64)
  counts = np.ones([num_classes]) if counts is None else counts
  shares = count * counts / counts.sum()
  whole = np.floor(shares).astype(np.int64)
  rest = np.argsort(whole - shares, kind='stable')[: count - whole.sum()]
  whole[rest] += 1
  return np.repeat(np.arange(num_classes), whole)
