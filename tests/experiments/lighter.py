"""OpenMoji and the networks that judge it, for tests of what is around them."""

import collections
from collections.abc import Iterator
import contextlib
from unittest import mock

import numpy as np
import tensorflow as tf

from vim_tf.data import openmoji, sources
from vim_tf.metrics import feature_networks

_EVERY = 6
_TILES = 4
_FEATURES, _LOGITS = 16, 10


@contextlib.contextmanager
def drawings() -> Iterator[None]:
  """A sixth of the drawings, and projections instead of EfficientNets."""
  every = openmoji.list_glyphs

  def fewer(variant):
    bases = collections.defaultdict(list)
    for glyph in every('base'):
      bases[glyph.subgroup].append(glyph.base)
    kept = {base for one in bases.values() for base in one[::_EVERY]}
    return [glyph for glyph in every(variant) if glyph.base in kept]

  _forget()
  with (
    mock.patch.object(openmoji, 'list_glyphs', fewer),
    mock.patch.object(feature_networks, '_load_efficientnet_lite', _network),
  ):
    try:
      yield
    finally:
      _forget()


def _forget():
  """Drops what the library keeps in memory of the drawings."""
  for function in (
    openmoji.held_out_bases,
    openmoji.subgroups,
    sources._load_openmoji,
  ):
    function.cache_clear()


def _network(
  name: str, strategy: tf.distribute.Strategy
) -> feature_networks.FeatureNetwork:
  """Random projections of the colours of some tiles."""
  del strategy  # It has no variables.
  rng = np.random.default_rng(list(name.encode()))
  weights = rng.normal(size=[_TILES**2 * 3, _FEATURES + _LOGITS])
  weights = tf.constant(weights, tf.float32)

  def function(images):
    tiles = tf.image.resize(images, [_TILES, _TILES], 'area')
    found = tf.reshape(tiles, [-1, weights.shape[0]]) @ weights
    return tf.split(found, [_FEATURES, _LOGITS], axis=1)

  return feature_networks.FeatureNetwork(name, f'made up: {name}', function)
