"""FLOPs and memory of the paper's sizes, from XLA, without running them.

  ./bazelw run //experiments/studies/lowering -- \
    --models=vit_vqgan_ss --batches=2,8

Every training step is lowered to XLA's language by shapes alone, with no memory
for weights, and counted there (`hlo.py` says how). It prints the rows of the
table of `docs/results/scale.md`. A model takes half a minute to some minutes.
"""

import dataclasses

from absl import flags
from etils import epy

from experiments import flags as flags_lib
from vim_tf import presets
from vim_tf.config import ConfigError, replace

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from experiments.studies.lowering import abstract, hlo
  from vim_tf.jobs import replica_functions
  from vim_tf.vim import model as vim_model
  from vim_tf.vit_vqgan import lpips
  from vim_tf.vit_vqgan import model as vit_vqgan_model

MODELS = flags.DEFINE_list(
  'models',
  ['vit_vqgan_ss', 'vit_vqgan_bb', 'vit_vqgan_sl', 'vim_base', 'vim_large'],
  'Presets to lower.',
)
BATCHES = flags.DEFINE_list('batches', ['2'], 'Images of one chip, several.')
UTILISATION = flags.DEFINE_float(
  'utilisation', 0.4, 'Share of the peak FLOPs that a TPU is taken to reach.'
)
RECOMPUTE = flags.DEFINE_bool(
  'recompute', False, 'As of the trainings: less memory, more FLOPs.'
)
ACCUMULATE = flags.DEFINE_integer(
  'accumulate', 1, 'As of the trainings: parts that a batch is run in.'
)

PAPER_IMAGES_PER_SECOND = {
  'vit_vqgan_ss': 1520,
  'vit_vqgan_bb': 960,
  'vit_vqgan_sl': 384,
}
"""On 128 TPUv4 (the paper's Table 3)."""

_CHIPS = 128
_PEAK_FLOPS = 275e12
"""bfloat16 FLOPs a second of a TPU v4 chip, by its maker."""
_PLAIN, _R1 = 'perceptual+adversarial', 'perceptual+adversarial+r1'
_HEADINGS = (
  'model',
  'parameters',
  'batch of a chip',
  'to save memory',
  'TFLOPs an image',
  'arguments, GB',
  'working memory, GB',
  'images/s of 128 chips',
  'paper',
  'utilisation behind it',
)


@dataclasses.dataclass(frozen=True)
class Row:
  """One model at one batch.

  Attributes:
    model: Its preset.
    parameters: Weights that are trained in the model itself.
    batch: Images of one chip.
    flops: Of one image's part of a training step.
    argument_bytes: Weights, optimizer and batch of one chip.
    working_bytes: What a step keeps besides, as `hlo.Cost` estimates it.
  """

  model: str
  parameters: int
  batch: int
  flops: float
  argument_bytes: int
  working_bytes: int

  def markdown(self, utilisation: float) -> str:
    """The row of a table under `_HEADINGS`."""
    paper = PAPER_IMAGES_PER_SECOND.get(self.model)
    peak = _CHIPS * _PEAK_FLOPS
    cells = (
      self.model,
      f'{self.parameters / 1e6:.0f}M',
      str(self.batch),
      _savings(),
      f'{self.flops / 1e12:.2f}',
      f'{self.argument_bytes / 1e9:.2f}',
      f'{self.working_bytes / 1e9:.2f}',
      f'{utilisation * peak / self.flops:.0f}',
      '' if paper is None else str(paper),
      '' if paper is None else f'{paper * self.flops / peak:.1%}',
    )
    return f'| {" | ".join(cells)} |'


def main():
  """Lowers and prints."""
  batches = _batches()
  print(f'| {" | ".join(_HEADINGS)} |')
  print('|' + ' --- |' * len(_HEADINGS))
  perceptual = None
  for name in MODELS.value:
    for batch in batches:
      if name in presets.STAGE2:
        row = stage2_row(name, batch)
      else:
        perceptual = perceptual or lpips.LPIPS('', dtype='bfloat16')
        row = stage1_row(name, batch, perceptual)
      print(row.markdown(UTILISATION.value), flush=True)


def _batches() -> list[int]:
  """The batches of the flags, once all that they say is found right."""
  for name in MODELS.value:
    if name not in presets.STAGE2:
      presets.stage1(name)  # Which tells of unknown ones.
  if not all(text.isdecimal() and int(text) for text in BATCHES.value):
    raise ConfigError(
      f'--batches={",".join(BATCHES.value)} must be whole numbers from 1, with '
      'commas.'
    )
  return [int(text) for text in BATCHES.value]


def stage1_row(name: str, batch: int, perceptual) -> Row:
  """A size of ViT-VQGAN, its steps with R1 averaged with those without.

  Args:
    name: Its preset.
    batch: Images of one chip.
    perceptual: LPIPS.
  """
  config = replace(presets.stage1(name), _settings())
  with abstract.no_weights():
    functions = replica_functions.stage1_steps(
      config, batch, (_PLAIN, _R1), perceptual
    )
    costs = {
      kind: hlo.cost(abstract.lower(function.run, function.specs))
      for kind, function in functions.items()
    }
    model = vit_vqgan_model.ViTVQGAN(config.model)
    model.build()
  share = 1.0 / config.adversarial.r1_interval
  flops = (1.0 - share) * costs[_PLAIN].flops + share * costs[_R1].flops
  return Row(
    name,
    model.count_params(),
    batch,
    flops / batch,
    costs[_PLAIN].argument_bytes,
    max(cost.working_bytes for cost in costs.values()),
  )


def stage2_row(name: str, batch: int) -> Row:
  """A size of VIM, on codes."""
  config = replace(presets.stage2(name), _settings())
  with abstract.no_weights():
    function = replica_functions.stage2_step(config, batch)
    cost = hlo.cost(abstract.lower(function.run, function.specs))
    model = vim_model.VIM(config.model)
    model.build()
  return Row(
    name,
    model.count_params(),
    batch,
    cost.flops / batch,
    cost.argument_bytes,
    cost.working_bytes,
  )


def _settings() -> dict[str, str]:
  return {
    'run.precision': 'bfloat16',
    'run.recompute': str(RECOMPUTE.value).lower(),
    'optimizer.accumulate': str(ACCUMULATE.value),
  }


def _savings() -> str:
  """What the flags ask for, in words."""
  parts = f'{ACCUMULATE.value} parts' if ACCUMULATE.value > 1 else ''
  recompute = 'recompute' if RECOMPUTE.value else ''
  return ', '.join(filter(None, (parts, recompute)))


if __name__ == '__main__':
  flags_lib.run(main)
