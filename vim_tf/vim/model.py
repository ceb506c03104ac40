"""VIM, the stage-2 model: the next code from the codes before it (paper 4)."""

import tensorflow as tf

from vim_tf.config import VIMConfig
from vim_tf.nn import attention, layers, positions, randomness, transformer

_EMBEDDING_DROPOUT_STREAM = 1_000_000  # Above any block's streams.


@tf.keras.saving.register_keras_serializable(package='vim_tf')
class VIM(layers.ConfiguredModel):
  """A causal Transformer over the codes of an image, in raster order.

  The sequence is a start vector followed by the codes; the output at each
  element predicts the next code. The start vector is a row of the class
  table, or one learned vector for the unconditional model. Row `num_classes`
  of the class table means 'no class', for classifier-free guidance.

  Args:
    config: Every size of the model.
    recompute: Whether blocks recompute activations, for memory.
    **kwargs: Arguments of `tf.keras.Model`; `dtype='mixed_bfloat16'` computes
      in bfloat16, the logits' softmax excepted.
  """

  config_class = VIMConfig

  def __init__(self, config: VIMConfig, recompute: bool = False, **kwargs):
    super().__init__(config, recompute, **{'name': 'vim', **kwargs})
    dtype = self.dtype_policy
    self.code_embedding = tf.keras.layers.Embedding(
      config.codebook_size,
      config.transformer.width,
      embeddings_initializer=tf.keras.initializers.RandomNormal(stddev=0.02),
      dtype=dtype,
      name='code_embedding',
    )
    self.start_embedding = tf.keras.layers.Embedding(
      config.num_classes + 1,
      config.transformer.width,
      embeddings_initializer=tf.keras.initializers.RandomNormal(stddev=0.02),
      dtype=dtype,
      name='start_embedding',
    )
    self.positions = positions.GridPositions(
      config.grid_size, config.positions, dtype=dtype, name='positions'
    )
    self.transformer = transformer.Transformer(
      config.transformer,
      causal=True,
      recompute=recompute,
      grid_size=config.grid_size,
      dtype=dtype,
      name='transformer',
    )
    self.head = layers.dense(
      config.codebook_size, config.transformer.width, dtype, 'head'
    )

  def build(self, input_shape=None):
    """Makes every variable; the sizes are known without an input."""
    width = self.config.transformer.width
    if not self.built:
      self.code_embedding.build([None, None])
      self.start_embedding.build([None])
      self.positions.build([None, None, width])
      self.transformer.build([None, None, width])
    self.built = True

  def start(self, class_ids: tf.Tensor) -> tf.Tensor:
    """First elements of sequences: ids `[batch]` to `[batch, 1, width]`.

    The unconditional model has one start vector, whatever the ids.
    """
    if not self.config.num_classes:
      class_ids = tf.zeros_like(class_ids)
    return self.start_embedding(class_ids)[:, None]

  def embed(self, codes: tf.Tensor) -> tf.Tensor:
    """Codes from the first on, `[batch, length]`, to `[.., length, width]`."""
    return self.positions(self.code_embedding(codes))

  def call(
    self,
    codes: tf.Tensor,
    class_ids: tf.Tensor,
    seeds: tf.Tensor | None = None,
    out: dict | None = None,
    training: bool | None = None,
    head: bool = True,
  ) -> tf.Tensor:
    """Logits of every code given those before it.

    Args:
      codes: int32 `[batch, num_codes]`.
      class_ids: int32 `[batch]`; `num_classes` means 'no class'.
      seeds: uint32 `[batch]` of the examples for dropout; None: no dropout.
      out: If given, receives the intermediates by name: 'embedded',
        'block_<index>' and 'final', each `[batch, num_codes, width]`.
      training: Keras hands it on to `transformer.MLP`.
      head: False leaves out the last layer, for `likelihood.of_codes`.

    Returns:
      float32 `[batch, num_codes, codebook_size]`; without the head what it
      takes, `[batch, num_codes, width]`.
    """
    del training
    x = tf.concat([self.start(class_ids), self.embed(codes[:, :-1])], axis=1)
    if seeds is not None:
      x = randomness.dropout(
        x, self.config.transformer.dropout, seeds, _EMBEDDING_DROPOUT_STREAM
      )
    if out is not None:
      out['embedded'] = x
    x = self.transformer(x, seeds, out)
    if out is not None:
      out['final'] = x
    return self.logits(x) if head else x

  def intermediates(
    self, codes: tf.Tensor, class_ids: tf.Tensor, last_block: int | None = None
  ) -> dict[str, tf.Tensor]:
    """What the blocks make of a whole image, for probes (paper 4.2).

    A pass that predicts never takes in the last code, because none follows
    it. This one takes in all codes, as the paper's probe does.

    Args:
      codes: int32 `[batch, num_codes]`.
      class_ids: int32 `[batch]`; `num_classes` means 'no class'.
      last_block: Index of the last block to run; None runs all.

    Returns:
      'embedded', 'block_<index>' of every block run and, after all of them,
      'final', each `[batch, num_codes, width]`: the elements of the codes,
      without the start, which is the same for every image.
    """
    x = tf.concat([self.start(class_ids), self.embed(codes)], axis=1)
    out = {'embedded': x}
    num_blocks = None if last_block is None else last_block + 1
    x = self.transformer(x, None, out, num_blocks)
    if last_block is None:
      out['final'] = x
    return {name: value[:, 1:] for name, value in out.items()}

  def logits(self, x: tf.Tensor) -> tf.Tensor:
    """`[..., width]` to float32 `[..., codebook_size]`."""
    return tf.cast(self.head(x), tf.float32)

  def new_cache(self, batch, in_place: bool = False) -> list[attention.KVCache]:
    """Caches for no element of sequences yet; see `KVCache`."""
    return self.transformer.new_cache(batch, in_place)

  def decode(
    self,
    before: tf.Tensor,
    start: tf.Tensor,
    caches: list[attention.KVCache],
    positions: tf.Tensor,
  ) -> tuple[tf.Tensor, list[attention.KVCache]]:
    """Logits of codes at a window of positions, which may begin anywhere.

    Args:
      before: int32 `[batch, window]`: the code before each position; of the
        first one, anything.
      start: `[batch, 1, width]` as of `start`.
      caches: Keys and values of the elements before the window.
      positions: int32 `[batch, window]`.

    Returns:
      float32 `[batch * window, codebook_size]`, and the caches with these
      elements.
    """
    width = self.config.transformer.width
    places = tf.maximum(positions - 1, 0)
    vectors = tf.gather(self.positions.vectors(width), places)
    x = self.code_embedding(before) + vectors
    x = tf.where(positions[..., None] == 0, start, x)
    x, caches = self.transformer.decode(x, caches, positions)
    return self.logits(tf.reshape(x, [-1, width])), caches


def negative_log_likelihood(logits: tf.Tensor, codes: tf.Tensor) -> tf.Tensor:
  """Nats of each code: `[batch, num_codes, codebook_size]` to `[.., codes]`."""
  return tf.nn.sparse_softmax_cross_entropy_with_logits(
    labels=codes, logits=logits
  )
