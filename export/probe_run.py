"""A trained probe out of its working directory."""

import dataclasses
import os
import pathlib

from vim_tf.config import UserError
from vim_tf.config_probe import ProbeConfig
from vim_tf.jobs import restore
from vim_tf.probe import features, linear
from vim_tf.training import checkpoints
from vim_tf.training import workdir as workdir_lib


@dataclasses.dataclass(frozen=True)
class ProbeRun:
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
  vim: restore.Restored
  tokenizer: restore.Restored


def read(
  workdir: str | os.PathLike,
  block: int | None = None,
  dtype: str | None = None,
  vim_workdir: str = '',
  tokenizer_workdir: str = '',
) -> ProbeRun:
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
  block = _choose(workdir, record, block)
  name = features.block_name(block)
  tokenizer, vim = restore.both(
    vim_workdir or config.vim, tokenizer_workdir or config.tokenizer, dtype
  )
  found = restore.fingerprint(vim.model)
  if record['vim_fingerprint'] != found:
    raise UserError(
      f'{workdir} probes another VIM: its fingerprint is '
      f'{record["vim_fingerprint"]}, but that of '
      f'{vim_workdir or config.vim} is {found}.'
    )
  layer = linear.SoftmaxLayer(
    vim.config.model.transformer.width,
    len(record['class_names']),
    tuple(record['penalties'][name]),
    name=name,
  )
  layer.build()
  step = checkpoints.load(final / 'checkpoints', **{name: layer})
  return ProbeRun(layer, block, record, step, vim, tokenizer)


def _choose(workdir, record, block: int | None) -> int:
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
