"""Drawing whole images' codes: one compiled loop with a cache.

Codes are drawn in windows. The noise of a draw belongs to its seed and
position, so that a code hangs on nothing but the codes before it: a pass takes
a window of guesses, draws every code of it anew, and those that followed right
guesses are what drawing one by one would have given (Jacobi iteration, Song et
al., 2021; Teng et al., 2024, with an acceptance rule that is not needed here).
What was drawn beyond them is the next guess.
"""

from collections.abc import Sequence
import functools

import numpy as np
import tensorflow as tf

from vim_tf.config import ConfigError, VIMConfig
from vim_tf.nn import layers, randomness, replicas
from vim_tf.vim import model as model_lib
from vim_tf.vim import sampling

_MOST_FROZEN = 2**28
"""Bytes of weights that are frozen at most.

TensorFlow takes some 20 times as much memory while it makes such a graph.
"""

_MOST_AS_TRACED = 2**24
"""Bytes of weights, if they are not frozen, up to which TensorFlow does not
optimise the loop: it takes longer than to draw an image, and gains nothing."""

_ROWS_OF_A_PASS = 16
_MOST_WINDOW = 16
_LEAST_CHUNK = 128
_MOST_CHUNKS = 4


class Decoder:
  """Samples codes from a VIM, by a loop that is traced once.

  Where the VIM was made under a strategy of several replicas, or of a TPU, they
  share each batch; the codes are the same. So do the threads of a CPU, if an
  operation has but one (`replicas.streams`).

  Args:
    model: A built VIM.
    jit_compile: Whether XLA compiles the loop; then once for each batch size,
      with guidance and without.
    frozen: Whether the weights may be taken as they are at the first call, for
      speed: for a model that is not trained any more, and where `can_freeze`.
  """

  def __init__(
    self,
    model: model_lib.VIM,
    jit_compile: bool = False,
    frozen: bool = False,
  ):
    strategy = replicas.of(model)
    one = replicas.is_one(strategy)
    self._model = model
    self._xla = jit_compile or replicas.is_xla(strategy)
    self._static = self._xla or not one
    self._streams = replicas.streams(strategy)
    self._frozen = frozen and not self._static and can_freeze(model)
    small = layers.dense_bytes(model) <= _MOST_AS_TRACED
    self._ready = self._xla  # An empty batch would be compiled.
    self._as_traced = small and not self._static and not self._frozen
    if one:
      self._loop = tf.function(
        self._decode,
        jit_compile=jit_compile,
        autograph=False,
        input_signature=None if jit_compile else self._signature(),
      )
    else:

      @functools.cache
      def loop(guided, window):
        part = functools.partial(self._decode, guided=guided, window=window)
        return replicas.OnReplicas(part, strategy)

      self._loop = lambda examples, *static: loop(*static)(examples)

  def __call__(
    self,
    class_ids: Sequence[int],
    seeds: Sequence[int],
    config: sampling.SamplingConfig | Sequence[sampling.SamplingConfig],
    prefix: np.ndarray | None = None,
    prefix_length: int | Sequence[int] = 0,
    window: int = 0,
  ) -> np.ndarray:
    """Draws the codes of a batch of images.

    Args:
      class_ids: `[batch]` class ids in [0, num_classes]; `num_classes` means
        'no class'. Ignored by the unconditional model.
      seeds: `[batch]` integers in [0, 2**32): in float32 the same seed, class
        and settings give the same image in any batch.
      config: Settings for all, or one for each example.
      prefix: Optional int codes `[batch, num_codes]` to start from.
      prefix_length: How many codes of `prefix` to keep: one number, or one
        for each example.
      window: How many codes of an image to guess and check at once; 0: what
        suits the batch. In float32 it changes no code.

    Returns:
      int32 `[batch, num_codes]`.

    Raises:
      ConfigError: If an id, a seed, a code, the prefix's length or the window
        is out of range, or there is not one of each for every example.
    """
    sizes = self._model.config
    batch = len(class_ids)
    if isinstance(config, sampling.SamplingConfig):
      config = [config] * batch
    class_ids = np.asarray(class_ids, np.int64)
    seeds = np.asarray(seeds, np.int64)
    lengths = np.asarray(prefix_length, np.int64)
    if not lengths.ndim:
      lengths = np.full([batch], lengths)
    if prefix is None:
      prefix = np.zeros([batch, sizes.num_codes], np.int64)
      _check_range('prefix_length without a prefix', lengths, 0)
    prefix = np.asarray(prefix, np.int64)
    _check_shape('seeds', seeds.shape, (batch,))
    _check_shape('config', (len(config),), (batch,))
    _check_shape('prefix_length', lengths.shape, (batch,))
    _check_shape('prefix', prefix.shape, (batch, sizes.num_codes))
    if sizes.num_classes:
      _check_range('class id', class_ids, sizes.num_classes)
    _check_range('seed', seeds, 2**32 - 1)
    _check_range('prefix_length', lengths, sizes.num_codes)
    _check_range('code', prefix, sizes.codebook_size - 1)
    check_window(window, sizes)
    scales = np.stack([c.guidance_scales(sizes.num_codes) for c in config])
    guided = bool(sizes.num_classes) and bool(np.any(scales != 1.0))
    examples = {
      'class_ids': class_ids.astype(np.int32),
      'seeds': seeds.astype(np.uint32),
      'temperature': np.float32([c.temperature for c in config]),
      'top_k': np.int32([c.top_k for c in config]),
      'top_p': np.float32([c.top_p for c in config]),
      'guidance_scale': scales.astype(np.float32),
      'prefix': prefix.astype(np.int32),
      'prefix_length': lengths.astype(np.int32),
    }

    def draw(own):
      one = {name: tf.constant(value[own]) for name, value in examples.items()}
      if self._static:
        return np.asarray(self._loop(one, guided, window))
      # Tensors do not trace the loop again.
      best = best_window(len(own) * (1 + guided), sizes.num_codes)
      static = tf.constant(guided), tf.constant(window or best)
      return np.asarray(self._loop(one, *static))

    parts = np.array_split(np.arange(batch), max(1, min(batch, self._streams)))
    with replicas.as_traced(self._as_traced):
      if len(parts) > 1 and not self._ready:
        draw(parts[0][:0])  # Else each thread makes the loop ready for itself.
        self._ready = True
      return np.concatenate(replicas.at_once(draw, parts))

  def _signature(self) -> list:
    """Of a loop for any batch."""
    length = self._model.config.num_codes
    examples = {
      'class_ids': tf.TensorSpec([None], tf.int32),
      'seeds': tf.TensorSpec([None], tf.uint32),
      'temperature': tf.TensorSpec([None]),
      'top_k': tf.TensorSpec([None], tf.int32),
      'top_p': tf.TensorSpec([None]),
      'guidance_scale': tf.TensorSpec([None, length]),
      'prefix': tf.TensorSpec([None, length], tf.int32),
      'prefix_length': tf.TensorSpec([None], tf.int32),
    }
    return [examples, tf.TensorSpec([], tf.bool), tf.TensorSpec([], tf.int32)]

  def _decode(self, examples, guided, window):
    return decode(
      self._model,
      **examples,
      guided=guided,
      window=window,
      in_place=not self._xla,
      frozen=self._frozen,
    )


def can_freeze(model: model_lib.VIM) -> bool:
  """Whether a loop gains from weights that are constants, and can hold them.

  That is in bfloat16, up to a quarter of a GB. In float32 they would gain less,
  and lose where a batch is followed by one that is packed another way.
  """
  small = layers.dense_bytes(model) <= _MOST_FROZEN
  return model.compute_dtype == 'bfloat16' and small


def decode(
  model: model_lib.VIM,
  *,
  class_ids: tf.Tensor,
  seeds: tf.Tensor,
  temperature: tf.Tensor,
  top_k: tf.Tensor,
  top_p: tf.Tensor,
  guidance_scale: tf.Tensor,
  prefix: tf.Tensor,
  prefix_length: tf.Tensor,
  guided: bool | tf.Tensor,
  window: int | tf.Tensor = 0,
  in_place: bool = False,
  frozen: bool = False,
) -> tf.Tensor:
  """The loop itself, in graph form.

  Args:
    model: A built VIM.
    class_ids: int32 `[batch]`; this and the next ones as of `Decoder`.
    seeds: uint32 `[batch]`.
    temperature: float32 `[batch]`.
    top_k: int32 `[batch]`.
    top_p: float32 `[batch]`.
    guidance_scale: float32 `[batch]`, or `[batch, num_codes]` where it goes by
      a schedule over the positions.
    prefix: int32 `[batch, num_codes]`.
    prefix_length: int32 `[batch]`.
    guided: Whether every example runs twice, with and without its class, as
      one batch of twice the size. Under XLA, which needs to know the size, a
      Python bool; else it may be a scalar tensor.
    window: How many codes of an example to guess and draw at once; 0: see
      `best_window`. Under XLA a Python integer, else it may be a tensor.
    in_place: Whether the cache is written in place: faster, not under XLA.
    frozen: Whether the loop holds the weights as they are now, as constants:
      faster, see `layers.held_weights`.

  Returns:
    int32 `[batch, num_codes]`.
  """
  length, grid = model.config.num_codes, model.config.grid_size
  batch = class_ids.shape[0] or tf.shape(class_ids)[0]
  if guidance_scale.shape.rank == 1:
    guidance_scale = tf.tile(guidance_scale[:, None], [1, length])
  copies = 1 + (tf.cast(guided, tf.int32) if tf.is_tensor(guided) else guided)
  no_class = tf.fill([(copies - 1) * batch], model.config.num_classes)
  start = model.start(tf.concat([class_ids, no_class], axis=0))
  if isinstance(window, int) and not window:
    window = best_window(batch * copies, length)
  rows = tf.range(batch * window)
  seeds, temperature, top_k, top_p = (
    tf.repeat(value, window) for value in (seeds, temperature, top_k, top_p)
  )
  columns = tf.range(length)

  def body(done, codes, caches):
    # The last window begins early, rather than end beyond the last code.
    first = tf.minimum(done, length - window)
    positions = first[:, None] + tf.range(window)
    flat = tf.reshape(positions, [-1])
    guess = tf.gather(codes, positions, batch_dims=1)
    before = tf.gather(codes, tf.maximum(positions - 1, 0), batch_dims=1)
    logits, caches = model.decode(
      tf.tile(before, [copies, 1]),
      start,
      caches,
      tf.tile(positions, [copies, 1]),
    )
    if guided is not False:
      # Without guidance both are the same, and the scale is 1: no change.
      scale = tf.gather(guidance_scale, positions, batch_dims=1)
      logits = sampling.guide(
        logits[: batch * window],
        logits[-batch * window :],
        tf.reshape(scale, [-1]),
      )
    uniforms = randomness.uniform(seeds, (logits.shape[-1],), flat)
    drawn = sampling.draw(logits, uniforms, temperature, top_k, top_p)
    known = tf.maximum(done, prefix_length)[:, None]
    drawn = tf.where(
      positions < known, guess, tf.reshape(drawn, tf.shape(guess))
    )
    # A draw is final if all codes before it in the window were guessed right.
    right = tf.math.cumprod(tf.cast(drawn == guess, tf.int32), axis=1)
    done = first + tf.minimum(1 + tf.reduce_sum(right, axis=1), window)
    codes = tf.tensor_scatter_nd_update(
      codes, tf.stack([rows // window, flat], axis=1), tf.reshape(drawn, [-1])
    )
    # What no window has reached yet is guessed to be as what is above it.
    above = tf.concat([codes[:, :grid], codes[:, :-grid]], axis=1)
    unseen = columns >= tf.maximum(first + window, prefix_length)[:, None]
    return done, tf.where(unseen, above, codes), caches

  chunk = min(length, max(_LEAST_CHUNK, -(-length // _MOST_CHUNKS)))

  def extend(end, done, codes, caches):
    """Goes on as far as a cache of `end` positions can hold."""
    caches = [cache.grown(chunk) for cache in caches]
    last = length - window
    return tf.while_loop(
      lambda done, *_: (
        tf.reduce_any(done < length)
        & tf.reduce_all(tf.minimum(done, last) + window <= end)
      ),
      body,
      (done, codes, caches),
    )

  caches = model.new_cache(tf.shape(start)[0], in_place)
  state = tf.zeros_like(class_ids), prefix, caches
  with layers.held_weights(model, frozen):
    if in_place and chunk < length:  # Traced once, with caches that grow.
      _, _, codes, _ = tf.while_loop(
        lambda end, *_: end < length + chunk,
        lambda end, *state: (end + chunk, *extend(end, *state)),
        (chunk, *state),
      )
      return codes
    for end in range(chunk, length + chunk, chunk):
      state = extend(end, *state)
  return state[1]


def best_window(rows: int | tf.Tensor, num_codes: int) -> int | tf.Tensor:
  """How many codes to guess at once.

  Args:
    rows: Sequences that run at once.
    num_codes: Codes of a sequence.
  """
  most = min(_MOST_WINDOW, num_codes)
  if tf.is_tensor(rows):
    return tf.clip_by_value(_ROWS_OF_A_PASS // tf.maximum(rows, 1), 1, most)
  return min(max(1, _ROWS_OF_A_PASS // max(rows, 1)), most)


def check_window(window: int, config: VIMConfig):
  """Refuses a number of codes that an image does not have."""
  _check_range('window', np.asarray([window]), config.num_codes)


def _check_shape(name: str, shape: tuple[int, ...], right: tuple[int, ...]):
  if shape != right:
    raise ConfigError(
      f'{name} has the shape {list(shape)}, but must have {list(right)}.'
    )


def _check_range(name: str, values: np.ndarray, highest: int):
  wrong = values[(values < 0) | (values > highest)]
  if wrong.size:
    raise ConfigError(f'{name} {wrong[0]} is out of range: 0 to {highest}.')
