"""The programs to compile, by name: what a replica runs, in the paper's sizes.

Batches of a chip are those of the paper's 128 chips: 2 images in stage 1, 8 in
stage 2. For what only computes forwards the paper states none; 8 are taken.
"""

import dataclasses
import pathlib

from etils import epy

from experiments.studies.speed import counts
from vim_tf import presets
from vim_tf.config import Stage1Config, Stage2Config, replace

with epy.lazy_imports():  # In the process that lowers alone.
  from experiments.studies.tpu import lowering

_STAGE1_BATCH, _STAGE2_BATCH = 2, 8
_FLOPS = {
  'encode': lambda config, **_: counts.encode(config.model),
  'decode': lambda config, **_: counts.decode(config.model),
  'stage1': counts.stage1_step,
  'stage2': lambda config, **_: counts.stage2_step(config.model),
  'sample': lambda config, guided: (1 + guided) * counts.vim(config.model),
  'features': lambda config, **_: counts.blocks(
    config.model.transformer, config.model.num_codes, causal=True
  ),
}
_KINDS = {'': 'perceptual+adversarial', '_r1': 'perceptual+adversarial+r1'}
_SAVINGS = {
  '_recompute': {'run.recompute': 'true'},
  '': {},
  '_accumulate': {'optimizer.accumulate': '4'},
}


@dataclasses.dataclass(frozen=True)
class Program:
  """One of them.

  Attributes:
    function: Which function of `lowering.FUNCTIONS` it is.
    preset: Whose sizes.
    batch: Images of one replica.
    options: Further arguments of the function.
    settings: Changes to the preset.
    replicas: Chips that run it together; above 1 it sums over them what they
      sum.
  """

  function: str
  preset: str
  batch: int
  options: dict = dataclasses.field(default_factory=dict)
  settings: dict[str, str] = dataclasses.field(default_factory=dict)
  replicas: int = 1

  def config(self) -> Stage1Config | Stage2Config:
    """The preset with its changes, in bfloat16."""
    of = presets.stage2 if self.preset in presets.STAGE2 else presets.stage1
    return replace(
      of(self.preset), {'run.precision': 'bfloat16', **self.settings}
    )

  def flops(self) -> int:
    """The least that an image takes, by formula; see `counts`."""
    return _FLOPS[self.function](self.config(), **self.options)


def _stage1(size: str) -> dict[str, Program]:
  preset = f'vit_vqgan_{size}'
  return {
    preset + end: Program('stage1', preset, _STAGE1_BATCH, {'kind': kind})
    for end, kind in _KINDS.items()
  }


def _stage2(preset: str) -> dict[str, Program]:
  return {
    preset + end: Program('stage2', preset, _STAGE2_BATCH, settings=settings)
    for end, settings in _SAVINGS.items()
  }


def _tokenizer(size: str) -> dict[str, Program]:
  preset = f'vit_vqgan_{size}'
  return {
    f'{preset}_{what}': Program(what, preset, _STAGE2_BATCH)
    for what in ('encode', 'decode')
  }


def _sample(preset: str) -> dict[str, Program]:
  return {
    f'{preset}_sample{end}': Program(
      'sample', preset, _STAGE2_BATCH, {'guided': guided}
    )
    for end, guided in (('', False), ('_guided', True))
  }


def _together(programs: dict[str, Program]) -> dict[str, Program]:
  return {
    f'{name}_on_{replicas}': dataclasses.replace(program, replicas=replicas)
    for replicas in (8, 128)
    for name, program in programs.items()
  }


# The order is that in which a user meets them, so that what is compiled first
# is of most use.
PROGRAMS = {
  **_stage2('vim_base'),
  **_stage1('ss'),
  **_tokenizer('ss'),
  **_sample('vim_base'),
  **_stage2('vim_large'),
  **_stage1('bb'),
  **_stage1('sl'),
  **_together(
    {
      name: program
      for name, program in {**_stage1('ss'), **_stage2('vim_base')}.items()
      if name in ('vit_vqgan_ss', 'vim_base_recompute')
    }
  ),
  **_sample('vim_large'),
  **_tokenizer('bb'),
  **_tokenizer('sl'),
  'vim_large_features': Program('features', 'vim_large_probe', _STAGE2_BATCH),
}
"""All of them by name, in the order in which they are compiled."""


def lower(program: Program, path: pathlib.Path) -> dict:
  """As `lowering.write`, with which TensorFlow comes."""
  return lowering.write(program, path)
