"""Drawing whole images' codes: one compiled loop with a fixed-size cache."""

from collections.abc import Sequence
import functools

import numpy as np
import tensorflow as tf

from vim_tf.config import ConfigError
from vim_tf.nn import layers, randomness, replicas
from vim_tf.vim import model as model_lib
from vim_tf.vim import sampling

_MOST_FROZEN = 2**28
"""Bytes of weights that are frozen at most.

TensorFlow takes some 20 times as much memory while it makes such a graph.
"""


class Decoder:
  """Samples codes from a VIM, by a loop that is traced once.

  Where the VIM was made under a strategy of several replicas, or of a TPU, they
  share each batch; the codes are the same.

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
    self._frozen = frozen and not self._static and can_freeze(model)
    if one:
      self._loop = tf.function(
        self._decode,
        jit_compile=jit_compile,
        autograph=False,
        input_signature=None if jit_compile else self._signature(),
      )
    else:
      loops = {
        guided: replicas.OnReplicas(
          functools.partial(self._decode_part, guided), strategy
        )
        for guided in (False, True)
      }
      self._loop = lambda guided, **examples: loops[guided](examples)

  def __call__(
    self,
    class_ids: Sequence[int],
    seeds: Sequence[int],
    config: sampling.SamplingConfig | Sequence[sampling.SamplingConfig],
    prefix: np.ndarray | None = None,
    prefix_length: int | Sequence[int] = 0,
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

    Returns:
      int32 `[batch, num_codes]`.

    Raises:
      ConfigError: If an id, a seed, a code or the prefix's length is out of
        range, or there is not one of each for every example.
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
    scales = np.stack([c.guidance_scales(sizes.num_codes) for c in config])
    guided = bool(sizes.num_classes) and bool(np.any(scales != 1.0))
    if not self._static:
      guided = tf.constant(guided)  # A tensor does not trace the loop again.
    codes = self._loop(
      class_ids=tf.constant(class_ids, tf.int32),
      seeds=tf.constant(seeds.astype(np.uint32)),
      temperature=tf.constant([c.temperature for c in config], tf.float32),
      top_k=tf.constant([c.top_k for c in config], tf.int32),
      top_p=tf.constant([c.top_p for c in config], tf.float32),
      guidance_scale=tf.constant(scales),
      prefix=tf.constant(prefix, tf.int32),
      prefix_length=tf.constant(lengths, tf.int32),
      guided=guided,
    )
    return np.asarray(codes)

  def _signature(self) -> list[tf.TensorSpec]:
    """Of a loop for any batch, in the order of the arguments."""
    length = self._model.config.num_codes
    return [
      *(tf.TensorSpec([None], dtype) for dtype in (tf.int32, tf.uint32)),
      *(tf.TensorSpec([None], d) for d in (tf.float32, tf.int32, tf.float32)),
      tf.TensorSpec([None, length]),  # Scales of guidance.
      tf.TensorSpec([None, length], tf.int32),
      tf.TensorSpec([None], tf.int32),
      tf.TensorSpec([], tf.bool),
    ]

  def _decode_part(self, guided, examples):
    return self._decode(**examples, guided=guided)

  def _decode(
    self,
    class_ids,
    seeds,
    temperature,
    top_k,
    top_p,
    guidance_scale,
    prefix,
    prefix_length,
    guided,
  ):
    return decode(
      self._model,
      class_ids=class_ids,
      seeds=seeds,
      temperature=temperature,
      top_k=top_k,
      top_p=top_p,
      guidance_scale=guidance_scale,
      prefix=prefix,
      prefix_length=prefix_length,
      guided=guided,
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
    in_place: Whether the cache is written in place: faster, not under XLA.
    frozen: Whether the loop holds the weights as they are now, as constants:
      faster, see `layers.held_weights`.

  Returns:
    int32 `[batch, num_codes]`.
  """
  length = model.config.num_codes
  batch = class_ids.shape[0] or tf.shape(class_ids)[0]
  if guidance_scale.shape.rank == 1:
    guidance_scale = tf.tile(guidance_scale[:, None], [1, length])
  copies = 1 + (tf.cast(guided, tf.int32) if tf.is_tensor(guided) else guided)
  no_class = tf.fill([(copies - 1) * batch], model.config.num_classes)
  x = model.start(tf.concat([class_ids, no_class], axis=0))

  def body(position, x, caches, codes):
    logits, caches = model.decode_step(x, caches, position)
    if guided is not False:
      # Without guidance both are the same, and the scale is 1: no change.
      logits = sampling.guide(
        logits[:batch], logits[-batch:], guidance_scale[:, position]
      )
    uniforms = randomness.uniform(
      seeds, (model.config.codebook_size,), position
    )
    code = sampling.draw(logits, uniforms, temperature, top_k, top_p)
    code = tf.where(position < prefix_length, prefix[:, position], code)
    codes = codes.write(position, code)
    x = model.embed_one(code, position)
    return position + 1, tf.tile(x, [copies, 1, 1]), caches, codes

  codes = tf.TensorArray(tf.int32, size=length, element_shape=[None])
  caches = model.new_cache(tf.shape(x)[0], in_place)
  with layers.held_weights(model, frozen):
    *_, codes = tf.while_loop(
      lambda position, *_: position < length,
      body,
      (tf.constant(0), x, caches, codes),
      maximum_iterations=length,
    )
  return tf.transpose(codes.stack())


def _check_shape(name: str, shape: tuple[int, ...], right: tuple[int, ...]):
  if shape != right:
    raise ConfigError(
      f'{name} has the shape {list(shape)}, but must have {list(right)}.'
    )


def _check_range(name: str, values: np.ndarray, highest: int):
  wrong = values[(values < 0) | (values > highest)]
  if wrong.size:
    raise ConfigError(f'{name} {wrong[0]} is out of range: 0 to {highest}.')
