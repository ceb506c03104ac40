"""Counting models of codes: what stage 2 must beat, in bits per code.

The order-0 model knows how often each code occurs, the order-1 model also which
code came before in raster order (a start symbol before the first). Both are
smoothed, and how much is chosen on a part of the training codes that was kept
out of the counts; then the counts are taken from all of them. The codes that a
model is scored on play no part in that.
"""

from typing import Self

import numpy as np

from vim_tf.metrics import codebook

# Each image of so many in turn is kept out to choose the smoothing.
_TUNING_STRIDE = 10
# Pseudo-counts: from next to none to more than real counts ever reach.
_ALPHAS = 2.0 ** np.arange(-12, 5)
_STRENGTHS = 2.0 ** np.arange(-6, 21)


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
    counts = codebook.histogram(codes, codebook_size) + float(alpha)
    self.alpha = float(alpha)
    self.probabilities = counts / counts.sum()

  @classmethod
  def fit(cls, codes, codebook_size: int) -> Self:
    """Fits to training codes `[images, num_codes]` and chooses alpha."""
    return _fit_tuned(
      lambda part, alpha: cls(part, codebook_size, alpha),
      _images(codes),
      _ALPHAS,
    )

  def bits_per_code(self, codes) -> float:
    """Mean -log2 p of codes `[images, num_codes]`."""
    codes = _images(codes)
    codebook.histogram(codes, len(self.probabilities))  # Checks the range.
    return float(-np.mean(np.log2(self.probabilities[codes])))


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
    codes = _images(codes)
    codebook.histogram(codes, self._codebook_size)  # Checks the range.
    contexts, pairs = self._contexts_and_pairs(codes)
    self._context_counts = np.bincount(
      contexts.ravel(), minlength=self._codebook_size + 1
    )
    self._pairs, self._pair_counts = np.unique(pairs, return_counts=True)

  @classmethod
  def fit(cls, codes, codebook_size: int) -> Self:
    """Fits to training codes `[images, num_codes]`, chooses both constants."""
    codes = _images(codes)
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
    start = np.full([len(codes), 1], self._codebook_size)
    contexts = np.concatenate([start, codes[:, :-1]], axis=1)
    return contexts, contexts * self._codebook_size + codes

  def bits_per_code(self, codes) -> float:
    """Mean -log2 p of codes `[images, num_codes]`."""
    codes = _images(codes)
    codebook.histogram(codes, self._codebook_size)  # Checks the range.
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
    ValueError: There are no codes, or some lie outside of the codebook.
  """
  models = {'order0': Order0, 'order1': Order1}
  return {
    f'{name}_bits_per_code': model.fit(
      train_codes, codebook_size
    ).bits_per_code(held_out_codes)
    for name, model in models.items()
  }


def _images(codes) -> np.ndarray:
  """Codes as an array, which must be of images."""
  codes = np.asarray(codes)
  if codes.ndim != 2 or not codes.size:
    raise ValueError(
      f'Codes have the shape {list(codes.shape)}, but must be [images, '
      'num_codes] with at least one of each.'
    )
  return codes.astype(np.int64) if codes.dtype.kind in 'iu' else codes
