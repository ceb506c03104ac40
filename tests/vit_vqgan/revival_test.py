"""Tests of code revival: who is replaced, by what, and who follows."""

from unittest import mock

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from vim_tf.vit_vqgan import quantizer as quantizer_lib
from vim_tf.vit_vqgan import revival

_CODES, _DIM = 16, 4


def _quantizer(l2_normalize=True, seed=0):
  quantizer = quantizer_lib.Quantizer(_CODES, _DIM, l2_normalize)
  quantizer.build(None)
  rng = np.random.default_rng(seed)
  quantizer.codebook.assign(rng.normal(size=[_CODES, _DIM]))
  return quantizer


def _features(batch, length, seed=1):
  rng = np.random.default_rng(seed)
  return tf.constant(rng.normal(size=[batch, length, _DIM]), tf.float32)


def _seeds(batch, first=0):
  return tf.cast(tf.range(first, first + batch), tf.uint32)


def _unit(x):
  x = np.asarray(x)
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _sources(codes, features):
  """For each code which feature is nearest in direction, and its cosine."""
  cosine = _unit(codes) @ _unit(np.reshape(features, [-1, _DIM])).T
  return cosine.argmax(axis=1), cosine.max(axis=1)


class CountTest(tf.test.TestCase):
  def test_count(self):
    codes = np.random.default_rng(0).integers(0, 9, [3, 50]).astype(np.int32)
    self.assertAllEqual(
      revival.count(tf.constant(codes), 12),
      np.bincount(codes.ravel(), minlength=12),
    )


class ReplaceCodesTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.parameters(True, False)
  def test_dead_codes_become_features_and_others_stay(self, l2_normalize):
    quantizer = _quantizer(l2_normalize)
    before = quantizer.codebook.numpy()
    dead = np.isin(np.arange(_CODES), [0, 3, 4, 11, 15])
    features = _features(3, 7)
    count = revival.replace_codes(
      quantizer, tf.constant(dead), features, _seeds(3)
    )
    after = quantizer.codebook.numpy()
    self.assertEqual(float(count), 5.0)
    self.assertAllEqual(after[~dead], before[~dead])
    nearest, cosine = _sources(after[dead], features)
    self.assertAllGreater(cosine, 0.995)
    self.assertLen(set(nearest), 5)
    norms = np.linalg.norm(after[dead], axis=-1)
    if l2_normalize:
      self.assertAllClose(norms, np.ones(5), rtol=1e-5)
    else:
      own = np.linalg.norm(np.reshape(features, [-1, _DIM]), axis=-1)
      self.assertAllClose(norms, own[nearest], rtol=0.05)

  def test_copies_follow_in_the_dead_codes_alone(self):
    quantizer = _quantizer()
    copies = [tf.Variable(tf.fill([_CODES, _DIM], float(i))) for i in (7, 8)]
    dead = np.arange(_CODES) < 3
    revival.replace_codes(
      quantizer, tf.constant(dead), _features(2, 5), _seeds(2), tuple(copies)
    )
    for value, copy in zip((7.0, 8.0), copies, strict=True):
      self.assertAllEqual(copy[:3], quantizer.codebook[:3])
      self.assertAllEqual(copy[3:], np.full([_CODES - 3, _DIM], value))

  def test_none_dead(self):
    quantizer = _quantizer()
    before = quantizer.codebook.numpy()
    count = revival.replace_codes(
      quantizer, tf.zeros([_CODES], tf.bool), _features(2, 5), _seeds(2)
    )
    self.assertEqual(float(count), 0.0)
    self.assertAllEqual(quantizer.codebook, before)

  def test_all_dead_uses_distinct_vectors(self):
    quantizer = _quantizer()
    features = _features(4, 10)
    count = revival.replace_codes(
      quantizer, tf.ones([_CODES], tf.bool), features, _seeds(4)
    )
    self.assertEqual(float(count), _CODES)
    nearest, cosine = _sources(quantizer.codebook, features)
    self.assertAllGreater(cosine, 0.995)
    self.assertLen(set(nearest), _CODES)

  def test_fewer_vectors_than_codes_are_all_used(self):
    quantizer = _quantizer()
    features = _features(2, 5)
    revival.replace_codes(
      quantizer, tf.ones([_CODES], tf.bool), features, _seeds(2)
    )
    nearest, _ = _sources(quantizer.codebook, features)
    self.assertEqual(set(nearest), set(range(10)))

  def test_worst_served_first(self):
    """Outputs that sit on a code are not drawn while others are left."""
    quantizer = _quantizer()
    served = quantizer.codebook.numpy()[None, :8]
    features = tf.concat([served, _features(1, 6)], axis=1)
    dead = np.arange(_CODES) >= 12
    for seed in range(20):
      quantizer = _quantizer()
      revival.replace_codes(
        quantizer, tf.constant(dead), features, _seeds(1, seed)
      )
      nearest, _ = _sources(quantizer.codebook.numpy()[12:], features)
      self.assertAllGreater(nearest, 7)

  def test_draws_in_proportion_to_the_squared_distance(self):
    """With one dead code; and uniformly, where all are dead."""
    cosines = np.array([0.9, 0.5, -0.9])
    codebook = np.tile([1.0, 0, 0, 0], [_CODES, 1])
    features = np.zeros([1, 3, _DIM], np.float32)
    features[0, :, 0] = cosines
    features[0, :, 1] = np.sqrt(1 - cosines**2)
    quantizer = _quantizer()
    count = 300

    def first_of(dead):
      found = []
      run = tf.function(
        lambda seeds: revival.replace_codes(
          quantizer, tf.constant(dead), tf.constant(features), seeds
        ),
        autograph=False,
      )
      for seed in range(count):
        quantizer.codebook.assign(codebook)
        run(_seeds(1, seed))
        found.append(_sources(quantizer.codebook.numpy()[:1], features)[0][0])
      return np.bincount(found, minlength=3) / count

    distances = 2 - 2 * cosines
    self.assertAllClose(
      first_of(np.arange(_CODES) == 0), distances / distances.sum(), atol=0.08
    )
    self.assertAllClose(first_of(np.full(_CODES, True)), [1 / 3] * 3, atol=0.08)

  def test_k_means_starts_as_k_means_plus_plus(self):
    """The first uniformly, the second by its squared distance from it."""
    angles = np.array([0.1, 0.3, 1.2, 3.0])
    features = np.zeros([2, 2, _DIM], np.float32)
    features[..., 0] = np.cos(angles).reshape(2, 2)
    features[..., 1] = np.sin(angles).reshape(2, 2)
    quantizer, count = _quantizer(), 500
    run = tf.function(
      lambda seeds: revival.replace_codes(
        quantizer,
        tf.ones([_CODES], tf.bool),
        tf.constant(features),
        seeds,
        kmeans=1,  # Moves nothing, with a code on every output.
      ),
      autograph=False,
      jit_compile=True,
    )
    seen = np.zeros([4, 4])
    for seed in range(count):
      run(_seeds(2, 2 * seed))
      nearest, _ = _sources(quantizer.codebook, features)
      seen[nearest[0], nearest[1]] += 1
      self.assertCountEqual(nearest[:4], range(4))  # None twice.
    distances = 2 - 2 * np.cos(angles[:, None] - angles)
    expected = distances / distances.sum(axis=1, keepdims=True) / 4
    self.assertAllClose(seen / count, expected, atol=0.06)

  @parameterized.parameters(True, False)
  def test_k_means_ends_at_the_centres(self, l2_normalize):
    """Where NumPy moves no code any more."""
    self.enter_context(mock.patch.object(revival, '_NOISE', 0.0))
    quantizer, features = _quantizer(l2_normalize), _features(4, 20)
    copy = tf.Variable(tf.zeros([_CODES, _DIM]))
    revival.replace_codes(
      quantizer,
      tf.ones([_CODES], tf.bool),
      features,
      _seeds(4),
      (copy,),
      kmeans=30,
    )
    points = np.reshape(features, [-1, _DIM])
    codes = quantizer.codebook.numpy()
    if l2_normalize:
      points = _unit(points)
    nearest = ((points[:, None] - codes) ** 2).sum(axis=-1).argmin(axis=1)
    for code in range(_CODES):
      mean = points[nearest == code].mean(axis=0)
      mean = _unit(mean) if l2_normalize else mean
      self.assertAllClose(codes[code], mean, atol=1e-5)
    self.assertAllEqual(copy, codes)

  def test_equal_outputs_make_different_codes(self):
    """Else codes of one flat colour would tie for ever."""
    quantizer = _quantizer()
    features = tf.tile(_features(1, 1), [2, 20, 1])
    revival.replace_codes(
      quantizer, tf.ones([_CODES], tf.bool), features, _seeds(2)
    )
    codes = quantizer.codebook.numpy()
    self.assertLen(np.unique(codes, axis=0), _CODES)
    self.assertAllGreater(_sources(codes, features)[1], 0.99)

  def test_depends_on_examples_not_on_their_order(self):
    order = [2, 0, 1]
    dead = tf.constant(np.arange(_CODES) % 2 == 0)
    one, other, third = _quantizer(), _quantizer(), _quantizer()
    features, seeds = _features(3, 6), _seeds(3)
    revival.replace_codes(one, dead, features, seeds)
    revival.replace_codes(
      other, dead, tf.gather(features, order), tf.gather(seeds, order)
    )
    self.assertAllClose(one.codebook, other.codebook, rtol=1e-5, atol=1e-6)
    revival.replace_codes(
      third, dead, features, seeds + tf.constant(9, tf.uint32)
    )
    self.assertNotAllClose(one.codebook, third.codebook)


if __name__ == '__main__':
  tf.test.main()
