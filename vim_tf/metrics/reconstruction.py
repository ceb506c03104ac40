"""Distances of reconstructions to their images, and means of them over a set.

All functions take images `[batch, height, width, 3]` in [0, 1] and return one
float32 number for each image, `[batch]`. The units are those of the paper's
Tables 1 and 4: l1 and l2 are means over pixels and channels.

The PSNR of a set is defined in two ways that differ by a decibel and more, so
both are given: `mean_psnr` (the mean of the images' PSNRs, which favours sets
with some easy images) and `psnr_of_mean_l2` (the PSNR of the set's mean squared
error, never above the other).
"""

import math

import numpy as np
import tensorflow as tf

from vim_tf import config as config_lib

MAX_PSNR = 100.0
"""PSNR in dB of equal images, in place of infinity, which no mean survives."""

MIN_SSIM_SIZE = 11
"""Pixels a side below which the window of SSIM does not fit."""

_MIN_L2 = 10 ** (-MAX_PSNR / 10)


def l1(images: tf.Tensor, reconstructions: tf.Tensor) -> tf.Tensor:
  """Mean absolute error of each image."""
  images, reconstructions = _pair(images, reconstructions)
  return tf.reduce_mean(tf.abs(images - reconstructions), axis=[1, 2, 3])


def l2(images: tf.Tensor, reconstructions: tf.Tensor) -> tf.Tensor:
  """Mean squared error of each image."""
  images, reconstructions = _pair(images, reconstructions)
  return tf.reduce_mean(
    tf.math.squared_difference(images, reconstructions), axis=[1, 2, 3]
  )


def psnr(images: tf.Tensor, reconstructions: tf.Tensor) -> tf.Tensor:
  """Peak signal-to-noise ratio of each image in dB, at most `MAX_PSNR`."""
  return psnr_of_l2(l2(images, reconstructions))


def psnr_of_l2(mean_squared_error) -> tf.Tensor:
  """PSNR in dB of mean squared errors of values in [0, 1], any shape."""
  error = tf.maximum(tf.cast(mean_squared_error, tf.float32), _MIN_L2)
  return -10.0 / math.log(10.0) * tf.math.log(error)


def ssim(images: tf.Tensor, reconstructions: tf.Tensor) -> tf.Tensor:
  """Structural similarity of each image (Wang et al., 2004), 1 if equal.

  A Gaussian window of 11 pixels and sigma 1.5, K1 = 0.01 and K2 = 0.03, on each
  of the three channels, then their mean.

  Args:
    images: `[batch, height, width, 3]` in [0, 1], both sides at least 11.
    reconstructions: Shaped like `images`.

  Returns:
    float32 `[batch]` in [-1, 1].
  """
  images, reconstructions = _pair(images, reconstructions)
  return tf.image.ssim(
    images,
    reconstructions,
    max_val=1.0,
    filter_size=MIN_SSIM_SIZE,
    filter_sigma=1.5,
    k1=0.01,
    k2=0.03,
  )


def per_image(
  images: tf.Tensor, reconstructions: tf.Tensor
) -> dict[str, tf.Tensor]:
  """The measures of this module under their names, each float32 `[batch]`.

  SSIM is left out where its window does not fit.
  """
  error = l2(images, reconstructions)
  values = {
    'l1': l1(images, reconstructions),
    'l2': error,
    'psnr': psnr_of_l2(error),
  }
  if min(images.shape[1:3]) >= MIN_SSIM_SIZE:
    values['ssim'] = ssim(images, reconstructions)
  return values


class MeanAccumulator:
  """Means over a set that comes in batches, of any number of measures.

  It lives on the host and sums in float64, so that neither the order nor the
  sizes of the batches show in the result.
  """

  def __init__(self):
    self._sums: dict[str, float] = {}
    self._counts: dict[str, int] = {}

  def update(self, values: dict[str, tf.Tensor]):
    """Adds a batch: name of the measure to its values `[batch]`."""
    for name, numbers in values.items():
      numbers = np.asarray(numbers, np.float64)
      self._sums[name] = self._sums.get(name, 0.0) + float(numbers.sum())
      self._counts[name] = self._counts.get(name, 0) + numbers.size

  def result(self) -> dict[str, float]:
    """The mean of each measure over all its values.

    Raises:
      ValueError: Nothing was measured.
    """
    if not any(self._counts.values()):
      raise config_lib.UserError(
        'Nothing was measured: the evaluation needs at least one image.'
      )
    return {
      name: self._sums[name] / count
      for name, count in self._counts.items()
      if count
    }


def summarize(means: dict[str, float]) -> dict[str, float]:
  """Names the two PSNRs of a set.

  Args:
    means: Means over the set of what `per_image` gives, and any others.

  Returns:
    The same with `psnr` renamed to `mean_psnr` and `psnr_of_mean_l2` added.
  """
  result = {
    'mean_psnr' if name == 'psnr' else name: value
    for name, value in means.items()
  }
  result['psnr_of_mean_l2'] = float(psnr_of_l2(means['l2']))
  return result


def _pair(images, reconstructions) -> tuple[tf.Tensor, tf.Tensor]:
  images = tf.convert_to_tensor(images)
  reconstructions = tf.convert_to_tensor(reconstructions)
  # Otherwise a batch of one, or a gray image, would be broadcast in silence.
  if not images.shape.is_compatible_with(reconstructions.shape):
    raise ValueError(
      f'Images are {images.shape}, but their reconstructions are '
      f'{reconstructions.shape}: both must have the same shape.'
    )
  return tf.cast(images, tf.float32), tf.cast(reconstructions, tf.float32)
