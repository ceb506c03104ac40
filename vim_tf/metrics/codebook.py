"""How much of the codebook the codes of a split use.

Usage depends on the window that it is counted over, so the window is in the
name: `usage_per_256_images` is the paper's (Table 4), the share of the codebook
that a batch of 256 test images uses, averaged over the batches of the split;
`usage` is the share that the whole split uses and never less. Perplexity is the
exponential of the entropy of the split's histogram of codes: the number of
codes that, if used equally, would carry as much information.
"""

import numpy as np

from vim_tf import config as config_lib

PAPER_WINDOW = 256
"""Images over which the paper counts usage (Table 4)."""


def histogram(codes, codebook_size: int) -> np.ndarray:
  """Counts each code.

  Args:
    codes: Integers of any shape in [0, codebook_size).
    codebook_size: Number of codes.

  Returns:
    int64 `[codebook_size]`.

  Raises:
    ValueError: A code lies outside of the codebook.
  """
  codes = np.asarray(codes)
  if codes.size and not 0 <= codes.min() <= codes.max() < codebook_size:
    raise config_lib.UserError(
      f'Codes lie in [{codes.min()}, {codes.max()}], but the codebook has '
      f'{codebook_size}: were they made by another tokenizer?'
    )
  return np.bincount(codes.ravel(), minlength=codebook_size)


def usage(counts: np.ndarray) -> float:
  """Share of the codes of a `histogram` that occur, in [0, 1]."""
  return float(np.mean(np.asarray(counts) > 0))


def perplexity(counts: np.ndarray) -> float:
  """Exponential of the entropy of a `histogram`: 1 to codebook size."""
  counts = np.asarray(counts, np.float64)
  shares = counts[counts > 0] / counts.sum()
  return float(np.exp(-np.sum(shares * np.log(shares))))


class CodebookMeter:
  """Usage and perplexity of codes that come in batches of any size.

  The windows are cut from the stream of images, not from the batches, so that
  the figures do not depend on the batch size of the evaluation. An incomplete
  window at the end is left out, as it would use fewer codes only for being
  smaller; if there is no complete one, it is all there is, and
  `images_per_window` says how many images that were.
  """

  def __init__(self, codebook_size: int, window: int = PAPER_WINDOW):
    self._codebook_size = codebook_size
    self._window = window
    self._counts = np.zeros([codebook_size], np.int64)
    self._seen = np.zeros([codebook_size], bool)
    self._images = 0
    self._usages: list[float] = []

  def update(self, codes):
    """Adds the codes of a batch, int `[batch, num_codes]`."""
    codes = np.asarray(codes)
    self._counts += histogram(codes, self._codebook_size)
    while len(codes):
      room = self._window - self._images % self._window
      self._seen[codes[:room].ravel()] = True
      self._images += len(codes[:room])
      codes = codes[room:]
      if self._images % self._window == 0:
        self._usages.append(float(self._seen.mean()))
        self._seen[:] = False

  def result(self) -> dict[str, float]:
    """The figures of all codes so far.

    Returns:
      'usage_per_<window>_images' and 'usage' in [0, 1], 'perplexity' from 1 to
      the codebook size, and 'images_per_window', which is the window unless
      there were fewer images.

    Raises:
      ValueError: There were no codes.
    """
    if not self._images:
      raise config_lib.UserError(
        'No codes were counted: the evaluation needs at least one image.'
      )
    windows = self._usages or [float(self._seen.mean())]
    return {
      f'usage_per_{self._window}_images': float(np.mean(windows)),
      'usage': usage(self._counts),
      'perplexity': perplexity(self._counts),
      'images_per_window': min(self._window, self._images),
    }
