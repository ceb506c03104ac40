"""Exports a linear probe for TF Serving: images to classes.

  ./bazelw run //export:probe -- --workdir=runs/probe --base=exports/probe

The signatures are those of `probe_module.Probe`.
"""

from __future__ import annotations

from absl import flags
from etils import epy

from export import binary

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  import tensorflow as tf

  from export import probe_module, probe_run, saved_model, signatures, warmup

WORKDIR = flags.DEFINE_string(
  'workdir', None, '[model] Working directory of a probe.', required=True
)
BLOCK = flags.DEFINE_integer(
  'block', None, '[model] Index of the block; unset: the best one.', 0
)
VIM = flags.DEFINE_string('vim', '', '[model] Its stage-2 run, if moved.')
TOKENIZER = flags.DEFINE_string(
  'tokenizer', '', '[model] Its stage-1 run, if moved.'
)
binary.define_flags('probe')


def main():
  """Reads the newest checkpoints and writes the next version."""
  binary.write(make)


def make() -> saved_model.Export:
  """The export that the flags ask for."""
  run = probe_run.read(
    WORKDIR.value, BLOCK.value, binary.dtype(), VIM.value, TOKENIZER.value
  )
  class_names = run.record['class_names']
  module = probe_module.Probe(
    run.layer,
    run.block,
    run.vim.model,
    run.tokenizer.model,
    class_names,
    binary.limits(),
  )
  encoded = [warmup.image(run.tokenizer.config.model.image_size)]
  example = tf.train.Example()
  feature = example.features.feature[probe_module.FEATURE]
  feature.bytes_list.value.extend(encoded)
  name = flags.FLAGS.name
  return saved_model.Export(
    module,
    class_names,
    {
      'probe': run.record,
      'block': run.block,
      'probe_step': run.step,
      'vim': run.vim.record,
      'tokenizer': run.tokenizer.record,
    },
    [
      warmup.predict(name, signatures.SERVE, {'image_bytes': encoded}),
      warmup.predict(name, 'features', {'image_bytes': encoded}),
      warmup.classify(name, probe_module.CLASSIFY, [example]),
    ],
    classify=[probe_module.CLASSIFY],
  )


if __name__ == '__main__':
  binary.run(main)
