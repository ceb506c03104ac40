"""Exports a VIM with its tokenizer for TF Serving: classes to images.

  ./bazelw run //export:sampler -- --workdir=runs/vim --base=exports/sampler

The same from Python: `sampler.export('runs/vim', 'exports/sampler')`.
"""

from __future__ import annotations

import os

from absl import flags
from etils import epy
import numpy as np

from experiments import flags as flags_lib
from export import settings as settings_lib

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  import tensorflow as tf

  from export import checks, reading, saved_model, signatures, warmup
  from vim_tf.jobs import restore
  from vim_tf.vim import decoding
  from vim_tf.vim import model as vim_model
  from vim_tf.vit_vqgan import model as vit_vqgan_model

_BITS_PER_NAT = 1.4426950408889634
_LARGEST = 1000.0  # Of what has no upper end: beyond it nothing changes.


class Sampler:
  """A VIM with its tokenizer for a server.

  Every setting is one value an example, and what an example draws does not
  depend on who shares its batch. Signatures:
    serving_default: `class_ids`, `seeds`, `temperature`, `top_k`, `top_p`,
      `guidance_scale` to `png_bytes` and `codes`.
    sample_images: the same to `images` and `codes`.
    complete: `image_bytes` and `kept_rows`, and the same as above, to
      `png_bytes` and `codes`: the upper rows of codes stay, the rest is drawn.
    negative_log_likelihood: `image_bytes` and `class_ids` to `nats`, of all
      codes of an image together, and `bits_per_code`.

  Args:
    vim: A built VIM.
    tokenizer: The tokenizer of its codes.
    settings: Those of the export.
    jit_compile: Whether XLA compiles the loop, once for each batch size. The
      server then spends a minute or so at the first request of a size.
    frozen: Whether the loop may hold its weights as constants, see
      `decoding.can_freeze`. It is faster; the export is larger by them.
    window: How many codes of an image to guess and check at once; 0: what
      suits the batch of a request. See `decoding.decode`.
  """

  def __init__(
    self,
    vim: vim_model.VIM,
    tokenizer: vit_vqgan_model.ViTVQGAN,
    settings: settings_lib.Settings = settings_lib.DEFAULTS,
    jit_compile: bool = False,
    frozen: bool = True,
    window: int = 0,
  ):
    classes = vim.config.num_classes  # This number itself: no class.
    ranges = {
      'class_ids': checks.Range(0, classes),
      'seeds': checks.Range(0, 2**32 - 1),
      'temperature': checks.Range(0.0, _LARGEST),
      'top_k': checks.Range(0, 2**31 - 1),
      'top_p': checks.Range(0.0, 1.0, above_low=True),
      'guidance_scale': checks.Range(0.0, _LARGEST),
      'kept_rows': checks.Range(0, vim.config.grid_size),
    }
    decoding.check_window(window, vim.config)
    self.module = signatures.SignatureModule(
      'sampler', settings, ranges, vim=vim, tokenizer=tokenizer
    )
    self.parts = self.module.parts
    self.parts.window = window
    self.parts.loops = {}
    if jit_compile:
      self.parts.loops = {
        guided: self._make_compiled_loop(guided)
        for guided in ((False, True) if classes else (False,))
      }
    else:
      frozen = frozen and decoding.can_freeze(vim)
      self.parts.plain_loop = self._make_plain_loop(frozen)
    drawing = (
      signatures.example(tf.int32, 'class_ids'),
      signatures.example(tf.int64, 'seeds'),
      signatures.example(tf.float32, 'temperature'),
      signatures.example(tf.int32, 'top_k'),
      signatures.example(tf.float32, 'top_p'),
      signatures.example(tf.float32, 'guidance_scale'),
    )
    encoded = signatures.example(tf.string, 'image_bytes')
    kept = signatures.example(tf.int32, 'kept_rows')
    self.module.add(signatures.SERVE, self.sample, *drawing)
    self.module.add('sample_images', self.sample_images, *drawing)
    self.module.add('complete', self.complete, encoded, kept, *drawing)
    self.module.add(
      'negative_log_likelihood',
      self.negative_log_likelihood,
      encoded,
      drawing[0],
    )

  def sample(self, **settings: tf.Tensor) -> dict[str, tf.Tensor]:
    """One PNG file an example, with its codes; every setting `[batch]`."""
    found = self.sample_images(**settings)
    return {
      'png_bytes': reading.to_png(found['images']),
      'codes': found['codes'],
    }

  def sample_images(self, **settings: tf.Tensor) -> dict[str, tf.Tensor]:
    """One image `[batch, size, size, 3]` an example, with its codes."""
    class_ids = settings['class_ids']
    shape = [tf.shape(class_ids)[0], self.parts.vim.config.num_codes]
    codes = self._draw(
      prefix=tf.zeros(shape, tf.int32),
      prefix_length=tf.zeros_like(class_ids),
      **settings,
    )
    return {'images': self.parts.tokenizer.decode(codes), 'codes': codes}

  def complete(
    self, image_bytes: tf.Tensor, kept_rows: tf.Tensor, **settings: tf.Tensor
  ) -> dict[str, tf.Tensor]:
    """Keeps the upper rows of an image's codes and draws the others."""
    codes = self._draw(
      prefix=self._encode(image_bytes),
      prefix_length=kept_rows * self.parts.vim.config.grid_size,
      **settings,
    )
    images = self.parts.tokenizer.decode(codes)
    return {'png_bytes': reading.to_png(images), 'codes': codes}

  def negative_log_likelihood(
    self, image_bytes, class_ids
  ) -> dict[str, tf.Tensor]:
    """How unlikely images' codes are, given their classes."""
    codes = self._encode(image_bytes)
    logits = self.parts.vim(codes, class_ids)
    nats = vim_model.negative_log_likelihood(logits, codes)
    return {
      'nats': tf.reduce_sum(nats, axis=1),
      'bits_per_code': tf.reduce_mean(nats, axis=1) * _BITS_PER_NAT,
    }

  def _encode(self, image_bytes):
    tokenizer = self.parts.tokenizer
    size = tokenizer.config.image_size
    return tokenizer.encode(
      reading.read(image_bytes, size, self.parts.settings)
    )

  def _draw(self, **inputs):
    inputs['seeds'] = tf.cast(inputs['seeds'], tf.uint32)
    vim, loops = self.parts.vim, self.parts.loops
    # Guidance runs every example twice: only if one of them asks for it.
    guided = bool(vim.config.num_classes) and tf.reduce_any(
      inputs['guidance_scale'] != 1.0
    )
    if not loops:
      return self.parts.plain_loop(guided=guided, **inputs)
    if guided is False:
      return loops[False](**inputs)
    return tf.cond(
      guided, lambda: loops[True](**inputs), lambda: loops[False](**inputs)
    )

  def _make_plain_loop(self, frozen: bool):
    def loop(**inputs):
      return decoding.decode(
        self.parts.vim,
        window=self.parts.window,
        in_place=True,
        frozen=frozen,
        **inputs,
      )

    # One for all signatures, so that a server holds constants once.
    return tf.function(
      loop, autograph=False, experimental_attributes={'_noinline': frozen}
    )

  def _make_compiled_loop(self, guided: bool):
    def loop(**inputs):
      return decoding.decode(
        self.parts.vim, window=self.parts.window, guided=guided, **inputs
      )

    return tf.function(loop, jit_compile=True, autograph=False)


def export(
  workdir: str | os.PathLike,
  base: str | os.PathLike,
  tokenizer: str = '',
  xla: bool = False,
  frozen: bool = True,
  window: int = 0,
  settings: settings_lib.Settings = settings_lib.DEFAULTS,
) -> str:
  """Writes the next version of a VIM with its tokenizer.

  Args:
    workdir: Working directory of a stage-2 run.
    base: Folder of the versions.
    tokenizer: Its stage-1 run, if that was moved.
    xla: Whether XLA compiles the loop, at the first request of a batch size.
    frozen: Whether the graph holds the loop's weights, too, where it may: in
      bfloat16, without XLA and up to 256 MB of them.
    window: As of `Sampler`, 0 to the codes of an image.
    settings: What every exporter can be told.

  Returns:
    The version's folder.

  Raises:
    UserError: If a run cannot be read or the version cannot be written.
  """
  saved_model.new_version(base, settings.version)  # Refused before the work.
  first, second = restore.both(
    workdir, tokenizer, restore.policy(settings.precision)
  )
  plain = warmup.sampling_settings()
  guided = {**plain, 'guidance_scale': np.full(1, 2.0, np.float32)}
  encoded = [warmup.image(first.config.model.image_size)]
  completed = {'image_bytes': encoded, 'kept_rows': np.ones(1, np.int32)}
  found = saved_model.Export(
    Sampler(second.model, first.model, settings, xla, frozen, window).module,
    second.record['class_names'] if second.config.model.num_classes else [],
    config={
      'vim': second.record,
      'vim_step': second.step,
      'tokenizer': first.record,
      'tokenizer_step': first.step,
    },
    requests=[
      (signatures.SERVE, plain),
      (signatures.SERVE, guided),
      ('sample_images', plain),
      ('sample_images', guided),
      ('complete', {**completed, **plain}),
      ('complete', {**completed, **guided}),
      (
        'negative_log_likelihood',
        {'image_bytes': encoded, 'class_ids': plain['class_ids']},
      ),
    ],
  )
  return saved_model.write(found, base, settings)


def define_flags():
  """Defines the flags of the binary."""
  flags.DEFINE_string(
    'workdir',
    None,
    '[model] Working directory of a stage-2 run.',
    required=True,
  )
  flags.DEFINE_string(
    'tokenizer', '', '[model] Its stage-1 run, if that was moved.'
  )
  flags.DEFINE_bool(
    'xla',
    False,
    '[graph] Compile the loop with XLA, at the first request of a batch size.',
  )
  flags.DEFINE_bool(
    'frozen',
    True,
    '[graph] In bfloat16, without XLA and up to 256 MB of weights: keep them '
    'in the graph, too, which makes it faster.',
  )
  flags.DEFINE_integer(
    'window',
    0,
    '[graph] Codes of an image that are guessed and checked at once; 0: what '
    'suits the batch of a request. In float32 it changes no image.',
    lower_bound=0,
  )
  settings_lib.define_flags()


def main():
  """Exports what the flags say."""
  values = flags.FLAGS
  export(
    values.workdir,
    values.base,
    values.tokenizer,
    values.xla,
    values.frozen,
    values.window,
    settings_lib.from_flags(),
  )


if __name__ == '__main__':
  define_flags()
  flags_lib.run(main)
