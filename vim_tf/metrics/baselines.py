"""What the two stages must beat: k-means of patches, counts of codes.

`patch_codebook` is vector quantisation without any network, with as many codes
for an image as the tokenizer has. Lloyd's algorithm starts from k-means++;
patches that occur several times (in drawings, plain white) enter once with
their number as weight, so that they cost one code rather than many, and the
objective stays the mean squared error over all patches.

`Order0` and `Order1` count codes, and give bits per code as stage 2 does. The
order-0 model knows how often each code occurs, the order-1 model also which
code came before in raster order (a start symbol before the first). Both are
smoothed, and how much is chosen on a part of the training codes that was kept
out of the counts; then the counts are taken from all of them. The codes that a
model is scored on play no part in that.
"""

import numpy as np
import sklearn.cluster
import sklearn.metrics

from vim_tf.metrics import codebook as codebook_lib

# k-means++ starts from this many patches a code, drawn by weight.
_INIT_PATCHES_PER_CODE = 16
# Each image of so many in turn is kept out to choose the smoothing.
_TUNING_STRIDE = 10
# Pseudo-counts: from next to none to more than real counts ever reach.
_ALPHAS = 2.0 ** np.arange(-12, 5)
_STRENGTHS = 2.0 ** np.arange(-6, 21)


def extract_patches(images: np.ndarray, patch_size: int) -> np.ndarray:
  """Cuts images into patches, in raster order.

  Args:
    images: `[n, height, width, channels]`, sides multiples of the patch size.
    patch_size: Pixels a side.

  Returns:
    `[n, num_patches, patch_size^2 * channels]`, rows of pixels first.
  """
  n, height, width, channels = images.shape
  rows, columns = height // patch_size, width // patch_size
  x = images.reshape(n, rows, patch_size, columns, patch_size, channels)
  x = x.transpose(0, 1, 3, 2, 4, 5)  # [n, rows, columns, patch, patch, channel]
  return x.reshape(n, rows * columns, patch_size * patch_size * channels)


def assemble_patches(
  patches: np.ndarray, height: int, width: int, patch_size: int
) -> np.ndarray:
  """Inverts `extract_patches` for images of height x width pixels."""
  n, rows, columns = len(patches), height // patch_size, width // patch_size
  x = patches.reshape(n, rows, columns, patch_size, patch_size, -1)
  x = x.transpose(0, 1, 3, 2, 4, 5)  # [n, rows, patch, columns, patch, channel]
  return x.reshape(n, height, width, -1)


def patch_codebook(
  images: np.ndarray,
  num_codes: int,
  patch_size: int,
  *,
  seed: int = 0,
  max_iterations: int = 40,
  max_patches: int = 200_000,
) -> np.ndarray:
  """Codes for the patches of images, by k-means.

  Args:
    images: `[n, height, width, channels]` in [0, 1].
    num_codes: Size of the codebook.
    patch_size: Pixels a side of a patch.
    seed: Start of the random choices: the same seed, the same codebook.
    max_iterations: Iterations of Lloyd's algorithm at most; it stops sooner
      when the codes come to rest.
    max_patches: Different patches to fit to at most; of more, a random part is
      taken.

  Returns:
    float32 `[codes, patch_size^2 * channels]`; fewer codes than asked for only
    where there are fewer different patches.
  """
  rng = np.random.default_rng(seed)
  patches = extract_patches(np.asarray(images, np.float32), patch_size)
  patches, weights = _distinct(patches.reshape(-1, patches.shape[-1]))
  if len(patches) > max_patches:
    kept = rng.choice(len(patches), max_patches, replace=False)
    patches, weights = patches[kept], weights[kept]
  if len(patches) <= num_codes:
    return patches
  model = sklearn.cluster.KMeans(
    num_codes,
    init=_start(patches, weights, num_codes, rng, seed),
    n_init=1,
    max_iter=max_iterations,
    random_state=seed,
  )
  model.fit(patches, sample_weight=weights)
  return model.cluster_centers_.astype(np.float32)


def reconstruct(
  images: np.ndarray, codebook: np.ndarray, patch_size: int
) -> np.ndarray:
  """Images `[n, height, width, channels]` with each patch by its nearest code.

  Returns:
    float32, shaped like the images.
  """
  patches = extract_patches(np.asarray(images, np.float32), patch_size)
  height, width = images.shape[1:3]
  nearest = sklearn.metrics.pairwise_distances_argmin(
    patches.reshape(-1, patches.shape[-1]), codebook
  )
  rebuilt = codebook[nearest.reshape(patches.shape[:2])]
  return assemble_patches(rebuilt, height, width, patch_size)


def _start(patches, weights, num_codes: int, rng, seed: int) -> np.ndarray:
  """k-means++ on a part of the patches."""
  size = _INIT_PATCHES_PER_CODE * num_codes
  if size < len(patches):
    # Without replacement a heavy patch is drawn once, not again and again.
    part = rng.choice(
      len(patches), size, replace=False, p=weights / weights.sum()
    )
    patches, weights = patches[part], weights[part]
  start, _ = sklearn.cluster.kmeans_plusplus(
    patches.astype(np.float64),  # For each code float32 would be converted.
    num_codes,
    sample_weight=weights,
    random_state=seed,
  )
  return start.astype(np.float32)


def _distinct(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The different rows of `[n, width]`, and how often each occurs."""
  # Compared as strings of bytes, which is much faster than number by number.
  rows = np.ascontiguousarray(patches)
  rows = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1])))[:, 0]
  _, first, counts = np.unique(rows, return_index=True, return_counts=True)
  return patches[first], counts.astype(np.float64)


def _fit_tuned(fit, codes: np.ndarray, candidates: np.ndarray):
  """Fits with the candidate that suits held-out training images best.

  Args:
    fit: Makes a model from (codes, candidate).
    codes: int `[images, num_codes]`.
    candidates: Values to choose from.

  Returns:
    The model with the best candidate, fitted to all codes.
  """
  tuning = np.arange(len(codes)) % _TUNING_STRIDE == _TUNING_STRIDE - 1
  if not tuning.any():
    tuning[-1] = True
  if len(codes) == 1:
    return fit(codes, 1.0)  # There is nothing to choose it on.
  scores = []
  for candidate in candidates:
    model = fit(codes[~tuning], candidate)
    scores.append(model.bits_per_code(codes[tuning]))
  return fit(codes, candidates[int(np.argmin(scores))])


class Order0:
  """Codes drawn independently, with additive smoothing.

  p(c) = (n(c) + alpha) / (n + alpha K) for K codes.

  Args:
    codes: Training codes, int `[images, num_codes]`.
    codebook_size: Number of codes K.
    alpha: Pseudo-count of each code, above 0.
  """

  def __init__(self, codes, codebook_size: int, alpha: float):
    counts = codebook_lib.histogram(codes, codebook_size) + float(alpha)
    self.alpha = float(alpha)
    self.probabilities = counts / counts.sum()

  @classmethod
  def fit(cls, codes, codebook_size: int) -> 'Order0':
    """Fits to training codes `[images, num_codes]` and chooses alpha."""
    return _fit_tuned(
      lambda part, alpha: cls(part, codebook_size, alpha),
      np.asarray(codes),
      _ALPHAS,
    )

  def bits_per_code(self, codes) -> float:
    """Mean -log2 p of codes `[images, num_codes]`."""
    return float(-np.mean(np.log2(self.probabilities[np.asarray(codes)])))


class Order1:
  """Each code drawn given the one before, interpolated with `Order0`.

  p(c | b) = (n(b, c) + strength p0(c)) / (n(b) + strength), which is the
  hierarchical Dirichlet model of MacKay and Peto (1995): a context b that was
  seen often is believed, a rare one falls back to order 0. Only pairs that
  occur are stored, so that 8,192 codes need no table of 8,192 squared.

  Args:
    codes: Training codes, int `[images, num_codes]`.
    order0: The model to fall back to, which also says how many codes there are.
    strength: Weight of order 0, in counts, above 0.
  """

  def __init__(self, codes, order0: Order0, strength: float):
    self.order0 = order0
    self.strength = float(strength)
    self._codebook_size = len(order0.probabilities)
    contexts, pairs = self._contexts_and_pairs(codes)
    self._context_counts = np.bincount(
      contexts.ravel(), minlength=self._codebook_size + 1
    )
    self._pairs, self._pair_counts = np.unique(pairs, return_counts=True)

  @classmethod
  def fit(cls, codes, codebook_size: int) -> 'Order1':
    """Fits to training codes `[images, num_codes]`, chooses both constants."""
    codes = np.asarray(codes)
    alpha = Order0.fit(codes, codebook_size).alpha
    return _fit_tuned(
      lambda part, strength: cls(
        part, Order0(part, codebook_size, alpha), strength
      ),
      codes,
      _STRENGTHS,
    )

  def _contexts_and_pairs(self, codes) -> tuple[np.ndarray, np.ndarray]:
    """The code before each code, and one number for both together."""
    codes = np.asarray(codes, np.int64)  # Pairs are too many for 32 bits.
    start = np.full([len(codes), 1], self._codebook_size)
    contexts = np.concatenate([start, codes[:, :-1]], axis=1)
    return contexts, contexts * self._codebook_size + codes

  def bits_per_code(self, codes) -> float:
    """Mean -log2 p of codes `[images, num_codes]`."""
    contexts, pairs = self._contexts_and_pairs(codes)
    places = np.searchsorted(self._pairs, pairs)
    places = np.minimum(places, len(self._pairs) - 1)
    seen = np.where(self._pairs[places] == pairs, self._pair_counts[places], 0)
    prior = self.strength * self.order0.probabilities[codes]
    total = self._context_counts[contexts] + self.strength
    return float(-np.mean(np.log2((seen + prior) / total)))


def reference_bits_per_code(
  train_codes, held_out_codes, codebook_size: int
) -> dict[str, float]:
  """Scores both models on codes that they were not fitted to.

  Args:
    train_codes: int `[images, num_codes]` in [0, codebook_size).
    held_out_codes: The codes to score, likewise.
    codebook_size: Number of codes.

  Returns:
    'order0_bits_per_code' and 'order1_bits_per_code'.

  Raises:
    ValueError: Some training codes lie outside of the codebook.
  """
  models = {'order0': Order0, 'order1': Order1}
  return {
    f'{name}_bits_per_code': model.fit(
      train_codes, codebook_size
    ).bits_per_code(held_out_codes)
    for name, model in models.items()
  }
