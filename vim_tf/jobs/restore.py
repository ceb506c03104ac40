"""Trained models out of working directories: for sampling, exports, stage 2."""

import dataclasses
import hashlib
import os
import pathlib

import tensorflow as tf

from vim_tf.config import Stage1Config, Stage2Config, check_stages_match
from vim_tf.nn import layers
from vim_tf.training import checkpoints
from vim_tf.training import workdir as workdir_lib
from vim_tf.vim import model as vim_model
from vim_tf.vit_vqgan import model as vit_vqgan_model


@dataclasses.dataclass(frozen=True)
class Restored:
  """A model and the run that it comes from.

  Attributes:
    model: The built model with its (averaged) weights.
    config: The run's whole config.
    record: The run's `config.json`: class names, fingerprints, versions.
    step: Steps that the weights were trained for.
  """

  model: tf.keras.Model
  config: Stage1Config | Stage2Config
  record: dict
  step: int


def tokenizer(workdir: str | os.PathLike, dtype: str | None = None) -> Restored:
  """The tokenizer of a stage-1 run, with averaged weights if it has them.

  Args:
    workdir: The run's working directory.
    dtype: Policy to compute in; by default that of the run.

  Raises:
    WorkdirError: If it is no working directory of a stage-1 run.
    CheckpointError: If it holds no checkpoint that fits.
  """
  config = workdir_lib.read_config(workdir, 'vit_vqgan', Stage1Config)
  model = vit_vqgan_model.ViTVQGAN(
    config.model, dtype=dtype or policy(config.run.precision)
  )
  return _restore(model, config, workdir)


def vim(workdir: str | os.PathLike, dtype: str | None = None) -> Restored:
  """The VIM of a stage-2 run, with averaged weights if it has them.

  Args:
    workdir: The run's working directory.
    dtype: Policy to compute in; by default that of the run.

  Raises:
    WorkdirError: If it is no working directory of a stage-2 run.
    CheckpointError: If it holds no checkpoint that fits.
  """
  config = workdir_lib.read_config(workdir, 'vim', Stage2Config)
  model = vim_model.VIM(
    config.model, dtype=dtype or policy(config.run.precision)
  )
  return _restore(model, config, workdir)


def both(
  workdir: str | os.PathLike,
  tokenizer_workdir: str = '',
  dtype: str | None = None,
) -> tuple[Restored, Restored]:
  """A VIM and the tokenizer whose codes it learned.

  Args:
    workdir: The stage-2 run.
    tokenizer_workdir: Where its stage-1 run lies now; by default where it lay
      when the VIM was trained.
    dtype: Policy to compute in; by default those of the runs.

  Returns:
    The tokenizer and the VIM.

  Raises:
    WorkdirError: If a directory is not what it should be, or the tokenizer is
      not the one that the VIM was trained with.
    CheckpointError: If there is no checkpoint that fits.
    ConfigError: If sizes differ.
  """
  second = vim(workdir, dtype)
  first = tokenizer(tokenizer_workdir or second.config.tokenizer, dtype)
  check_stages_match(first.config.model, second.config)
  expected = second.record.get('tokenizer_fingerprint')
  found = fingerprint(first.model)
  if expected != found:
    raise workdir_lib.WorkdirError(
      f'{workdir} was trained on the codes of another tokenizer: its '
      f'fingerprint is {expected}, but that of '
      f'{tokenizer_workdir or second.config.tokenizer} is {found}.'
    )
  return first, second


def fingerprint(model: tf.keras.Model) -> str:
  """A short hash of a model's weights: equal weights, equal codes."""
  digest = hashlib.sha256()
  for variable in model.variables:
    digest.update(variable.numpy().tobytes())
  return digest.hexdigest()[:16]


def policy(precision: str) -> str:
  """The Keras policy of a `RunConfig.precision`."""
  return 'mixed_bfloat16' if precision == 'bfloat16' else 'float32'


def _restore(model, config, workdir) -> Restored:
  with layers.undrawn_weights():
    model.build()
  folder = pathlib.Path(workdir) / 'checkpoints'
  name = 'average' if config.optimizer.ema_decay else 'model'
  step = checkpoints.load(folder, **{name: model})
  return Restored(model, config, workdir_lib.read(workdir), step)
