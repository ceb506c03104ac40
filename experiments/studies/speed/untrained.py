"""Working directories of models that were never trained."""

import dataclasses
import os
import pathlib

from experiments.studies.speed.sizes import Sizes
from vim_tf.jobs import restore
from vim_tf.training import checkpoints
from vim_tf.training import workdir as workdir_lib
from vim_tf.vim import model as vim_model
from vim_tf.vit_vqgan import model as vit_vqgan_model


def write(sizes: Sizes, folder: pathlib.Path) -> pathlib.Path:
  """Writes both stages, as if they had trained for one step.

  Args:
    sizes: Those of the models.
    folder: Where to make the working directories.

  Returns:
    The working directory of the VIM, which names that of its tokenizer.
  """
  classes = sizes.stage2.model.num_classes
  names = {'class_names': [f'class {i}' for i in range(classes)] or ['image']}
  stage1 = sizes.joined_stage1
  tokenizer = vit_vqgan_model.ViTVQGAN(stage1.model)
  _save(folder / 'tokenizer', 'vit_vqgan', stage1, tokenizer, names)
  stage2 = dataclasses.replace(
    sizes.stage2,
    tokenizer=os.path.abspath(folder / 'tokenizer'),
    data=dataclasses.replace(
      sizes.stage2.data, image_size=stage1.model.image_size
    ),
  )
  facts = {**names, 'tokenizer_fingerprint': restore.fingerprint(tokenizer)}
  vim = vim_model.VIM(stage2.model)
  _save(folder / 'vim', 'vim', stage2, vim, facts)
  return folder / 'vim'


def _save(path, kind, config, model, facts):
  model.build()
  workdir = workdir_lib.Workdir(str(path), kind, config, facts)
  name = 'average' if config.optimizer.ema_decay else 'model'
  checkpoints.Checkpoints(workdir.checkpoints, {name: model}).save(1)
