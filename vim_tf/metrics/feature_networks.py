"""Networks whose features images are compared by, under their names.

A score says nothing without the network that it rests on, so every network has
a `name` that goes into the names of its scores and a `source` that goes into
the protocol:

- `efficientnet_lite0` (the default): comes with a package, needs no download;
- `efficientnet_lite1` and `efficientnet_lite2`: its larger sisters, likewise,
  for what must not see the scoring network, such as rejection sampling;
- `inception`: the Inception of the papers' FID and IS as TF-GAN publishes it,
  from TF Hub, or `inception:PATH` from a folder that it was unpacked to;
- `file:PATH`: a SavedModel or Keras model that takes images in [0, 1] and gives
  features, or (features, logits), or a dict of 'features' and 'logits'.
"""

from collections.abc import Callable
import dataclasses
import functools
import hashlib
import os
import re

import numpy as np
import tensorflow as tf

from vim_tf import compat
from vim_tf import config as config_lib
from vim_tf import files as files_lib
from vim_tf.config import first_line
from vim_tf.metrics import efficientnet_lite
from vim_tf.nn import replicas

DEFAULT = config_lib.FEATURE_NETWORK

_EFFICIENTNETS = tuple(
  f'efficientnet_lite{variant}'
  for variant in range(len(efficientnet_lite.VARIANTS))
)


@dataclasses.dataclass(frozen=True)
class FeatureNetwork:
  """A frozen network that images are measured with.

  It runs on the replicas of the strategy in whose scope it is loaded.

  Attributes:
    name: Goes into the names of scores: letters, digits and '_'.
    source: Where its weights come from, with a hash where there is a file.
    function: From images `[batch, height, width, 3]` in [0, 1] to features
      `[batch, num_features]` and logits `[batch, num_classes]` or None.
  """

  name: str
  source: str
  function: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor | None]]
  strategy: tf.distribute.Strategy = dataclasses.field(
    default_factory=tf.distribute.get_strategy
  )

  def __call__(self, images) -> tuple[np.ndarray, np.ndarray | None]:
    """Features and logits of a batch, float32; see `function`."""
    return self._on_replicas(images)

  @functools.cached_property
  def _on_replicas(self) -> replicas.OnReplicas:
    return replicas.OnReplicas(self._compute, self.strategy, traced=False)

  def _compute(self, images):
    features, logits = self.function(tf.cast(images, tf.float32))
    features = tf.cast(features, tf.float32)
    if features.shape.rank == 4 and features.shape[1:3] == [1, 1]:
      features = features[:, 0, 0]
    if features.shape.rank != 2:
      raise config_lib.UserError(
        f'The features of {self.name} have the shape {features.shape}, but '
        'must be [batch, num_features].'
      )
    return features, None if logits is None else tf.cast(logits, tf.float32)


def load(name: str = DEFAULT) -> FeatureNetwork:
  """Loads a network by name.

  Args:
    name: 'efficientnet_lite0' (or 1, 2), 'inception', 'inception:PATH' or
      'file:PATH'.

  Returns:
    The network.

  Raises:
    ValueError: There is no such network, or it cannot be read or reached.
  """
  kind, _, path = name.partition(':')
  if name in _EFFICIENTNETS:
    return _load_efficientnet_lite(name, tf.distribute.get_strategy())
  if kind == 'inception' and (path or name == kind):
    return _load_inception(path)
  if kind == 'file' and path:
    return _load_file(path)
  raise config_lib.UserError(
    f'There is no feature network {name!r}: choose '
    f'{", ".join(_EFFICIENTNETS)}, inception, inception:PATH or file:PATH.'
  )


def run(
  network: FeatureNetwork, batches
) -> tuple[np.ndarray, np.ndarray | None]:
  """Runs a network over a set of images.

  Args:
    network: What `load` gives.
    batches: Iterable of images `[batch, height, width, 3]` in [0, 1].

  Returns:
    float32 features `[images, num_features]` and logits `[images, num_classes]`
    or None.

  Raises:
    ValueError: There are no images.
  """
  features, logits = [], []
  for images in batches:
    x, y = network(images)
    features.append(x)
    if y is not None:
      logits.append(y)
  if not features:
    raise config_lib.UserError(
      f'{network.name} got no images: the evaluation needs at least one.'
    )
  return np.concatenate(features), np.concatenate(logits) if logits else None


@functools.cache  # To build and to trace one takes seconds.
def _load_efficientnet_lite(
  name: str, strategy: tf.distribute.Strategy
) -> FeatureNetwork:
  del strategy  # Whose variables they are: a key of the cache.
  variant = _EFFICIENTNETS.index(name)
  model = efficientnet_lite.build(variant=variant)

  @tf.function(reduce_retracing=True)
  def function(images):
    images = efficientnet_lite.preprocess(images, variant)
    return model(images, training=False)

  return FeatureNetwork(
    name=name,
    source=f'sha256:{efficientnet_lite.VARIANTS[variant].sha256}',
    function=function,
  )


def _load_inception(path: str) -> FeatureNetwork:
  import tensorflow_hub as hub  # Takes seconds, and is needed only here.

  tfgan_eval = compat.tfgan('eval')

  source = path or tfgan_eval.INCEPTION_TFHUB
  try:
    module = hub.load(source)
  except Exception as error:  # Of the network, the archive or the file system.
    raise config_lib.UserError(
      f'Inception cannot be loaded from {source} ({first_line(error)}): '
      f'choose inception:PATH with a folder that holds it, or {DEFAULT}.'
    ) from None
  size = tfgan_eval.INCEPTION_DEFAULT_IMAGE_SIZE

  def function(images):
    # As TF-GAN prepares images: bilinear without antialiasing, in [-1, 1].
    images = tf.image.resize(images, [size, size], 'bilinear')
    outputs = module(2.0 * images - 1.0)
    return (
      outputs[tfgan_eval.INCEPTION_FINAL_POOL],
      outputs[tfgan_eval.INCEPTION_OUTPUT],
    )

  return FeatureNetwork(
    name='inception',
    source=f'sha256:{content_hash(path)}' if path else source,
    function=function,
  )


def _load_file(path: str) -> FeatureNetwork:
  try:
    if os.path.isdir(path) and not os.path.exists(
      os.path.join(path, 'keras_metadata.pb')
    ):
      model = tf.saved_model.load(path)
      model = model if callable(model) else model.signatures['serving_default']
    else:
      model = tf.keras.models.load_model(path, compile=False)
  except Exception as error:  # Of any kind, from Keras, HDF5 or zip.
    raise config_lib.UserError(
      f'No feature network can be loaded from {path} ({first_line(error)}): '
      'it must be a SavedModel or a Keras model.'
    ) from None

  def function(images):
    outputs = model(images)
    if isinstance(outputs, dict):
      if 'features' not in outputs:
        raise config_lib.UserError(
          f'The network at {path} gives {", ".join(sorted(outputs))}, but '
          "must give 'features'."
        )
      return outputs['features'], outputs.get('logits')
    if isinstance(outputs, (list, tuple)):
      return outputs[0], outputs[1] if len(outputs) > 1 else None
    return outputs, None

  stem = os.path.splitext(os.path.basename(os.path.normpath(path)))[0]
  return FeatureNetwork(
    name='file_' + re.sub(r'\W+', '_', stem),
    source=f'sha256:{content_hash(path)}',
    function=function,
  )


def content_hash(path: str) -> str:
  """Hash of a file, or of the names and contents in a folder."""
  digest = hashlib.sha256()
  files = [path]
  if os.path.isdir(path):
    files = sorted(
      os.path.join(folder, name)
      for folder, _, names in os.walk(path)
      for name in names
    )
  for file in files:
    digest.update(os.path.relpath(file, path).encode() + b'\0')
    digest.update(bytes.fromhex(files_lib.sha256(file)))
  return digest.hexdigest()
