"""Trains VIM on the codes of a trained tokenizer (paper 4 and 5.2).

  ./bazelw run //experiments:train_vim -- \
    --workdir=runs/vim --tokenizer=runs/tokenizer --preset=vim_base

Codes are made online from augmented images, as in the paper, or read from a
folder that `encode_dataset` made (--codes). Which data, how many classes and
the sizes of images and codes come from the tokenizer's run, unless flags say
otherwise. A run that was stopped goes on when it is started again; --workdir is
enough then, and --steps or another schedule may be given to train longer.
"""

import dataclasses

from absl import flags
from etils import epy

from experiments import flag_help
from experiments import flags as flags_lib
from vim_tf import presets
from vim_tf.config import (
  BadExamples,
  ConfigError,
  Faults,
  Stage1Config,
  Stage2Config,
)
from vim_tf.training import workdir as workdir_lib

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from vim_tf.data import codes as codes_lib
  from vim_tf.jobs import train_vim

SETTINGS = flags_lib.settings_of(Stage2Config)

flags_lib.define_run_flags(presets.STAGE2, 'vim_base')
flags_lib.define(BadExamples, 'data')
flags_lib.define(Faults, 'run')
flags_lib.define_new_data_flag()
for setting in SETTINGS:
  setting.define()
flags.mark_flag_as_required('workdir')

_NO_TOKENIZER = (
  'No tokenizer was given: set --tokenizer to the working directory of a '
  'stage-1 run.'
)
_WHICH_DATA = (
  *('name', 'data_dir', 'train_split', 'eval_split', 'image_size'),
  'classes_of',
)


def preset(name: str) -> Stage2Config:
  """A preset, made to fit the tokenizer, and --codes if that is given."""
  config = presets.stage2(name)
  if not flags.FLAGS.tokenizer:
    raise ConfigError(_NO_TOKENIZER)
  first = workdir_lib.read_config(
    flags.FLAGS.tokenizer, 'vit_vqgan', Stage1Config
  )
  names = workdir_lib.read(flags.FLAGS.tokenizer).get('class_names', [])
  data = dataclasses.replace(
    config.data, **{field: getattr(first.data, field) for field in _WHICH_DATA}
  )
  if flags.FLAGS.codes:
    cache = codes_lib.Cache(flags.FLAGS.codes)
    data, names = cache.description.data, cache.description.class_names
  elif flags.FLAGS.data not in (
    None,
    data.name,
  ) or flags.FLAGS.classes_of not in (None, data.classes_of):
    names = []  # Others, which are not known yet.
  classes = config.model.num_classes
  if names and classes:
    classes = len(names) if len(names) > 1 else 0
  if flags.FLAGS.num_classes == '0':
    classes = 0
  model = dataclasses.replace(
    config.model,
    num_classes=classes,
    grid_size=first.model.grid_size,
    codebook_size=first.model.codebook_size,
  )
  return dataclasses.replace(
    config,
    data=data,
    model=model,
    label_drop=config.label_drop if classes else 0.0,
  )


def main():
  """Trains with the settings of the flags."""
  config = flags_lib.config_from_flags(preset, SETTINGS, 'vim', Stage2Config)
  if not config.tokenizer:
    raise ConfigError(_NO_TOKENIZER)
  strategy = flags_lib.strategy()  # Before TensorFlow computes anything.
  train_vim.train(
    config,
    flags.FLAGS.workdir,
    strategy,
    faults=flags_lib.read(Faults),
    accept_new_data=flags.FLAGS.accept_new_data,
  )


if __name__ == '__main__':
  flags_lib.run(
    main,
    SETTINGS,
    flag_help.Presets(
      presets.stage2,
      presets.ABOUT_STAGE2,
      (
        *('model.grid_size', 'model.codebook_size', 'model.num_classes'),
        *('model.transformer.num_blocks', 'model.transformer.width'),
        *('model.transformer.num_heads', 'model.transformer.dropout'),
        *('run.num_steps', 'run.batch_size'),
      ),
      {
        **dict.fromkeys(
          (
            *('data', 'data_dir', 'train_split', 'eval_split', 'image_size'),
            *('classes_of', 'grid_size', 'codebook_size'),
          ),
          "the tokenizer's",
        ),
        'num_classes': 'those of the data',
      },
    ),
  )
