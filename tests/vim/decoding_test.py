"""Tests of the sampler's loop: exact, batch-invariant, traced once."""

from unittest import mock

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import testing
from vim_tf import config as config_lib
from vim_tf.nn import layers, randomness
from vim_tf.vim import decoding, sampling
from vim_tf.vim import model as model_lib

_CODES = 9
_NO_CLASS = 5
_SEEDS = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 2**32 - 1])
_PLAIN = sampling.SamplingConfig()
_GREEDY = sampling.SamplingConfig(temperature=0.0)
_MIXED = [
  sampling.SamplingConfig(),
  sampling.SamplingConfig(temperature=0.8, top_k=4),
  sampling.SamplingConfig(top_p=0.7, guidance_scale=2.0),
  sampling.SamplingConfig(guidance_scale=3.0, guidance_schedule='cosine'),
] * 4


def _model(dtype='float32', **sizes) -> model_lib.VIM:
  model = model_lib.VIM(testing.vim_config(**sizes), dtype=dtype)
  model.build()
  testing.randomize(model, scale=0.25)
  return model


class DecoderTest(testing.TestCase, parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.model = _model()
    cls.decoder = decoding.Decoder(cls.model)
    cls.class_ids = np.arange(16) % 6
    cls.mixed = cls.decoder(cls.class_ids, _SEEDS, _MIXED)

  def test_equals_drawing_from_the_full_pass(self):
    # No cache and no loop: the whole sequence anew for each code.
    codes = np.zeros([16, _CODES], np.int32)
    seeds = tf.constant(_SEEDS, tf.uint32)
    for i in range(_CODES):
      logits = self.model(codes, self.class_ids)[:, i]
      codes[:, i] = sampling.draw(
        logits,
        randomness.uniform(seeds, (logits.shape[-1],), i),
        tf.ones([16]),
        tf.zeros([16], tf.int32),
        tf.ones([16]),
      )
    found = self.decoder(self.class_ids, _SEEDS, _PLAIN)
    self.assertEqual(found.dtype, np.int32)
    self.assertAllEqual(found, codes)
    self.assertGreater(len(np.unique(found, axis=0)), 8)

  def test_guidance_equals_two_full_passes(self):
    codes = np.zeros([2, _CODES], np.int32)
    no_class = np.full([2], _NO_CLASS)
    for i in range(_CODES):
      conditional = self.model(codes, np.array([1, 2]))[:, i].numpy()
      unconditional = self.model(codes, no_class)[:, i].numpy()
      guided = unconditional + 3.0 * (conditional - unconditional)
      codes[:, i] = np.argmax(guided, axis=-1)
    settings = sampling.SamplingConfig(temperature=0.0, guidance_scale=3.0)
    self.assertAllEqual(self.decoder([1, 2], [0, 0], settings), codes)
    self.assertNotAllEqual(self.decoder([1, 2], [0, 0], _GREEDY), codes)

  def test_guidance_by_schedule_equals_two_full_passes(self):
    settings = [
      sampling.SamplingConfig(0.0, 0, 1.0, 4.0, 'linear'),
      sampling.SamplingConfig(0.0, 0, 1.0, 4.0, 'cosine', 0.5),
    ]
    scales = np.stack([config.guidance_scales(_CODES) for config in settings])
    codes = np.zeros([2, _CODES], np.int32)
    no_class = np.full([2], _NO_CLASS)
    for i in range(_CODES):
      conditional = self.model(codes, np.array([1, 2]))[:, i].numpy()
      unconditional = self.model(codes, no_class)[:, i].numpy()
      guided = unconditional + scales[:, i, None] * (
        conditional - unconditional
      )
      codes[:, i] = np.argmax(guided, axis=-1)
    self.assertAllEqual(self.decoder([1, 2], [0, 0], settings), codes)
    constant = sampling.SamplingConfig(0.0, guidance_scale=4.0)
    self.assertNotAllEqual(self.decoder([1, 2], [0, 0], constant), codes)

  @parameterized.parameters(0, 6, 15)
  def test_same_codes_at_batch_1(self, index):
    alone = self.decoder(
      self.class_ids[index : index + 1],
      _SEEDS[index : index + 1],
      _MIXED[index],
    )
    self.assertAllEqual(alone[0], self.mixed[index])

  def test_same_codes_in_another_order(self):
    order = np.random.default_rng(0).permutation(16)
    found = self.decoder(
      self.class_ids[order], _SEEDS[order], [_MIXED[i] for i in order]
    )
    self.assertAllEqual(found, self.mixed[order])

  def test_same_codes_where_threads_share_the_batch(self):
    with testing.one_thread_an_operation(3):
      decoder = decoding.Decoder(self.model)
    with mock.patch.object(decoder, '_loop', side_effect=decoder._loop) as loop:
      found = decoder(self.class_ids, _SEEDS, _MIXED)
      self.assertAllEqual(found, self.mixed)
      self.assertAllEqual(decoder([1], [2], _PLAIN).shape, [1, _CODES])
    sizes = [len(call.args[0]['seeds']) for call in loop.call_args_list]
    # An empty batch first: no thread makes the loop ready for itself.
    self.assertEqual((sizes[0], sorted(sizes[1:])), (0, [1, 5, 5, 6]))

  def test_same_codes_compiled_by_xla(self):
    decoder = decoding.Decoder(self.model, jit_compile=True)
    found = decoder(self.class_ids, _SEEDS, _MIXED)
    self.assertAllEqual(found, self.mixed)
    alone = decoder(self.class_ids[2:3], _SEEDS[2:3], _MIXED[2])
    self.assertAllEqual(alone[0], self.mixed[2])

  @parameterized.product(window=(1, 4, 9), guided=(False, True))
  def test_same_codes_in_windows(self, window, guided):
    """Rows that go at different speeds, of which some begin with a prefix."""
    settings = _MIXED if guided else [_MIXED[i % 2] for i in range(16)]
    prefix = np.random.default_rng(0).integers(0, 11, [16, _CODES])
    args = self.class_ids, _SEEDS, settings, prefix, np.arange(16) % 10
    expected = self._from_full_passes(*args)
    self.assertAllEqual(self.decoder(*args, window=window), expected)

  def _from_full_passes(self, class_ids, seeds, settings, prefix, lengths):
    """Code by code from whole passes, with no cache, window or loop."""
    seeds = tf.constant(seeds, tf.uint32)
    temperature = tf.constant([c.temperature for c in settings], tf.float32)
    top_k = tf.constant([c.top_k for c in settings])
    top_p = tf.constant([c.top_p for c in settings], tf.float32)
    scales = np.stack([c.guidance_scales(_CODES) for c in settings])
    codes = np.array(prefix, np.int32)
    for i in range(_CODES):
      logits, plain = (
        self.model(codes, ids)[:, i]
        for ids in (class_ids, np.full_like(class_ids, _NO_CLASS))
      )
      drawn = sampling.draw(
        sampling.guide(logits, plain, scales[:, i]),
        randomness.uniform(seeds, (11,), i),
        temperature,
        top_k,
        top_p,
      )
      codes[:, i] = np.where(i < lengths, codes[:, i], drawn)
    return codes

  def test_fewer_passes_in_windows(self):
    model = _model()
    passes = tf.Variable(0)
    decode = model.decode

    def counted(*args):
      passes.assign_add(1)
      return decode(*args)

    model.decode = counted
    decoder = decoding.Decoder(model)

    def count(window, *prefix):
      passes.assign(0)
      decoder([0, 1], [1, 2], _PLAIN, *prefix, window=window)
      return passes.numpy()

    self.assertEqual(count(1), _CODES)
    self.assertLess(count(3), _CODES)
    # What is known takes as many passes as it has windows.
    codes = decoder([0, 1], [1, 2], _PLAIN)
    self.assertEqual(count(3, codes, _CODES), 3)
    self.assertEqual(count(4, codes, _CODES), 3)
    self.assertEqual(count(9, codes, _CODES), 1)
    # Codes that hang on nothing before them are all right at the second look.
    model.head.kernel.assign(tf.zeros_like(model.head.kernel))
    self.assertLessEqual(count(9), 2)

  def test_caches_grow_over_more_than_one_loop(self):
    with mock.patch.object(decoding, '_LEAST_CHUNK', 2):
      for jit_compile, window in ((False, 1), (True, 4)):
        decoder = decoding.Decoder(self.model, jit_compile)
        found = decoder(self.class_ids, _SEEDS, _MIXED, window=window)
        self.assertAllEqual(found, self.mixed)

  def test_same_codes_eagerly(self):
    class_ids = tf.constant(self.class_ids[:4], tf.int32)
    found = decoding.decode(
      self.model,
      class_ids=class_ids,
      seeds=tf.constant(_SEEDS[:4], tf.uint32),
      temperature=tf.constant([c.temperature for c in _MIXED[:4]]),
      top_k=tf.constant([c.top_k for c in _MIXED[:4]]),
      top_p=tf.constant([c.top_p for c in _MIXED[:4]]),
      guidance_scale=tf.stack([c.guidance_scales(_CODES) for c in _MIXED[:4]]),
      prefix=tf.zeros([4, _CODES], tf.int32),
      prefix_length=tf.zeros([4], tf.int32),
      guided=True,
    )
    self.assertAllEqual(found, self.mixed[:4])

  def test_one_scale_an_example_in_graph_form(self):
    tensors = dict(
      class_ids=tf.constant([1, 2]),
      seeds=tf.constant([3, 4], tf.uint32),
      temperature=tf.ones([2]),
      top_k=tf.zeros([2], tf.int32),
      top_p=tf.ones([2]),
      prefix=tf.zeros([2, _CODES], tf.int32),
      prefix_length=tf.zeros([2], tf.int32),
    )
    scales = tf.constant([2.0, 0.0])
    found = decoding.decode(
      self.model, guidance_scale=scales, guided=True, **tensors
    )
    settings = [
      sampling.SamplingConfig(guidance_scale=scale) for scale in (2.0, 0.0)
    ]
    self.assertAllEqual(found, self.decoder([1, 2], [3, 4], settings))

  def test_seeds_and_classes_count(self):
    codes = self.decoder([0, 0, 0, 1], [1, 1, 2, 1], _PLAIN)
    self.assertAllEqual(codes[0], codes[1])
    self.assertNotAllEqual(codes[0], codes[2])
    self.assertNotAllEqual(codes[0], codes[3])

  def test_guidance_1_is_none_also_beside_guided_examples(self):
    plain = self.decoder(self.class_ids[:4], _SEEDS[:4], _PLAIN)
    settings = [_PLAIN] * 3 + [sampling.SamplingConfig(guidance_scale=2.0)]
    beside = self.decoder(self.class_ids[:4], _SEEDS[:4], settings)
    self.assertAllEqual(beside[:3], plain[:3])

  def test_guidance_0_is_unconditional(self):
    settings = sampling.SamplingConfig(guidance_scale=0.0)
    found = self.decoder(self.class_ids[:4], _SEEDS[:4], settings)
    expected = self.decoder([_NO_CLASS] * 4, _SEEDS[:4], _PLAIN)
    self.assertAllEqual(found, expected)

  def test_prefix_is_kept_to_the_letter(self):
    rng = np.random.default_rng(0)
    prefix = rng.integers(0, 11, [16, _CODES])
    lengths = np.arange(16) % (_CODES + 1)
    free = self.decoder(self.class_ids, _SEEDS, _PLAIN)
    codes = self.decoder(self.class_ids, _SEEDS, _PLAIN, prefix, lengths)
    for found, kept, length in zip(codes, prefix, lengths):
      self.assertAllEqual(found[:length], kept[:length])
    self.assertAllEqual(codes[lengths == 0], free[lengths == 0])
    # What follows hangs on the prefix, and is what a full pass would draw.
    settings = _GREEDY
    codes = self.decoder(self.class_ids, _SEEDS, settings, prefix, 4)
    logits = self.model(codes, self.class_ids).numpy()
    self.assertAllEqual(codes[:, 4:], np.argmax(logits, axis=-1)[:, 4:])

  def test_unconditional_model(self):
    decoder = decoding.Decoder(_model(num_classes=0))
    codes = decoder([0, 7], [1, 1], _PLAIN)
    self.assertAllEqual(codes[0], codes[1])
    guided = sampling.SamplingConfig(guidance_scale=4.0)
    self.assertAllEqual(decoder([0, 0], [1, 1], guided), codes)

  def test_bfloat16(self):
    model = model_lib.VIM(testing.vim_config(), dtype='mixed_bfloat16')
    model.build()
    codes = decoding.Decoder(model)([0, 1], [1, 2], _PLAIN)
    self.assertEqual(codes.shape, (2, _CODES))
    self.assertAllInRange(codes, 0, 10)

  def test_frozen_decoder_keeps_dense_weights_of_its_first_call(self):
    model = _model(dtype='mixed_bfloat16')
    plain = decoding.Decoder(model)
    frozen = decoding.Decoder(model, frozen=True)
    before = plain(self.class_ids, _SEEDS, _MIXED)
    self.assertAllEqual(frozen(self.class_ids, _SEEDS, _MIXED), before)
    testing.randomize(model.head, seed=1)
    self.assertAllEqual(frozen(self.class_ids, _SEEDS, _MIXED), before)
    self.assertNotAllEqual(plain(self.class_ids, _SEEDS, _MIXED), before)
    # Any number of rows is packed the same way.
    alone = frozen(self.class_ids[2:3], _SEEDS[2:3], _MIXED[2])
    self.assertAllEqual(alone[0], before[2])

  def test_what_can_be_frozen(self):
    self.assertTrue(decoding.can_freeze(_model(dtype='mixed_bfloat16')))
    self.assertFalse(decoding.can_freeze(_model()))
    with mock.patch.object(layers, 'dense_bytes', return_value=2**28 + 1):
      self.assertFalse(decoding.can_freeze(_model(dtype='mixed_bfloat16')))

  def test_same_codes_from_the_loop_that_tensorflow_optimises(self):
    """As that of a larger model is; and it is asked not to for small ones."""

    def optimised(decoder):
      found = []
      loop = decoder._loop

      def call(*arguments):
        found.append(tf.config.optimizer.get_experimental_options())
        return loop(*arguments)

      with mock.patch.object(decoder, '_loop', call):
        codes = decoder(self.class_ids, _SEEDS, _MIXED)
      self.assertAllEqual(codes, self.mixed)
      return not found[0]['disable_meta_optimizer']

    options = tf.config.optimizer
    before = options.get_experimental_options()  # Of all tests: not to.
    self.addCleanup(options.set_experimental_options, before)
    options.set_experimental_options({'disable_meta_optimizer': False})
    self.assertFalse(optimised(self.decoder))
    with mock.patch.object(decoding, '_MOST_AS_TRACED', 0):
      self.assertTrue(optimised(decoding.Decoder(self.model)))
    after = options.get_experimental_options()
    self.assertFalse(after['disable_meta_optimizer'])

  @parameterized.parameters(False, True)
  def test_20_calls_trace_once(self, jit_compile):
    model = _model()
    traces = []
    start = model.start
    model.start = lambda ids: traces.append(1) or start(ids)
    decoder = decoding.Decoder(model, jit_compile)
    rng = np.random.default_rng(0)
    for i in range(20):
      settings = [
        sampling.SamplingConfig(
          temperature=0.1 * i,
          top_k=i % 4,
          top_p=1.0 - 0.02 * i,
          guidance_scale=1.0 + i % 5,
          guidance_schedule=sampling.SCHEDULES[i % 3],
          guidance_power=1.0 + i,
        )
        for _ in range(2)
      ]
      with_prefix = [rng.integers(0, 11, [2, _CODES]), i % 9] if i % 2 else []
      decoder(
        rng.integers(0, 6, [2]),
        rng.integers(0, 2**32, [2]),
        settings if i % 3 else settings[0],
        *with_prefix,
      )
    if not jit_compile:
      decoder([0, 1, 2], [0, 1, 2], _PLAIN)  # Whatever the batch.
    # XLA must know how many rows there are: with guidance twice as many.
    self.assertLen(traces, 2 if jit_compile else 1)


class LargeCodebookTest(tf.test.TestCase):
  """With the paper's 8,192 codes, among which ties are closer."""

  def test_same_codes_at_batch_1_and_compiled(self):
    model = _model(codebook_size=8192)
    class_ids = np.arange(16) % 6
    plain = decoding.Decoder(model)
    compiled = decoding.Decoder(model, jit_compile=True)
    expected = plain(class_ids, _SEEDS, _MIXED)
    self.assertGreater(len(np.unique(expected)), 100)
    self.assertAllEqual(compiled(class_ids, _SEEDS, _MIXED), expected)
    for i in (1, 2, 7):
      for decoder in (plain, compiled):
        alone = decoder(class_ids[i : i + 1], _SEEDS[i : i + 1], _MIXED[i])
        self.assertAllEqual(alone[0], expected[i])


class ReplicasTest(tf.test.TestCase):
  def test_the_same_codes_on_two_replicas(self):
    ids, seeds = [0, 1, 2, 3, 4], [7, 8, 9, 10, 11]
    guided = sampling.SamplingConfig(guidance_scale=2.0)
    strategy = tf.distribute.MirroredStrategy(['cpu:0', 'cpu:1'])
    with strategy.scope():
      spread = _model()
    one = _model()
    spread.set_weights(one.get_weights())
    spread, one = map(decoding.Decoder, (spread, one))
    self.assertAllEqual(spread(ids, seeds, guided), one(ids, seeds, guided))
    # Fewer than before are filled up, and cut off again.
    self.assertAllEqual(
      spread(ids[:3], seeds[:3], guided), one(ids[:3], seeds[:3], guided)
    )


class RefusalTest(testing.TestCase, parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.decoder = decoding.Decoder(_model())

  @parameterized.named_parameters(
    ('class_id', {'class_ids': [0, 6]}, 'class id 6 .*0 to 5'),
    ('negative_class', {'class_ids': [-1, 0]}, 'class id -1 '),
    ('seed', {'seeds': [0, 2**32]}, 'seed 4294967296 .*0 to 4294967295'),
    ('negative_seed', {'seeds': [0, -1]}, 'seed -1 '),
    ('number_of_seeds', {'seeds': [0]}, r'seeds .*\[1\].*\[2\]'),
    ('number_of_configs', {'config': [_PLAIN]}, r'config .*\[1\].*\[2\]'),
    (
      'long_prefix',
      {'prefix': np.zeros([2, 9]), 'prefix_length': 10},
      'prefix_length 10 .*0 to 9',
    ),
    (
      'wide_prefix',
      {'prefix': np.zeros([2, 10]), 'prefix_length': 1},
      r'prefix .*\[2, 10\].*\[2, 9\]',
    ),
    (
      'code_of_prefix',
      {'prefix': np.full([2, 9], 11), 'prefix_length': 1},
      'code 11 .*0 to 10',
    ),
    ('window', {'window': 10}, 'window 10 .*0 to 9'),
    ('no_prefix', {'prefix_length': 3}, 'prefix_length without a prefix'),
    (
      'number_of_lengths',
      {'prefix': np.zeros([2, 9]), 'prefix_length': [1, 2, 3]},
      r'prefix_length .*\[3\].*\[2\]',
    ),
  )
  def test_refuses(self, change, pattern):
    arguments = {'class_ids': [0, 1], 'seeds': [0, 1], 'config': _PLAIN}
    with self.assertRaisesRegex(config_lib.ConfigError, pattern) as context:
      self.decoder(**{**arguments, **change})
    self.assertNotIn('\n', str(context.exception))


if __name__ == '__main__':
  tf.test.main()
