"""Scores of generated or reconstructed images over a network's features.

Names of scores carry the network, such as `fd_efficientnet_lite0`; none is
called FID, as the papers' FID is one network with one protocol. Beside each
distance stands its floor, real against real: the distance of two disjoint
halves of the reference. The Frechet distance is biased upwards, the more the
smaller the sets, so that it compares only sets of equal sizes, and the floor,
of halves, lies a little high; the kernel distance is unbiased.
"""

import dataclasses
import json
import zipfile

from absl import logging
import numpy as np

from vim_tf import compat, files
from vim_tf import config as config_lib

_NEIGHBORS = 3  # Whose farthest a ball of a manifold reaches to.
_LEAST_DISTANCE = 2  # Images of a set that has a distance.
_LEAST_LOGIT = -700.0


def frechet_distance(features_a, features_b) -> float:
  """Frechet distance of the Gaussians that fit two sets of features.

  |m_a - m_b|^2 + Tr(C_a + C_b - 2 (C_a C_b)^(1/2)) with the unbiased
  covariances (Heusel et al., 2017), by TF-GAN in float64.

  Args:
    features_a: `[images, num_features]`, at least 2 images.
    features_b: Likewise, of any number of images.

  Returns:
    The distance, at least 0 up to rounding.
  """
  a, b = _pair(features_a, features_b)
  outside = 0.0
  smaller = min(a, b, key=len)
  if len(smaller) < a.shape[1]:
    # Few images span few dimensions, and only there do both covariances
    # multiply: the rest adds its means and variances, and the matrices are
    # smaller.
    basis, _ = np.linalg.qr((smaller - smaller.mean(axis=0)).T)
    outside = _spread(a, b) - _spread(a @ basis, b @ basis)
    a, b = a @ basis, b @ basis
  distance = _tfgan_eval().frechet_classifier_distance_from_activations(a, b)
  return float(distance) + float(outside)


def _tfgan_eval():
  return compat.tfgan('eval')  # Takes seconds, which many runs can spare.


def _spread(a: np.ndarray, b: np.ndarray) -> float:
  """|m_a - m_b|^2 + Tr(C_a + C_b)."""
  means = a.mean(axis=0) - b.mean(axis=0)
  return (
    means @ means
    + np.var(a, axis=0, ddof=1).sum()
    + (np.var(b, axis=0, ddof=1).sum())
  )


def kernel_distance(
  features_a, features_b, *, max_block_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
  """Kernel distance (KID) of two sets of features, unbiased, and its error.

  The squared maximum mean discrepancy of the kernel (x'y / d + 1)^3 (Binkowski
  et al., 2018) in float64, averaged over blocks of the shuffled sets.

  Args:
    features_a: `[images, num_features]`, at least 2 images.
    features_b: Likewise, of any number of images.
    max_block_size: Images in a block at most.
    seed: Seed of the shuffle.

  Returns:
    The distance, around 0 for equal distributions and then as often negative,
    and its standard error: how far the distances of other sets of as many
    images lie apart. NaN if a block has fewer than 4 images of a set. It is
    that of independent sets: of images and their reconstructions, which vary
    together, it is too large.
  """
  a, b = _pair(features_a, features_b)
  rng = np.random.default_rng(seed)
  larger, smaller = max(len(a), len(b)), min(len(a), len(b))
  # As many blocks of both: none may have fewer than 2 images.
  count = min(-(-larger // max_block_size), smaller // 2)
  parts = (np.array_split(rng.permutation(x), count) for x in (a, b))
  distances, variances = np.transpose([_block(*pair) for pair in zip(*parts)])
  return float(np.mean(distances)), float(np.sum(variances) ** 0.5 / count)


def _block(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
  """The kernel distance of one block, and its variance.

  A two-sample U-statistic varies by a part of each image alone, and by one of
  each pair (Hoeffding, 1948). The first part is 0 if both sets are alike, which
  the spread of smaller blocks, where pairs count for more, does not tell.
  """
  n, m = len(a), len(b)

  def kernel(x, y):
    return (x @ y.T / a.shape[1] + 1.0) ** 3

  within_a, within_b, across = kernel(a, a), kernel(b, b), kernel(a, b)
  for matrix in (within_a, within_b):
    np.fill_diagonal(matrix, 0.0)
  distance = (
    within_a.sum() / (n * (n - 1))
    + within_b.sum() / (m * (m - 1))
    - 2.0 * across.mean()
  )
  if min(n, m) < 4:
    return distance, float('nan')
  rows_a, pairs_a = _parts(within_a)
  rows_b, pairs_b = _parts(within_b)
  to_b, to_a = across.mean(axis=1), across.mean(axis=0)
  centered = across - to_b[:, None] - to_a + across.mean()
  pairs_ab = np.sum(centered**2) / ((n - 1) * (m - 1))
  # What pairs add to the variance of the means of rows is taken off again.
  of_a = np.var(rows_a - to_b, ddof=1) - pairs_a / (n - 2) - pairs_ab / m
  of_b = np.var(rows_b - to_a, ddof=1) - pairs_b / (m - 2) - pairs_ab / n
  of_images = 4.0 * (of_a / n + of_b / m)
  of_pairs = (
    2.0 * pairs_a / (n * (n - 1))
    + 2.0 * pairs_b / (m * (m - 1))
    + 4.0 * pairs_ab / (n * m)
  )
  return distance, max(of_images, 0.0) + of_pairs


def _parts(kernel: np.ndarray) -> tuple[np.ndarray, float]:
  """What images alone and what pairs of a set put into a kernel matrix.

  Args:
    kernel: `[images, images]` of at least 4 images, with a diagonal of 0.

  Returns:
    The matrix's mean of each row but for a constant, `[images]`, and the
    variance that is left without them, unbiased (Szekely & Rizzo, 2014).
  """
  count = len(kernel)
  rows = kernel.sum(axis=1) / (count - 2)
  centered = kernel - rows[:, None] - rows
  centered += kernel.sum() / ((count - 1) * (count - 2))
  np.fill_diagonal(centered, 0.0)
  return rows, np.sum(centered**2) / (count * (count - 3))


def classifier_score(logits) -> float:
  """Exp of the mean divergence of p(y|x) from p(y) (Salimans et al., 2016).

  With Inception's logits it is the Inception score, over the whole set and not
  over splits of it.

  Args:
    logits: `[images, num_classes]`; minus infinity for what cannot be.

  Returns:
    The score, 1 (all predictions alike) to the number of classes (all certain,
    and each class as often).
  """
  logits = np.asarray(logits, np.float64)
  logits = logits - logits.max(axis=1, keepdims=True)
  # Further down exp() is 0 in float64, and 0 times its logarithm NaN.
  logits = np.maximum(logits, _LEAST_LOGIT)
  return float(_tfgan_eval().classifier_score_from_logits(logits))


def precision_recall(
  real_features, generated_features, *, neighbors: int = _NEIGHBORS
) -> tuple[float, float]:
  """Improved precision and recall (Kynkaanniemi et al., 2019).

  A set's manifold is the union of balls around its features, each reaching to
  its k-th nearest neighbour in the set.

  Args:
    real_features: `[images, num_features]`, more than k images.
    generated_features: Likewise; as many as real ones, for comparable values.
    neighbors: k.

  Returns:
    Precision (share of generated images in the manifold of the real ones) and
    recall (share of real images in that of the generated ones), in [0, 1].
  """
  real, generated = _pair(real_features, generated_features)
  return (
    _share_within(generated, real, _radii(real, neighbors)),
    _share_within(real, generated, _radii(generated, neighbors)),
  )


def _radii(points: np.ndarray, neighbors: int) -> np.ndarray:
  """Distance of each point to its k-th nearest other one."""
  from sklearn import neighbors as neighbors_lib  # Takes seconds.

  search = neighbors_lib.NearestNeighbors(
    n_neighbors=neighbors, algorithm='brute'
  )
  return search.fit(points).kneighbors()[0][:, -1]


def _share_within(
  points: np.ndarray, centers: np.ndarray, radii: np.ndarray
) -> float:
  """Share of the points that lie within any center's radius."""
  from sklearn import metrics

  within = metrics.pairwise_distances_chunked(
    points, centers, reduce_func=lambda part, _: np.any(part <= radii, axis=1)
  )
  return float(np.mean(np.concatenate(list(within))))


def compare(real_features, generated_features, name: str) -> dict[str, float]:
  """All distances of two sets under the names of a network.

  Args:
    real_features: `[images, num_features]`.
    generated_features: Likewise.
    name: Name of the network that the features are of.

  Returns:
    'fd_<name>', 'kd_<name>', 'kd_error_<name>', 'precision_<name>' and
    'recall_<name>'. The last two are of as many real images as generated
    ones: of the larger set, a part spread evenly over it. NaN, and a line in
    the log, where there are too few images.
  """
  count = min(len(real_features), len(generated_features))
  frechet = kernel = error = precision = recall = float('nan')
  if count >= _LEAST_DISTANCE:
    frechet = frechet_distance(real_features, generated_features)
    kernel, error = kernel_distance(real_features, generated_features)
  else:
    _log_missing('distances', name, count, _LEAST_DISTANCE)
  if count > _NEIGHBORS:
    precision, recall = precision_recall(
      _thin(real_features, count), _thin(generated_features, count)
    )
  else:
    _log_missing('precision and recall', name, count, _NEIGHBORS + 1)
  return {
    f'fd_{name}': frechet,
    f'kd_{name}': kernel,
    f'kd_error_{name}': error,
    f'precision_{name}': precision,
    f'recall_{name}': recall,
  }


def _log_missing(what: str, name: str, count: int, least: int):
  logging.warning(
    'There are no %s over %s: a set has %d images, but at least %d are needed.',
    what,
    name,
    count,
    least,
  )


def _thin(features, count: int) -> np.ndarray:
  features = np.asarray(features)
  return features[np.arange(count) * len(features) // count]


def floor(real_features, name: str, *, seed: int = 0) -> dict[str, float]:
  """Real against real: `compare` of two disjoint halves, drawn at random.

  Args:
    real_features: `[images, num_features]`.
    name: Name of the network that the features are of.
    seed: Seed of the draw.

  Returns:
    What `compare` gives, each name prefixed by 'floor_', and
    'floor_images_<name>', how many images a half has.
  """
  order = np.random.default_rng(seed).permutation(len(real_features))
  half = len(order) // 2
  features = np.asarray(real_features)
  scores = compare(
    features[order[:half]], features[order[half : 2 * half]], name
  )
  floors = {f'floor_{key}': value for key, value in scores.items()}
  return {**floors, f'floor_images_{name}': half}


@dataclasses.dataclass(frozen=True)
class Reference:
  """Features of real images, with the protocol that they were taken by.

  The features themselves are kept and not their moments alone, as the kernel
  distance, precision, recall and the floor need them.

  Attributes:
    features: float32 `[images, num_features]`.
    network: Name of the network.
    source: Where its weights come from (`FeatureNetwork.source`).
    dataset: Name of the data set, with its config and version.
    split: Which part of it, such as 'validation'.
    crop: How its images were cropped and resized, such as 'center 256'.
  """

  features: np.ndarray
  network: str
  source: str
  dataset: str
  split: str
  crop: str

  def protocol(self) -> dict:
    """All but the features, and how many images there are; for JSON."""
    fields = {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
      if field.name != 'features'
    }
    return {**fields, 'count': len(self.features)}

  def save(self, path: str):
    """Writes an .npz file, whole or not at all; no pickle is in it."""
    with files.new_file(path) as new, open(new, 'wb') as f:
      np.savez(
        f,
        features=np.asarray(self.features, np.float32),
        protocol=json.dumps(self.protocol()),
      )

  @classmethod
  def load(cls, path: str, **expected) -> 'Reference':
    """Reads what `save` wrote.

    Args:
      path: The file.
      **expected: Fields of the protocol that must be so, such as `network`.

    Returns:
      The reference.

    Raises:
      ValueError: The file is absent, damaged or of another protocol.
    """
    try:
      with open(path, 'rb') as f, np.load(f, allow_pickle=False) as arrays:
        features = arrays['features']
        protocol = json.loads(str(arrays['protocol']))
      count = protocol.pop('count')
      reference = cls(features=features, **protocol)
    except (OSError, EOFError, KeyError, TypeError, ValueError) as error:
      raise config_lib.UserError(
        f'No reference features can be read from {path} ({error}): make them '
        'again.'
      ) from None
    except zipfile.BadZipFile:
      raise config_lib.UserError(
        f'The reference features at {path} are damaged: make them again.'
      ) from None
    found = {**protocol, 'count': count}
    for name, value in expected.items():
      if found.get(name) != value:
        raise config_lib.UserError(
          f'The reference features at {path} have {name} '
          f'{found.get(name)!r}, but {value!r} is wanted: make them again.'
        )
    return reference


def _pair(features_a, features_b) -> tuple[np.ndarray, np.ndarray]:
  return np.asarray(features_a, np.float64), np.asarray(features_b, np.float64)
