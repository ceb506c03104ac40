"""Classifiers: to select samples, and to tell whether samples are recognised.

- `head:NETWORK`: a softmax layer over the features of a network of
  `feature_networks`, trained on the data set at hand (`train_head`);
- `resnet101`: the paper's (Table 6), of Keras applications, for the 1,000
  classes of ImageNet; it is fetched from the net at its first use, or
  `resnet101:PATH` from the file of weights that is fetched there;
- `file:PATH`: a SavedModel or Keras model that takes images in [0, 1] and gives
  probabilities or logits of the model's classes, in its order.

A network that selects samples must not score them, too: `check_independent`.
"""

from collections.abc import Callable
import dataclasses
import json
import os
import zipfile

import numpy as np
import tensorflow as tf

from vim_tf import config as config_lib
from vim_tf import files
from vim_tf.metrics import feature_networks
from vim_tf.nn import replicas

HEAD = 'head:'
RESNET = 'resnet101'
# Inverse strengths of the L2 penalty that a head is chosen from.
_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
_FOLDS = 3
_RESNET_SIZE = 224


@dataclasses.dataclass(frozen=True)
class Classifier:
  """From images to the probabilities of classes.

  Attributes:
    name: What it was asked for as.
    source: Where its network's weights come from; see `FeatureNetwork.source`.
    function: From images `[batch, height, width, 3]` in [0, 1] to float32
      probabilities `[batch, num_classes]`.
    facts: What is known of it, for the protocol, such as a head's accuracy.
  """

  name: str
  source: str
  function: Callable[[tf.Tensor], np.ndarray]
  facts: dict = dataclasses.field(default_factory=dict)

  def __call__(self, images) -> np.ndarray:
    """Probabilities of a batch; see `function`."""
    return np.asarray(self.function(images), np.float32)

  def check_classes(self, num_classes: int, image_size: int):
    """Raises a `UserError` if it tells another number of classes apart."""
    found = self(tf.zeros([1, image_size, image_size, 3])).shape[1]
    if found != num_classes:
      raise config_lib.UserError(
        f'The classifier {self.name} tells {found} classes apart, but the '
        f'model has {num_classes}: choose one of the same classes.'
      )


def load(name: str) -> Classifier:
  """Loads a classifier that needs no training.

  Args:
    name: 'resnet101', 'resnet101:PATH' or 'file:PATH'.

  Raises:
    UserError: There is no such classifier, or it cannot be read or reached.
  """
  kind, _, path = name.partition(':')
  if kind == RESNET and (path or name == kind):
    return _load_resnet101(name, path)
  if name.startswith('file:'):
    network = feature_networks.load(name)

    def function(images):
      features, logits = network(images)
      return to_probabilities(features if logits is None else logits)

    return Classifier(name, network.source, function)
  raise config_lib.UserError(
    f'There is no classifier {name!r}: choose {HEAD}NETWORK, {RESNET}, '
    f'{RESNET}:PATH or file:PATH.'
  )


def check_independent(
  selecting: str, selecting_source: str, scoring: str, scoring_source: str
):
  """Refuses to select samples with the network that scores them.

  Args:
    selecting: Name of the network that selects.
    selecting_source: Its `source`, which holds the hash of a file.
    scoring: Name of the network that scores.
    scoring_source: Its `source`.

  Raises:
    UserError: If both are one network, whatever their names.
  """
  if selecting_source == scoring_source or selecting == scoring:
    raise config_lib.UserError(
      f'The network that selects samples ({selecting}) is the one that scores '
      f'them ({scoring}), so that the scores would say nothing: choose another '
      '--classifier or --network.'
    )


def to_probabilities(outputs) -> np.ndarray:
  """Probabilities as they are, and logits through a softmax.

  Args:
    outputs: `[batch, num_classes]`: logits, unless every row holds numbers of
      at least 0 that sum to 1.

  Returns:
    float32 probabilities of the same shape.
  """
  outputs = np.asarray(outputs, np.float32)
  if np.all(outputs >= 0) and np.allclose(outputs.sum(axis=1), 1, atol=1e-3):
    return outputs
  return tf.nn.softmax(outputs).numpy()


def _load_resnet101(name: str, path: str) -> Classifier:
  application = tf.keras.applications.resnet
  source = f'keras.applications:{RESNET}'
  try:
    model = application.ResNet101(weights=path or 'imagenet')
    if path:
      source = f'sha256:{feature_networks.content_hash(path)}'
  except Exception as error:  # Of the network, the file system, Keras or HDF5.
    raise config_lib.UserError(
      f'No weights of ResNet-101 can be read from {path}: it must be the .h5 '
      'file of Keras applications, for all 1,000 classes.'
      if path
      else 'The weights of ResNet-101 cannot be fetched (is there a network?): '
      f'choose --classifier={HEAD}efficientnet_lite2, {RESNET}:PATH or '
      'file:PATH.'
    ) from error

  @tf.function(reduce_retracing=True)
  def function(images):
    size = [_RESNET_SIZE, _RESNET_SIZE]
    images = tf.image.resize(images, size, 'bilinear')
    images = application.preprocess_input(images * 255.0)
    return model(images, training=False)

  return Classifier(
    name,
    source,
    replicas.OnReplicas(function, replicas.of(model), traced=False),
  )


@dataclasses.dataclass(frozen=True)
class Head:
  """A softmax layer over features, and what it was trained on.

  Attributes:
    kernel: float32 `[num_features, num_classes]`.
    bias: float32 `[num_classes]`; minus infinity where a class had no images.
    protocol: The network and the data, as JSON.
  """

  kernel: np.ndarray
  bias: np.ndarray
  protocol: dict

  def logits(self, features) -> np.ndarray:
    """float32 `[batch, num_classes]` of features `[batch, num_features]`."""
    return np.asarray(features, np.float32) @ self.kernel + self.bias

  def probabilities(self, features) -> np.ndarray:
    """Softmax of `logits`."""
    return tf.nn.softmax(self.logits(features)).numpy()

  def save(self, path: str | os.PathLike):
    """Writes an .npz file, whole or not at all."""
    with files.new_file(path) as new, open(new, 'wb') as file:
      np.savez(
        file,
        kernel=self.kernel,
        bias=self.bias,
        protocol=json.dumps(self.protocol),
      )

  @classmethod
  def load(cls, path: str | os.PathLike, expected: dict) -> 'Head | None':
    """Reads what `save` wrote, if its protocol says what is expected.

    Returns:
      The head; None if there is none, or not of this protocol.
    """
    try:
      with np.load(path, allow_pickle=False) as arrays:
        head = cls(
          arrays['kernel'], arrays['bias'], json.loads(str(arrays['protocol']))
        )
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
      return None
    same = all(head.protocol.get(k) == v for k, v in expected.items())
    return head if same else None


def train_head(
  features: np.ndarray, labels: np.ndarray, num_classes: int, protocol: dict
) -> Head:
  """Trains a class-balanced softmax layer on standardised features.

  The strength of its L2 penalty is chosen by cross-validation among the
  training images. The result does not depend on a seed.

  Args:
    features: `[images, num_features]`.
    labels: Class of each image, `[images]`.
    num_classes: Number of classes, with or without images.
    protocol: What the head shall say of itself; the strength is added.

  Raises:
    UserError: If the images are of fewer than two classes.
  """
  # Takes seconds, which runs that train no head can spare.
  from sklearn import linear_model, model_selection, pipeline, preprocessing

  known, counts = np.unique(labels, return_counts=True)
  if len(known) < 2:
    raise config_lib.UserError(
      f'A classifier needs images of at least 2 classes, but got {len(known)}.'
    )
  steps = pipeline.make_pipeline(
    preprocessing.StandardScaler(),
    linear_model.LogisticRegression(
      class_weight='balanced', C=_STRENGTHS[0], max_iter=2000
    ),
  )
  folds = min(_FOLDS, counts.min())
  if folds > 1:
    search = model_selection.GridSearchCV(
      steps,
      {'logisticregression__C': list(_STRENGTHS)},
      cv=model_selection.StratifiedKFold(folds, shuffle=True, random_state=0),
      scoring='balanced_accuracy',
    )
    steps = search.fit(features, labels).best_estimator_
  else:
    steps.fit(features, labels)
  scaler, regression = (step for _, step in steps.steps)
  coefficients, offsets = regression.coef_, regression.intercept_
  if len(known) == 2:  # Scikit-learn keeps one row: the second class's logit.
    coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
    offsets = np.concatenate([np.zeros_like(offsets), offsets])
  kernel = np.zeros([features.shape[1], num_classes], np.float32)
  bias = np.full([num_classes], -np.inf, np.float32)
  kernel[:, known] = (coefficients / scaler.scale_).T
  bias[known] = offsets - coefficients @ (scaler.mean_ / scaler.scale_)
  strength = {'inverse_l2_strength': float(regression.C)}
  return Head(kernel, bias, {**protocol, **strength})


def head_classifier(
  head: Head, network: feature_networks.FeatureNetwork
) -> Classifier:
  """A head together with the network that it stands on."""
  return Classifier(
    name=f'{HEAD}{network.name}',
    source=network.source,
    function=lambda images: head.probabilities(network(images)[0]),
    facts=head.protocol,
  )


def accuracy(
  probabilities: np.ndarray, labels: np.ndarray, class_names: list[str]
) -> dict:
  """Share of images whose likeliest class is theirs.

  Args:
    probabilities: `[images, num_classes]`.
    labels: `[images]`.
    class_names: Names of all classes.

  Returns:
    'accuracy' over all images, 'mean_class_accuracy' with every class counted
    equally, and of each class that has images 'by_class', 'images_by_class'.
  """
  right = np.argmax(probabilities, axis=1) == labels
  found = [i for i in range(len(class_names)) if np.any(labels == i)]
  by_class = {class_names[i]: float(right[labels == i].mean()) for i in found}
  return {
    'accuracy': float(right.mean()),
    'mean_class_accuracy': float(np.mean(list(by_class.values()))),
    'by_class': by_class,
    'images_by_class': {
      class_names[i]: int(np.sum(labels == i)) for i in found
    },
  }
