"""The rows of the ablations: what each changes, and what the paper found.

A row is a base run with some settings changed. Those of stage 1 are the rows
of the paper's Table 4 that fit a small machine; the others are those of its
Tables 6 to 8, upon the tokenizer of a stage-1 row of the same seed. The paper's
figures of each row, by the metrics of `claims.METRICS`, are in `paper.csv`.
"""

from collections.abc import Mapping
import csv
import dataclasses
import hashlib
import json
import pathlib

from experiments.studies.ablations.budgets import Budget
from vim_tf import config as config_lib
from vim_tf import presets
from vim_tf.config import (
  AdversarialConfig,
  CodebookConfig,
  ConfigError,
  DataConfig,
  LossConfig,
  OptimizerConfig,
  PerceptualConfig,
  ProbeConfig,
  RunConfig,
  Stage1Config,
  Stage2Config,
  TransformerConfig,
  VIMConfig,
  ViTVQGANConfig,
)
from vim_tf.presets import falling

TOKENIZER, VIM, SAMPLES, PROBE = 'tokenizer', 'vim', 'samples', 'probe'
"""What a row trains: a tokenizer; a VIM; nothing, as it draws from the VIM of
another row; an unconditional VIM and softmax layers on its blocks."""

NETWORK, CLASSIFIER = 'efficientnet_lite0', 'head:efficientnet_lite2'
"""What scores, and what selects: never the same network."""

_OPENMOJI_CLASSES = 9
_HEAD_WIDTH = 32
# Of either discriminator: 16 channels throughout, and 4 to 32.
_STYLEGAN_CHANNELS, _PATCHGAN_CHANNELS = 1 / 32, 1 / 16
# The paper's 0.1, as a density, lets the white of drawings outweigh the rest.
_LOGIT_LAPLACE = 0.01
# Settings that some lines of results come before, and what those are of.
_BEFORE = {
  'logit_laplace_form': 'density',
  'classes_of': 'group',
  'checkpoint_minutes': 15.0,
  'block': 'paper',
  'init_kmeans': 0,
}


@dataclasses.dataclass(frozen=True)
class Row:
  """One row.

  Attributes:
    name: Its name.
    kind: TOKENIZER, VIM, SAMPLES or PROBE.
    words: What is changed.
    changes: Settings of the base run that differ, as `config.replace` takes
      them.
    paper: The paper's figures by metric, where it gives any.
    tokenizer: Row whose tokenizer makes the codes, of a VIM.
    vim: Row whose VIM draws, of samples.
    acceptance: Share of the candidates that is kept, of samples.
  """

  name: str
  kind: str
  words: str
  changes: Mapping[str, str] = dataclasses.field(default_factory=dict)
  paper: Mapping[str, float] = dataclasses.field(default_factory=dict)
  tokenizer: str = ''
  vim: str = ''
  acceptance: float = 1.0


def _read_paper(file: pathlib.Path) -> dict[str, dict[str, float]]:
  """The paper's figures by row and metric, where it gives any."""
  with file.open(newline='') as lines:
    return {
      line.pop('row'): {key: float(text) for key, text in line.items() if text}
      for line in csv.DictReader(lines)
    }


_PAPER = _read_paper(pathlib.Path(__file__).with_name('paper.csv'))


def make(budget: Budget) -> dict[str, Row]:
  """All rows by name; one that needs another comes after it."""
  rows = [*_stage1(budget), *_stage2(budget), *_probes(budget)]
  return {row.name: row for row in rows}


def read(file: str, budget: Budget) -> dict[str, Row]:
  """Rows of one's own, to compare any settings.

  Args:
    file: JSON: by name 'changes' of the base run and, of a VIM, the row of its
      'tokenizer'; 'base' and 'vim_deep' are there.
    budget: Of the runs.

  Raises:
    ConfigError: The file cannot be read, or has something else in it.
  """
  rows = make(budget)
  rows = {name: rows[name] for name in ('base', 'vim_deep')}
  try:
    own = json.loads(pathlib.Path(file).read_text())
    for name, row in own.items():
      kind = VIM if 'tokenizer' in row else TOKENIZER
      words = ', '.join(f'{key}={x}' for key, x in row['changes'].items())
      if kind == VIM:
        words += f', codes of `{row["tokenizer"]}`'
      rows[name] = Row(name, kind, words, **row)
      if kind == VIM:
        rows[row['tokenizer']]
  except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
    raise ConfigError(
      f'{file} cannot be used ({error!r}); it must hold '
      '{"NAME": {"changes": {"SETTING": "VALUE"}, "tokenizer": "ROW"}}, the '
      'tokenizer of VIMs alone.'
    ) from error
  return rows


def _row(name: str, kind: str, words: str, changes=None, **upon) -> Row:
  return Row(name, kind, words, changes or {}, _PAPER.get(name, {}), **upon)


def _stage1(budget: Budget) -> list[Row]:
  """Table 4. The paper's base is base-base, 32 dimensions, StyleGAN."""

  def row(name, words, changes=None):
    return _row(name, TOKENIZER, words, changes)

  small = budget.width * 3 // 4, max(1, budget.blocks * 2 // 3)
  large = budget.width * 3 // 2, budget.blocks * 2
  encoder = _sizes('model.encoder', *small)
  return [
    row('base', 'base-base'),
    row(
      'small_small',
      'smaller encoder and decoder',
      {**encoder, **_sizes('model.decoder', *small)},
    ),
    row(
      'small_large',
      'smaller encoder, larger decoder',
      {**encoder, **_sizes('model.decoder', *large)},
    ),
    row(
      'cnn',
      'CNN instead of ViT',
      {'model.backbone': 'cnn', 'model.cnn_multiplier': '0.25'},
    ),
    row(
      'patchgan',
      'PatchGAN instead of StyleGAN discriminator',
      {
        'adversarial.discriminator': 'patchgan',
        'adversarial.channel_multiplier': str(_PATCHGAN_CHANNELS),
      },
    ),
    *(
      row(
        f'dim_{dim}',
        f'codes of {dim} dimensions instead of 32',
        {'model.code_dim': str(dim)},
      )
      for dim in (256, 128, 64, 16, 8, 4)
    ),
    row(
      'no_l2_norm',
      'lookup without l2-normalisation',
      {'model.l2_normalize': 'false'},
    ),
    row(
      'logit_laplace',
      'with the logit-laplace term',
      {
        'model.logit_laplace': 'true',
        'losses.logit_laplace': str(_LOGIT_LAPLACE),
        'losses.logit_laplace_form': 'density',
      },
    ),
    row(
      'no_perceptual', 'without the perceptual term', {'losses.perceptual': '0'}
    ),
    row(
      'few_codes',
      'a quarter of the codes: patches of twice the size',
      {'model.patch_size': str(2 * budget.patch_size)},
    ),
  ]


def _stage2(budget: Budget) -> list[Row]:
  """Tables 6 and 8."""
  shallow = {'model.transformer.num_blocks': str(budget.vim_blocks // 2)}
  grid = budget.image_size // budget.patch_size
  few = {'model.grid_size': str(grid // 2)}

  def vim(name, words, changes, tokenizer='base'):
    return _row(name, VIM, words, changes, tokenizer=tokenizer)

  def kept(name, words, acceptance):
    return _row(name, SAMPLES, words, vim='vim_deep', acceptance=acceptance)

  return [
    vim('vim_deep', 'deep VIM', {}),
    vim('vim_shallow', 'VIM of half the depth', shallow),
    vim('vim_deep_few', 'deep VIM on a quarter of the codes', few, 'few_codes'),
    vim(
      'vim_shallow_few',
      'VIM of half the depth on a quarter of the codes',
      {**shallow, **few},
      'few_codes',
    ),
    kept('accept_half', 'deep VIM, half of its samples kept', 0.5),
    kept('accept_quarter', 'deep VIM, a quarter of its samples kept', 0.25),
  ]


def _probes(budget: Budget) -> list[Row]:
  """Table 7: unconditional, on a tokenizer without the perceptual loss."""
  dropout, blocks = 'model.transformer.dropout', 'model.transformer.num_blocks'
  return [
    _row(name, PROBE, words, changes, tokenizer='no_perceptual')
    for name, words, changes in (
      ('probe_deep', 'probe of a deep VIM without dropout', {dropout: '0'}),
      (
        'probe_deep_dropout',
        'probe of a deep VIM with dropout',
        {dropout: '0.1'},
      ),
      (
        'probe_shallow',
        'probe of a VIM of half the depth, with dropout',
        {dropout: '0.1', blocks: str(budget.vim_blocks // 2)},
      ),
    )
  ]


def stage1(row: Row, budget: Budget, seed: int, data_dir: str) -> Stage1Config:
  """The run of a stage-1 row.

  The base is the paper's recipe with a shorter schedule but for what drawings
  and few steps ask for: a first part without codes, which then start as encoder
  outputs (where they started so at the first step, 2 of 256 were in use at the
  end); the perceptual and the adversarial term, at the paper's weights, in the
  last part alone; an augmented discriminator; no MLP before the pixels, and no
  logit-laplace term. With those two, no colour was learned in 800 steps. Unused
  codes are not revived: their number is what many rows are about.
  """
  transformer = _transformer(budget.width, budget.blocks)
  steps = budget.tokenizer_steps
  base = Stage1Config(
    model=ViTVQGANConfig(
      encoder=transformer,
      decoder=transformer,
      image_size=budget.image_size,
      patch_size=budget.patch_size,
      codebook_size=budget.codebook_size,
      code_dim=32,
      output_mlp=False,
      logit_laplace=False,
    ),
    data=_data(budget, data_dir),
    losses=LossConfig(adversarial=budget.adversarial, logit_laplace=0.0),
    perceptual=PerceptualConfig(start_step=budget.full_loss_start),
    adversarial=AdversarialConfig(
      start_step=budget.full_loss_start,
      channel_multiplier=_STYLEGAN_CHANNELS,
      augment=True,
    ),
    codebook=CodebookConfig(init_from_data=True, init_step=budget.codes_start),
    optimizer=falling(1e-3, steps, final=0.05, clip_norm=1.0),
    discriminator_optimizer=OptimizerConfig(learning_rate=1e-3),
    run=_run(budget, steps, budget.tokenizer_batch, seed),
  )
  return config_lib.replace(base, row.changes)


def stage2(
  row: Row, budget: Budget, seed: int, data_dir: str, tokenizer: str
) -> Stage2Config:
  """The run of a VIM upon the tokenizer in a working directory."""
  steps = budget.vim_steps
  transformer = _transformer(budget.vim_width, budget.vim_blocks)
  base = Stage2Config(
    model=VIMConfig(
      dataclasses.replace(transformer, dropout=0.1),
      grid_size=budget.image_size // budget.patch_size,
      codebook_size=budget.codebook_size,
      num_classes=0 if row.kind == PROBE else _OPENMOJI_CLASSES,
    ),
    data=_data(budget, data_dir),
    optimizer=falling(1e-3, steps, final=0.05, beta_2=0.96, clip_norm=1.0),
    run=_run(budget, steps, budget.vim_batch, seed),
    tokenizer=tokenizer,
  )
  return config_lib.replace(base, row.changes)


def probe(budget: Budget, vim: Stage2Config, seed: int) -> ProbeConfig:
  """The probe of all blocks of a VIM, without rivals."""
  config = presets.probe(budget.probe, vim)
  return dataclasses.replace(
    config,
    block='all',
    baselines=False,
    run=dataclasses.replace(config.run, seed=seed),
  )


def fingerprint(row: Row, budget: Budget, rows: Mapping[str, Row]) -> str:
  """A short hash of all that a row's figures depend on, but the seed.

  A line of results counts for a row as long as this stays as it is.
  """
  parts = {'kind': row.kind, 'acceptance': row.acceptance}
  if row.kind == TOKENIZER:
    config = config_lib.to_dict(stage1(row, budget, 0, ''))
    losses = config['losses']
    if not losses['logit_laplace']:
      losses['logit_laplace_form'] = _BEFORE['logit_laplace_form']
    parts['config'] = _as_before(config)
  else:
    upon = rows[row.vim or row.tokenizer]
    parts['upon'] = fingerprint(upon, budget, rows)
  if row.kind in (VIM, PROBE):
    vim = stage2(row, budget, 0, '', '')
    parts['config'] = _as_before(config_lib.to_dict(vim))
    if row.kind == PROBE:
      config = config_lib.to_dict(probe(budget, vim, 0))
      parts['probe'] = _as_before(config)
  if row.kind in (VIM, SAMPLES):
    parts['samples'] = [budget.samples, budget.max_images, NETWORK, CLASSIFIER]
  text = json.dumps(parts, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _as_before(config: dict) -> dict:
  """Without settings that came later, where they change nothing."""
  return {
    key: _as_before(value) if isinstance(value, dict) else value
    for key, value in config.items()
    if key not in _BEFORE or value != _BEFORE[key]
  }


def _sizes(path: str, width: int, blocks: int) -> dict[str, str]:
  """The settings of a Transformer of other sizes."""
  sizes = _transformer(width, blocks)
  return {
    f'{path}.{name}': str(getattr(sizes, name))
    for name in ('num_blocks', 'num_heads', 'width', 'mlp_width')
  }


def _transformer(width: int, blocks: int) -> TransformerConfig:
  return TransformerConfig(blocks, width // _HEAD_WIDTH or 1, width, 4 * width)


def _data(budget: Budget, data_dir: str) -> DataConfig:
  return DataConfig(
    name='openmoji',
    image_size=budget.image_size,
    data_dir=data_dir,
    train_split=budget.train_split,
    eval_split=budget.eval_split,
    crop='shift',
    max_shift=1,
  )


def _run(budget: Budget, steps: int, batch_size: int, seed: int) -> RunConfig:
  every = min(50, budget.checkpoint_every)
  return RunConfig(
    num_steps=steps,
    precision='bfloat16',
    batch_size=batch_size,
    seed=seed,
    steps_per_loop=every,
    log_every=every,
    eval_every=0,
    picture_every=0,
    checkpoint_every=budget.checkpoint_every,
    keep_checkpoints=1,
    eval_examples=budget.max_images,
  )
