"""A checkpoint of another project as a working directory of stage 1."""

import dataclasses
import os
import pathlib

from vim_tf import files, presets
from vim_tf.config import LossConfig, Stage1Config, UserError, ViTVQGANConfig
from vim_tf.interop import enhancing_transformers, torch_file
from vim_tf.training import checkpoints
from vim_tf.training import workdir as workdir_lib
from vim_tf.vit_vqgan import model as model_lib

FORMAT = 'enhancing-transformers'


def import_checkpoint(
  checkpoint: str | os.PathLike, workdir: str | os.PathLike
) -> dict:
  """Makes a working directory that `restore.tokenizer` reads.

  It is complete or it is not there. Its config holds the sizes of the model;
  the settings of training are not in the file, so they are those of its public
  config, and of the paper where that is silent.

  Args:
    checkpoint: A ViT-VQGAN that enhancing-transformers trained, as PyTorch
      Lightning saved it (`imagenet_vitvq_base.ckpt`).
    workdir: The working directory to make; must not exist, or be empty.

  Returns:
    What `config.json` says of the source: format, file, its sha256, steps and
    epochs trained, the number of tensors used and what was dropped.

  Raises:
    UserError: If the file is not such a checkpoint or `workdir` is taken.
  """
  target = pathlib.Path(workdir)
  if target.exists() and not (target.is_dir() and not any(target.iterdir())):
    raise UserError(f'{workdir} exists already; name a new working directory.')
  with torch_file.TorchZip(checkpoint) as file:
    model, source = _read(file)
  source = {
    'format': FORMAT,
    'file': pathlib.Path(checkpoint).name,
    'sha256': files.sha256(checkpoint),
    **source,
  }
  _write(target, model, source)
  return source


def _read(file: torch_file.TorchZip) -> tuple[model_lib.ViTVQGAN, dict]:
  """The model with its weights, and what the file says of them."""
  try:
    tensors = _tensors(file.contents)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    model = model_lib.ViTVQGAN(enhancing_transformers.read_config(shapes))
    model.build()
    dropped = enhancing_transformers.assign(
      model, shapes, lambda name: file.read(tensors[name])
    )
  except UserError as error:
    raise UserError(f'{file.path} cannot be imported. {error}') from error
  return model, {
    'steps': _count(file.contents, 'global_step'),
    'epochs': _count(file.contents, 'epoch'),
    'tensors': len(tensors) - sum(dropped.values()),
    'dropped': dropped,
  }


def _tensors(contents) -> dict[str, torch_file.Tensor]:
  """The tensors that PyTorch Lightning saved of the model."""
  state = contents.get('state_dict') if isinstance(contents, dict) else None
  if not isinstance(state, dict):
    raise UserError(
      'It has no state_dict, as a checkpoint of PyTorch Lightning does.'
    )
  for name, value in state.items():
    if not (isinstance(name, str) and isinstance(value, torch_file.Tensor)):
      raise UserError(
        f'{name} in its state_dict is of type {type(value).__name__}, not a '
        'tensor.'
      )
  return state


def _count(contents: dict, name: str) -> int | None:
  """A count that the checkpoint may hold."""
  value = contents.get(name)
  return value if isinstance(value, int) and value >= 0 else None


def _config(model: ViTVQGANConfig, step: int) -> Stage1Config:
  """The run as its authors' config describes it."""
  config = presets.stage1('vit_vqgan_bb')
  return dataclasses.replace(
    config,
    model=model,
    data=dataclasses.replace(config.data, image_size=model.image_size),
    losses=LossConfig(logit_laplace=0.0),
    run=dataclasses.replace(config.run, num_steps=step),
  )


def _write(target: pathlib.Path, model: model_lib.ViTVQGAN, source: dict):
  """Writes the working directory, whole or not at all."""
  # A checkpoint of step 0 stands for a run that has not begun.
  step = max(1, source['steps'] or 0)
  try:
    with files.new_folder(target) as new:
      run = workdir_lib.Workdir(
        str(new),
        'vit_vqgan',
        _config(model.config, step),
        {
          'class_names': [],
          'data_fingerprint': '',
          'data_licence': '',
          'source': source,
        },
      )
      checkpoints.Checkpoints(run.checkpoints, {'model': model}).save(step)
  except OSError as error:
    raise UserError(f'Cannot write {target}: {error.strerror}.') from error
