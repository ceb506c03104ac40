"""Every setting of a run as frozen dataclasses, with JSON in and out.

A config is checked when it is made: sizes that do not divide, unknown names
and values out of range raise `ConfigError` with one line that says what was
wrong and what would be right. The paper's own values are in `presets.py`.
"""

import dataclasses
import json
import types
import typing

BACKBONES = ('vit', 'cnn')
POSITIONS = ('learned', 'sincos', 'factorized')
ACTIVATIONS = ('gelu', 'tanh', 'relu')
PRECISIONS = ('float32', 'bfloat16')
CROPS = ('center', 'random_resized', 'shift')
DISCRIMINATORS = ('stylegan2', 'patchgan')
GAN_LOSSES = ('non_saturating', 'hinge')
OPTIMIZERS = ('adam', 'adafactor')
DECAYS = ('constant', 'cosine', 'exponential')


class UserError(ValueError):
  """Bad input; the message is one line that says what would be right."""


class ConfigError(UserError):
  """A setting that cannot be used."""


def _check(condition: bool, message: str):
  if not condition:
    raise ConfigError(message)


def _check_choice(name: str, value: str, choices: tuple[str, ...]):
  _check(
    value in choices,
    f'{name} is {value!r}, but must be one of {", ".join(choices)}.',
  )


def _check_least(config, least: float, *names: str):
  for name in names:
    value = getattr(config, name)
    _check(
      value >= least,
      f'{type(config).__name__}.{name} is {value}, but must be at least '
      f'{least}.',
    )


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
  """Sizes of one stack of pre-norm Transformer blocks (paper Table 2).

  Attributes:
    num_blocks: Number of blocks.
    num_heads: Attention heads of a block.
    width: Model dimension.
    mlp_width: Hidden dimension of a block's MLP.
    dropout: Rate in [0, 1) on residual, activation and attention outputs.
    head_width: Width of one head; 0 means width / num_heads.
    activation: Non-linearity of the block MLPs.
    qkv_bias: Whether the query, key and value projections have a bias.
  """

  num_blocks: int
  num_heads: int
  width: int
  mlp_width: int
  dropout: float = 0.0
  head_width: int = 0
  activation: str = 'gelu'
  qkv_bias: bool = True

  def __post_init__(self):
    _check_least(self, 1, 'num_blocks', 'num_heads', 'width', 'mlp_width')
    _check_least(self, 0, 'head_width')
    _check_choice('activation', self.activation, ACTIVATIONS)
    _check(
      0.0 <= self.dropout < 1.0,
      f'dropout is {self.dropout}, but must be in [0, 1).',
    )
    _check(
      self.head_width > 0 or self.width % self.num_heads == 0,
      f'width {self.width} does not divide into {self.num_heads} heads: '
      'change one of them or set head_width.',
    )

  @property
  def attention_head_width(self) -> int:
    return self.head_width or self.width // self.num_heads


@dataclasses.dataclass(frozen=True)
class ViTVQGANConfig:
  """The stage-1 model: an image to a grid of codes and back (paper 3).

  Attributes:
    encoder: Transformer of the encoder.
    decoder: Transformer of the decoder; its width may differ.
    image_size: Height and width of the images, in pixels.
    patch_size: Height and width of the patch behind one code, in pixels.
    codebook_size: Number of codes.
    code_dim: Width of the space in which codes are looked up (3.2).
    l2_normalize: Whether lookup compares l2-normalised vectors (3.2).
    logit_laplace: Whether the decoder gives the 6 channels of the
      logit-laplace distribution (3.3) instead of 3 plain ones.
    output_mlp: Whether a two-layer MLP with tanh follows each stack (3.1).
    positions: 'learned', 'factorized' (a row's plus a column's vector) or
      fixed 2-D 'sincos' positions; the paper does not say.
    backbone: 'vit', or the paper's baseline 'cnn'.
    cnn_multiplier: Channel multiplier of the 'cnn' backbone (Table 4).
  """

  encoder: TransformerConfig
  decoder: TransformerConfig
  image_size: int = 256
  patch_size: int = 8
  codebook_size: int = 8192
  code_dim: int = 32
  l2_normalize: bool = True
  logit_laplace: bool = True
  output_mlp: bool = True
  positions: str = 'learned'
  backbone: str = 'vit'
  cnn_multiplier: int = 1

  def __post_init__(self):
    _check_least(
      self, 1, 'image_size', 'patch_size', 'code_dim', 'cnn_multiplier'
    )
    _check_least(self, 2, 'codebook_size')
    _check_choice('positions', self.positions, POSITIONS)
    _check_choice('backbone', self.backbone, BACKBONES)
    _check(
      self.image_size % self.patch_size == 0,
      f'image_size {self.image_size} is not a multiple of patch_size '
      f'{self.patch_size}.',
    )
    _check(
      self.backbone != 'cnn' or self.patch_size & (self.patch_size - 1) == 0,
      f'patch_size is {self.patch_size}, but the cnn backbone halves its '
      'way down: it must be a power of two.',
    )
    for name in ('encoder', 'decoder'):
      _check(
        self.positions != 'sincos' or getattr(self, name).width % 4 == 0,
        f'{name}.width is {getattr(self, name).width}, but sincos positions '
        'need a multiple of 4.',
      )

  @property
  def grid_size(self) -> int:
    """Codes along one side of the image."""
    return self.image_size // self.patch_size

  @property
  def num_codes(self) -> int:
    """Codes of one image."""
    return self.grid_size**2


@dataclasses.dataclass(frozen=True)
class VIMConfig:
  """The stage-2 model: a decoder-only Transformer over codes (paper 4).

  Attributes:
    transformer: The stack of causal blocks.
    grid_size: Codes along one side; an image has grid_size**2 of them.
    codebook_size: Number of codes of the tokenizer.
    num_classes: Classes of the class-conditional model; 0: unconditional.
    positions: As in `ViTVQGANConfig`; the paper's are "learnable 2-D".
  """

  transformer: TransformerConfig
  grid_size: int = 32
  codebook_size: int = 8192
  num_classes: int = 0
  positions: str = 'factorized'

  def __post_init__(self):
    _check_choice('positions', self.positions, POSITIONS)
    _check_least(self, 1, 'grid_size')
    _check_least(self, 2, 'codebook_size')
    _check_least(self, 0, 'num_classes')

  @property
  def num_codes(self) -> int:
    return self.grid_size**2


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Where images come from and how they are augmented for training.

  Attributes:
    name: 'openmoji', 'openmoji_variants' (with skin tones), any TFDS name, or
      'folder:PATH' with one subfolder a class.
    image_size: Height and width of the images given out, in pixels.
    data_dir: Where TFDS keeps prepared data; '' is TFDS's own default.
    train_split: Split to train on.
    eval_split: Held-out split.
    crop: Augmentation of the training images: 'center' (none), 'shift' by up
      to `max_shift` pixels, or 'random_resized' to `min_scale` of the area.
    max_shift: Largest shift along each axis, in pixels.
    min_scale: Smallest share of the area kept by 'random_resized'.
    flip: Whether to flip at random, where the data allow it.
    balance_classes: Whether every class is drawn equally often.
  """

  name: str = 'openmoji'
  image_size: int = 256
  data_dir: str = ''
  train_split: str = 'train'
  eval_split: str = 'validation'
  crop: str = 'random_resized'
  max_shift: int = 0
  min_scale: float = 0.75
  flip: bool = True
  balance_classes: bool = False

  def __post_init__(self):
    _check(bool(self.name), 'data.name is empty; name a data set.')
    _check_least(self, 1, 'image_size')
    _check_least(self, 0, 'max_shift')
    _check_choice('crop', self.crop, CROPS)
    _check(
      0.0 < self.min_scale <= 1.0,
      f'min_scale is {self.min_scale}, but must be in (0, 1].',
    )


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """Weights of the stage-1 loss (paper 3.3), all at least 0.

  `l1` is not in the paper. The perceptual weight is 0 for tokenizers that
  feed a linear probe, because VGG was trained with labels.
  """

  codebook: float = 1.0
  commitment: float = 0.25
  l2: float = 1.0
  l1: float = 0.0
  logit_laplace: float = 0.1
  perceptual: float = 0.1
  adversarial: float = 0.1

  def __post_init__(self):
    _check_least(self, 0.0, *(f.name for f in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True)
class PerceptualConfig:
  """LPIPS as a loss; unused at `losses.perceptual` 0.

  Attributes:
    start_step: First step with the perceptual term.
    weights_file: File of the weights; '': the one that comes with the
      dependencies.
    weights_sha256: Hash that the file must have, in hexadecimal.
  """

  start_step: int = 0
  weights_file: str = ''
  weights_sha256: str = ''

  def __post_init__(self):
    _check_least(self, 0, 'start_step')
    _check(
      bool(self.weights_file) == bool(self.weights_sha256),
      'perceptual.weights_file and perceptual.weights_sha256 go together: '
      'give both, or neither for the weights that come with the dependencies.',
    )


@dataclasses.dataclass(frozen=True)
class AdversarialConfig:
  """The discriminator and its game; unused at `losses.adversarial` 0.

  Attributes:
    discriminator: 'stylegan2' (paper 3.3) or 'patchgan' (its ablation).
    channel_multiplier: Scales the discriminator's channels; 1 is StyleGAN2's.
    loss: 'non_saturating' or 'hinge'.
    r1_gamma: Weight of the R1 penalty; 0 turns it off.
    r1_interval: Steps between two R1 penalties (lazy regularisation).
    start_step: First step at which the autoencoder feels the discriminator.
    adaptive_weight: Whether to scale by VQGAN's ratio of gradient norms.
    augment: Whether to augment the discriminator's input (small data).
  """

  discriminator: str = 'stylegan2'
  channel_multiplier: float = 1.0
  loss: str = 'non_saturating'
  r1_gamma: float = 10.0
  r1_interval: int = 16
  start_step: int = 0
  adaptive_weight: bool = False
  augment: bool = False

  def __post_init__(self):
    _check_choice('discriminator', self.discriminator, DISCRIMINATORS)
    _check_choice('adversarial.loss', self.loss, GAN_LOSSES)
    _check_least(self, 0, 'r1_gamma', 'start_step')
    _check_least(self, 1, 'r1_interval')
    _check(
      self.channel_multiplier > 0,
      f'channel_multiplier is {self.channel_multiplier}, but must be above 0.',
    )


@dataclasses.dataclass(frozen=True)
class CodebookConfig:
  """Help for the codebook on small data; the paper uses none of it.

  Attributes:
    init_from_data: Whether the codes start as encoder outputs of one batch,
      and the decoder from its mean colour.
    init_step: Step at which they do; until then nothing is quantised, so that
      the codes meet an encoder that already tells patches apart.
    revival_interval: Steps between two revivals, in which codes that a batch
      left unused become encoder outputs; 0 turns revival off.
    revival_steps: Step after which revival ends.
  """

  init_from_data: bool = False
  init_step: int = 0
  revival_interval: int = 0
  revival_steps: int = 0

  def __post_init__(self):
    _check_least(self, 0, 'init_step', 'revival_interval', 'revival_steps')
    _check(
      self.init_from_data or self.init_step == 0,
      f'init_step is {self.init_step}, but init_from_data is off: set it to '
      'true, or init_step to 0.',
    )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """Adam with its schedule: warm-up, plateau, decay (paper 5.1, 5.2).

  Attributes:
    name: 'adam' or 'adafactor' (Adam with a factored second moment).
    learning_rate: Highest learning rate.
    beta_1: Decay of the first moment.
    beta_2: Decay of the second moment.
    weight_decay: Decoupled decay of matrices; not of biases, norms,
      embeddings and codes.
    warmup_steps: Steps of linear warm-up from 0.
    decay: 'constant', 'cosine' or 'exponential'.
    decay_start: Step at which the decay begins.
    decay_end: Step at which the learning rate reaches `final_learning_rate`.
    final_learning_rate: Learning rate from `decay_end` on.
    clip_norm: Largest global gradient norm; 0 turns clipping off.
    ema_decay: Decay of the moving average of the weights; 0 turns it off.
    accumulate: Micro-batches whose gradients make one update.
  """

  name: str = 'adam'
  learning_rate: float = 1e-4
  beta_1: float = 0.9
  beta_2: float = 0.99
  weight_decay: float = 1e-4
  warmup_steps: int = 0
  decay: str = 'constant'
  decay_start: int = 0
  decay_end: int = 0
  final_learning_rate: float = 0.0
  clip_norm: float = 0.0
  ema_decay: float = 0.0
  accumulate: int = 1

  def __post_init__(self):
    _check_choice('optimizer.name', self.name, OPTIMIZERS)
    _check_choice('optimizer.decay', self.decay, DECAYS)
    _check_least(
      self,
      0,
      'weight_decay',
      'warmup_steps',
      'decay_start',
      'final_learning_rate',
      'clip_norm',
    )
    _check_least(self, 1, 'accumulate')
    _check(
      self.learning_rate > 0,
      f'learning_rate is {self.learning_rate}, but must be above 0.',
    )
    for name in ('beta_1', 'beta_2', 'ema_decay'):
      value = getattr(self, name)
      _check(0 <= value < 1, f'{name} is {value}, but must be in [0, 1).')
    if self.decay != 'constant':
      start = max(self.decay_start, self.warmup_steps)
      _check(
        self.decay_end > start,
        f'decay_end is {self.decay_end}, but must come after warm-up and '
        f'decay_start (step {start}).',
      )
    _check(
      self.decay != 'exponential' or self.final_learning_rate > 0,
      'final_learning_rate is 0, which exponential decay never reaches; '
      'give a value above 0.',
    )


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """How long a run takes and what it leaves behind.

  Attributes:
    num_steps: Steps in all.
    batch_size: Global batch size, in images.
    seed: The run's one seed.
    precision: 'float32' or 'bfloat16' (compute; variables stay float32).
    recompute: Whether blocks recompute their activations in the backward
      pass, for memory.
    deterministic: Whether to ask TensorFlow for deterministic kernels.
    steps_per_loop: Steps of one compiled chunk.
    log_every: Steps between two rows of metrics.
    eval_every: Steps between two evaluations; 0: only at the end.
    picture_every: Steps between two pictures; 0: only at the end.
    checkpoint_every: Steps between two checkpoints.
    keep_checkpoints: Newest checkpoints kept.
    eval_examples: Most held-out images of one evaluation.
  """

  num_steps: int = 500_000
  batch_size: int = 256
  seed: int = 0
  precision: str = 'float32'
  recompute: bool = False
  deterministic: bool = False
  steps_per_loop: int = 100
  log_every: int = 100
  eval_every: int = 5_000
  picture_every: int = 5_000
  checkpoint_every: int = 5_000
  keep_checkpoints: int = 3
  eval_examples: int = 10_000

  def __post_init__(self):
    _check_choice('precision', self.precision, PRECISIONS)
    _check_least(
      self,
      1,
      'num_steps',
      'batch_size',
      'steps_per_loop',
      'log_every',
      'checkpoint_every',
      'keep_checkpoints',
      'eval_examples',
    )
    _check_least(self, 0, 'seed', 'eval_every', 'picture_every')


@dataclasses.dataclass(frozen=True)
class Stage1Config:
  """A whole run of `train_vit_vqgan`.

  Attributes:
    model: Sizes of the tokenizer.
    data: The images.
    losses: Weights of the terms of the loss.
    perceptual: LPIPS.
    adversarial: The discriminator.
    codebook: Help for the codebook on small data.
    optimizer: Optimizer and schedule of the tokenizer.
    discriminator_optimizer: The same of the discriminator.
    run: Length, seed and outputs.
    finetune_decoder_of: Working directory of a stage-1 run to start from,
      whose codes stay as they are because the decoder alone is trained; '':
      a new tokenizer, trained whole.
  """

  model: ViTVQGANConfig
  data: DataConfig
  losses: LossConfig
  perceptual: PerceptualConfig
  adversarial: AdversarialConfig
  codebook: CodebookConfig
  optimizer: OptimizerConfig
  discriminator_optimizer: OptimizerConfig
  run: RunConfig
  finetune_decoder_of: str = ''

  def __post_init__(self):
    _check(
      not self.finetune_decoder_of
      or not (self.codebook.init_from_data or self.codebook.revival_interval),
      'finetune_decoder_of keeps the codes: set codebook.init_from_data to '
      'false and codebook.revival_interval to 0.',
    )
    _check(
      self.data.image_size == self.model.image_size,
      f'data.image_size is {self.data.image_size}, but the model takes '
      f'images of {self.model.image_size} pixels.',
    )
    _check(
      self.model.logit_laplace or self.losses.logit_laplace == 0,
      'losses.logit_laplace is above 0, but the model has plain outputs: '
      'set model.logit_laplace=true or the weight to 0.',
    )


@dataclasses.dataclass(frozen=True)
class Stage2Config:
  """A whole run of `train_vim`.

  Attributes:
    model: Sizes of the VIM.
    data: The images whose codes it learns; image size as the tokenizer's.
    optimizer: Optimizer and schedule.
    run: Length, seed and outputs.
    tokenizer: Working directory of the stage-1 run.
    label_drop: Share of training labels replaced by 'no class', which makes
      classifier-free guidance possible.
  """

  model: VIMConfig
  data: DataConfig
  optimizer: OptimizerConfig
  run: RunConfig
  tokenizer: str = ''
  label_drop: float = 0.0

  def __post_init__(self):
    _check(
      0.0 <= self.label_drop < 1.0,
      f'label_drop is {self.label_drop}, but must be in [0, 1).',
    )
    _check(
      self.model.num_classes > 0 or self.label_drop == 0,
      'label_drop is above 0, but the model is unconditional '
      '(num_classes 0): set label_drop to 0.',
    )


def check_stages_match(tokenizer: ViTVQGANConfig, stage2: Stage2Config):
  """Refuses a VIM whose codes are not those of its tokenizer.

  Args:
    tokenizer: The stage-1 model that makes the codes.
    stage2: The stage-2 run that learns them.

  Raises:
    ConfigError: If sizes differ.
  """
  for name, ours, theirs in (
    ('grid_size', stage2.model.grid_size, tokenizer.grid_size),
    ('codebook_size', stage2.model.codebook_size, tokenizer.codebook_size),
    ('image_size', stage2.data.image_size, tokenizer.image_size),
  ):
    _check(
      ours == theirs,
      f'{name} is {ours} for the VIM, but {theirs} for its tokenizer.',
    )


def to_dict(config) -> dict:
  """A config as nested dictionaries of JSON values."""
  return dataclasses.asdict(config)


def to_json(config) -> str:
  """A config as indented JSON."""
  return json.dumps(to_dict(config), indent=2) + '\n'


def from_json(cls, text: str):
  """Reads a config of class `cls` from JSON.

  Args:
    cls: One of the dataclasses of this module.
    text: JSON as `to_json` writes it.

  Returns:
    An instance of `cls`.

  Raises:
    ConfigError: If the text is not JSON, a key is unknown or missing, a value
      has another type or is out of range.
  """
  try:
    values = json.loads(text)
  except json.JSONDecodeError as error:
    raise ConfigError(f'The config is not valid JSON: {error}.') from error
  return from_dict(cls, values)


def from_dict(cls, values: dict, where: str = ''):
  """Like `from_json`, from nested dictionaries; `where` names the place."""
  where = where or cls.__name__
  _check(isinstance(values, dict), f'{where} must be a JSON object.')
  fields = {field.name: field for field in dataclasses.fields(cls)}
  unknown = sorted(set(values) - set(fields))
  _check(
    not unknown,
    f'{where} has no setting {", ".join(unknown)}; it knows '
    f'{", ".join(fields)}.',
  )
  missing = [name for name in fields if name not in values]
  _check(not missing, f'{where} lacks {", ".join(missing)}.')
  hints = typing.get_type_hints(cls)
  return cls(
    **{
      name: _convert(hints[name], value, f'{where}.{name}')
      for name, value in values.items()
    }
  )


def replace(config, changes: dict[str, str]):
  """A copy of `config` with some settings changed, all at once.

  Args:
    config: Any dataclass of this module.
    changes: From a setting, with dots ('model.encoder.width'), to its new
      value as JSON; a bare word stands for a string.

  Raises:
    ConfigError: If there is no such setting or a value does not fit.
  """
  values = to_dict(config)
  for path, text in changes.items():
    *groups, name = path.split('.')
    group = values
    for i, key in enumerate([*groups, name]):
      where = '.'.join([type(config).__name__, *groups[:i]])
      _check(
        isinstance(group, dict),
        f'{where} is a single value, with no setting below it.',
      )
      _check(
        key in group,
        f'{where} has no setting {key!r}; it knows {", ".join(group)}.',
      )
      parent, group = group, group[key]
    _check(
      not isinstance(group, dict),
      f'{path} is a group of settings; name one of them.',
    )
    try:
      parent[name] = json.loads(text)
    except json.JSONDecodeError:
      parent[name] = text
    if isinstance(group, str) and not isinstance(parent[name], str):
      parent[name] = text  # A folder named 2024 is still a string.
  return from_dict(type(config), values)


def _convert(hint, value, where: str):
  """Checks a JSON value against a field's type."""
  if isinstance(hint, types.GenericAlias):  # The configs hold no lists.
    raise TypeError(f'{where} has an unsupported type {hint}.')
  if dataclasses.is_dataclass(hint):
    return from_dict(hint, value, where)
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  _check(
    isinstance(value, hint) and (hint is bool or not isinstance(value, bool)),
    f'{where} is {value!r}, but must be of type {hint.__name__}.',
  )
  return value
