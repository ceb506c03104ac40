"""Turns public weights of a tokenizer into a working directory.

  ./bazelw run //experiments:import_checkpoint -- \
    --checkpoint=imagenet_vitvq_base.ckpt --workdir=runs/imported

It reads the ViT-VQGANs of enhancing-transformers (github.com/thuanz123/
enhancing-transformers): `imagenet_vitvq_base.ckpt` and its small sister, files
of PyTorch Lightning, without PyTorch. `evaluate`, `train_vim` and the exports
take the working directory like that of a run of `train_vit_vqgan`.
"""

from absl import flags, logging
from etils import epy

from experiments import flags as flags_lib

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from vim_tf.interop import imported_run

CHECKPOINT = flags.DEFINE_string(
  'checkpoint', None, '[what] The file with the weights.', required=True
)
WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  '[output] Working directory to make; must not exist.',
  required=True,
)


def main():
  """Imports, and says what was used and what was dropped."""
  source = imported_run.import_checkpoint(CHECKPOINT.value, WORKDIR.value)
  dropped = ', '.join(
    f'{count} of {name}' for name, count in source['dropped'].items()
  )
  logging.info(
    '%d tensors of %s (sha256 %s) are in %s; dropped: %s.',
    source['tensors'],
    source['file'],
    source['sha256'],
    WORKDIR.value,
    dropped or 'none',
  )


if __name__ == '__main__':
  flags_lib.run(main)
