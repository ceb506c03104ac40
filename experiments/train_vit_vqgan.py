"""Trains the tokenizer, ViT-VQGAN (paper 3 and 5.1).

  ./bazelw run //experiments:train_vit_vqgan -- \
    --workdir=runs/tokenizer --preset=vit_vqgan_ss --data=imagenet2012

A run that was stopped goes on when it is started again; --workdir is enough
then, and --steps or another schedule may be given to train longer. The sizes of
the Transformers come with a preset or by --set=model.encoder.width=384 and the
like; every other setting has a flag.

The decoder alone is fine-tuned, so that all codes stay as they are, by

  ./bazelw run //experiments:train_vit_vqgan -- \
    --workdir=runs/finetuned --finetune_decoder_of=runs/tokenizer --steps=1000

which starts from the settings of that run, unless --preset or --config is
given.
"""

import dataclasses
import os

from absl import flags
from etils import epy

from experiments import flag_help
from experiments import flags as flags_lib
from vim_tf import config as config_lib
from vim_tf import presets
from vim_tf.training import workdir as workdir_lib

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from vim_tf.jobs import train_tokenizer

SETTINGS = tuple(
  setting
  for setting in flags_lib.settings_of(config_lib.Stage1Config)
  if setting.flag != 'finetune_decoder_of'  # It says what to start from, too.
)

flags_lib.define_run_flags(presets.STAGE1, 'vit_vqgan_ss')
flags_lib.define(config_lib.BadExamples, 'data')
flags_lib.define(config_lib.Faults, 'run')
flags_lib.define_new_data_flag()
for setting in SETTINGS:
  setting.define()
FINETUNE = flags.DEFINE_string(
  'finetune_decoder_of',
  None,
  '[run] Working directory of a run whose decoder alone is trained on; its '
  'settings are the defaults, its codes stay.',
)
flags.mark_flag_as_required('workdir')


def finetuning(folder: str) -> config_lib.Stage1Config:
  """The settings of a run, changed so as to fine-tune its decoder.

  Args:
    folder: The run's working directory.

  Returns:
    Its settings without help for the codebook, which stays as it is. The
    folder is kept as an absolute path, so that the new run can go on from
    anywhere.

  Raises:
    WorkdirError: If it is no working directory of a stage-1 run.
  """
  config = workdir_lib.read_config(folder, 'vit_vqgan', config_lib.Stage1Config)
  return dataclasses.replace(
    config,
    codebook=config_lib.CodebookConfig(),
    finetune_decoder_of=os.path.abspath(folder),
  )


def main():
  """Trains with the settings of the flags."""
  start = None
  if FINETUNE.value:
    start = finetuning(FINETUNE.value)
  config = flags_lib.config_from_flags(
    presets.stage1, SETTINGS, 'vit_vqgan', config_lib.Stage1Config, start
  )
  if start is not None:
    config = dataclasses.replace(
      config, finetune_decoder_of=start.finetune_decoder_of
    )
  strategy = flags_lib.strategy()  # Before TensorFlow computes anything.
  train_tokenizer.train(
    config,
    flags.FLAGS.workdir,
    strategy,
    faults=flags_lib.read(config_lib.Faults),
    accept_new_data=flags.FLAGS.accept_new_data,
  )


if __name__ == '__main__':
  flags_lib.run(
    main,
    SETTINGS,
    flag_help.Presets(
      presets.stage1,
      presets.ABOUT_STAGE1,
      (
        'data.name',
        *('model.image_size', 'model.patch_size', 'model.codebook_size'),
        *('model.encoder.num_blocks', 'model.encoder.width'),
        *('model.decoder.num_blocks', 'model.decoder.width'),
        *('run.num_steps', 'run.batch_size'),
      ),
    ),
  )
