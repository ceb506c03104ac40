"""Exports a tokenizer for TF Serving: images to codes and back.

  ./bazelw run //export:tokenizer -- \
    --workdir=runs/tokenizer --base=exports/tokenizer

The signatures are those of `tokenizer_module.Tokenizer`.
"""

from __future__ import annotations

from absl import flags
from etils import epy
import numpy as np

from export import binary

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from export import saved_model, signatures, tokenizer_module, warmup
  from vim_tf import restore

WORKDIR = flags.DEFINE_string(
  'workdir', None, '[model] Working directory of a stage-1 run.', required=True
)
binary.define_flags('tokenizer')


def main():
  """Reads the newest checkpoint and writes the next version."""
  binary.write(make)


def make() -> saved_model.Export:
  """The export that the flags ask for."""
  restored = restore.tokenizer(WORKDIR.value, binary.dtype())
  module = tokenizer_module.Tokenizer(restored.model, binary.limits())
  config = restored.config.model
  codes = np.zeros([1, config.num_codes], np.int32)
  images = np.zeros([1, config.image_size, config.image_size, 3], np.float32)
  encoded = [warmup.image(config.image_size)]
  return saved_model.Export(
    module,
    restored.record['class_names'],
    {'tokenizer': restored.record, 'step': restored.step},
    [
      warmup.predict(flags.FLAGS.name, signature, inputs)
      for signature, inputs in (
        (signatures.SERVE, {'image_bytes': encoded}),
        ('encode_images', {'images': images}),
        ('decode', {'codes': codes}),
        ('decode_png', {'codes': codes}),
        ('reconstruct', {'image_bytes': encoded}),
      )
    ],
  )


if __name__ == '__main__':
  binary.run(main)
