"""Exports a VIM with its tokenizer for TF Serving: classes to images.

  ./bazelw run //export:sampler -- --workdir=runs/vim --base=exports/sampler

The signatures are those of `sampler_module.Sampler`.
"""

from __future__ import annotations

from absl import flags
from etils import epy
import numpy as np

from export import binary

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from export import sampler_module, saved_model, signatures, warmup
  from vim_tf import restore

WORKDIR = flags.DEFINE_string(
  'workdir', None, '[model] Working directory of a stage-2 run.', required=True
)
TOKENIZER = flags.DEFINE_string(
  'tokenizer', '', '[model] Its stage-1 run, if that was moved.'
)
XLA = flags.DEFINE_bool(
  'xla',
  False,
  '[graph] Compile the loop with XLA, at the first request of a batch size.',
)
FROZEN = flags.DEFINE_bool(
  'frozen',
  True,
  '[graph] In bfloat16, without XLA and up to 256 MB of weights: keep them in '
  'the graph, too, which makes it faster.',
)
binary.define_flags('sampler')


def main():
  """Reads the newest checkpoints and writes the next version."""
  binary.write(make)


def make() -> saved_model.Export:
  """The export that the flags ask for."""
  tokenizer, vim = restore.both(WORKDIR.value, TOKENIZER.value, binary.dtype())
  module = sampler_module.Sampler(
    vim.model, tokenizer.model, binary.limits(), XLA.value, FROZEN.value
  )
  plain = warmup.sampling_settings()
  guided = {**plain, 'guidance_scale': np.full(1, 2.0, np.float32)}
  encoded = [warmup.image(tokenizer.config.model.image_size)]
  kept = np.ones(1, np.int32)
  completed = {'image_bytes': encoded, 'kept_rows': kept}
  return saved_model.Export(
    module,
    vim.record['class_names'] if vim.config.model.num_classes else [],
    {
      'vim': vim.record,
      'vim_step': vim.step,
      'tokenizer': tokenizer.record,
      'tokenizer_step': tokenizer.step,
    },
    [
      warmup.predict(flags.FLAGS.name, signature, inputs)
      for signature, inputs in (
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
      )
    ],
  )


if __name__ == '__main__':
  binary.run(main)
