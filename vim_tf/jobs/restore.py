"""Trained models out of working directories: for sampling, exports, stage 2."""

import dataclasses
import hashlib
import os
import pathlib

import tensorflow as tf

from vim_tf.config import (
  INFERENCE_PRECISIONS,
  ProbeConfig,
  Stage1Config,
  Stage2Config,
  UserError,
  check_choice,
  check_stages_match,
)
from vim_tf.jobs import precision as precision_lib
from vim_tf.nn import layers
from vim_tf.probe import features, linear
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
  """The VIM of a stage-2 run; for arguments and errors see `tokenizer`."""
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
  """The Keras policy of a precision.

  Args:
    precision: 'float32', 'bfloat16', or 'auto': bfloat16 if it is faster on
      this machine, see `precision.faster`.

  Raises:
    ConfigError: If it is none of them.
  """
  check_choice('precision', precision, INFERENCE_PRECISIONS)
  if precision == 'auto':
    precision = precision_lib.faster()
  return 'mixed_bfloat16' if precision == 'bfloat16' else 'float32'


def precision(model: tf.keras.Model) -> str:
  """In which of the two a model computes."""
  return 'bfloat16' if model.compute_dtype == 'bfloat16' else 'float32'


def _restore(model, config, workdir) -> Restored:
  with layers.undrawn_weights():
    model.build()
  folder = pathlib.Path(workdir) / 'checkpoints'
  name = 'average' if config.optimizer.ema_decay else 'model'
  step = checkpoints.load(folder, **{name: model})
  return Restored(model, config, workdir_lib.read(workdir), step)


@dataclasses.dataclass(frozen=True)
class RestoredProbe:
  """A probe and the models that its features come from.

  Attributes:
    layer: The built softmax layer, of one penalty.
    block: Index of the VIM's block whose features it takes.
    record: The run's `config.json`.
    step: Steps that the layer was trained for.
    vim: The VIM.
    tokenizer: Its tokenizer.
  """

  layer: linear.SoftmaxLayer
  block: int
  record: dict
  step: int
  vim: Restored
  tokenizer: Restored


def probe(
  workdir: str | os.PathLike,
  block: int | None = None,
  dtype: str | None = None,
  vim_workdir: str = '',
  tokenizer_workdir: str = '',
) -> RestoredProbe:
  """Reads the softmax layer of a run's first seed.

  Args:
    workdir: The probe's working directory.
    block: Which block's; None: the one that the validation images chose.
    dtype: Policy of the VIM and the tokenizer; by default those of the runs.
    vim_workdir: Where the VIM lies now; '': where it lay then.
    tokenizer_workdir: Where the tokenizer lies now; '': the same.

  Raises:
    UserError: If it is no such directory, the run has not ended, the block
      was not probed, or the VIM is another one.
  """
  config = workdir_lib.read_config(workdir, 'probe', ProbeConfig)
  final = pathlib.Path(workdir) / f'seed-{config.run.seed}' / 'final'
  if not final.exists():
    raise UserError(f'{workdir} holds no probe yet: let its run end first.')
  record = workdir_lib.read(final)
  block = _choose_block(workdir, record, block)
  name = features.block_name(block)
  first, second = both(
    vim_workdir or config.vim, tokenizer_workdir or config.tokenizer, dtype
  )
  found = fingerprint(second.model)
  if record['vim_fingerprint'] != found:
    raise UserError(
      f'{workdir} probes another VIM: its fingerprint is '
      f'{record["vim_fingerprint"]}, but that of '
      f'{vim_workdir or config.vim} is {found}.'
    )
  layer = linear.SoftmaxLayer(
    second.config.model.transformer.width,
    len(record['class_names']),
    tuple(record['penalties'][name]),
    name=name,
  )
  layer.build()
  step = checkpoints.load(final / 'checkpoints', **{name: layer})
  return RestoredProbe(layer, block, record, step, second, first)


def _choose_block(workdir, record, block: int | None) -> int:
  blocks = [
    int(name.rpartition('_')[2])
    for name in record['penalties']
    if name == features.block_name(name.rpartition('_')[2])
  ]
  if block is None and len(blocks) == 1:
    return blocks[0]
  if block is None:
    file = pathlib.Path(workdir) / 'figures.json'
    if not file.exists():
      raise UserError(
        f'{workdir} does not say which block is best: let the run end, or '
        'give --block.'
      )
    return workdir_lib.read_json(file)['figures']['best_block_by_seed'][0]
  if block not in blocks:
    raise UserError(
      f'{workdir} has no probe of block {block}; it has those of '
      f'{", ".join(map(str, blocks))}.'
    )
  return block
