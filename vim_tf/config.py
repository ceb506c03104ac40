"""Every setting of the models, of their training and of sampling.

Each is declared once: its meaning with the unit, its default, its range and
the paper's section. The paper's own values are in `presets.py`.
"""

import dataclasses

import numpy as np

from vim_tf import places
from vim_tf.settings import Config, check, group, setting
from vim_tf.settings import ConfigError as ConfigError
from vim_tf.settings import Setting as Setting
from vim_tf.settings import UserError as UserError
from vim_tf.settings import check_choice as check_choice
from vim_tf.settings import first_line as first_line
from vim_tf.settings import from_dict as from_dict
from vim_tf.settings import from_json as from_json
from vim_tf.settings import replace as replace
from vim_tf.settings import settings_of as settings_of
from vim_tf.settings import to_dict as to_dict
from vim_tf.settings import to_json as to_json

CNN_CHANNELS = 128
"""Channels of the CNN backbone at full resolution and multiplier 1."""
CNN_PATCH_SIZES = (1, 2, 4, 8, 16, 32)
MIN_PERCEPTUAL_SIZE = 16
"""Smallest images of LPIPS, in pixels: VGG16 halves them four times."""
MIN_PATCHGAN_SIZE = 24
"""Smallest images of the PatchGAN of three strided layers, in pixels."""
FEATURE_NETWORK = 'efficientnet_lite0'
"""Network whose features are measured where none is named."""
POSITIONS = ('learned', 'sincos', 'factorized')
PRECISIONS = ('float32', 'bfloat16')
INFERENCE_PRECISIONS = (*PRECISIONS, 'auto')
STRATEGIES = ('auto', 'one_device', 'mirrored', 'multi_worker', 'tpu')
"""Where replicas run."""
SCHEDULES = ('constant', 'linear', 'cosine')
"""How guidance goes over the positions of an image."""
CLASS_MIXES = ('data', 'equal')
"""How often each class is sampled: as in the data, or all alike."""
ALL_BLOCKS, BEST_BLOCK = 'all', 'best'

# ---------------------------------------------------------------------------
# Models
# ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class TransformerConfig(Config):
  """Sizes of one stack of pre-norm Transformer blocks (paper Table 2)."""

  num_blocks: int = setting('Number of blocks.', paper='Table 2', least=1)
  num_heads: int = setting(
    'Attention heads of a block.', paper='Table 2', least=1
  )
  width: int = setting('Model dimension.', paper='Table 2', least=1)
  mlp_width: int = setting(
    "Hidden dimension of a block's MLP.", paper='Table 2', least=1
  )
  dropout: float = setting(
    'Dropout rate on residual, activation and attention outputs.',
    0.0,
    paper='Table 2; 0 for linear probes with VIM-Large: Table 7',
    least=0.0,
    below=1.0,
  )
  head_width: int = setting(
    'Width of one head; 0: width / num_heads.', 0, least=0
  )
  activation: str = setting(
    'Non-linearity of the block MLPs.', 'gelu', choices=('gelu', 'tanh', 'relu')
  )
  qkv_bias: bool = setting(
    'Whether the query, key and value projections have a bias.', True
  )
  block: str = setting(
    "paper, or modern: RMSNorm, SwiGLU of as many weights as the paper's MLP, "
    'normalised queries and keys, rotary 2-D positions besides the others.',
    'paper',
    choices=('paper', 'modern'),
  )

  def check(self):
    check(
      self.block == 'paper' or self.attention_head_width % 4 == 0,
      f'heads are {self.attention_head_width} wide, but the rotary positions '
      'of modern blocks need a multiple of 4.',
    )
    check(
      self.head_width > 0 or self.width % self.num_heads == 0,
      f'width {self.width} does not divide into {self.num_heads} heads: '
      'change one of them or set head_width.',
    )

  @property
  def attention_head_width(self) -> int:
    """Width of one head."""
    return self.head_width or self.width // self.num_heads


@dataclasses.dataclass(frozen=True)
class ViTVQGANConfig(Config):
  """The stage-1 model: an image to a grid of codes and back (paper 3)."""

  encoder: TransformerConfig = group('model', flags=())
  decoder: TransformerConfig = group('model', flags=())
  image_size: int = setting(
    'Height and width of images, in pixels.', 256, paper='5.1', least=1
  )
  patch_size: int = setting(
    'Height and width of the patch behind one code, in pixels.',
    8,
    paper='3.1',
    least=1,
  )
  codebook_size: int = setting('Number of codes.', 8192, paper='3.2', least=2)
  code_dim: int = setting(
    'Width of the space in which codes are looked up.', 32, paper='3.2', least=1
  )
  l2_normalize: bool = setting(
    'Whether lookup compares l2-normalised vectors.', True, paper='3.2'
  )
  logit_laplace: bool = setting(
    'Whether the decoder gives the 6 channels of a logit-laplace distribution '
    'instead of 3 plain ones.',
    True,
    paper='3.3',
  )
  output_mlp: bool = setting(
    'Whether a two-layer MLP with tanh follows each Transformer.',
    True,
    paper='3.1',
  )
  positions: str = setting(
    "Positions: learned, factorized (a row's plus a column's vector) or fixed "
    '2-D sincos; the paper does not say.',
    'learned',
    choices=POSITIONS,
  )
  backbone: str = setting(
    'vit, or the CNN of VQGAN: cnn.',
    'vit',
    paper='Table 4',
    choices=('vit', 'cnn'),
  )
  cnn_multiplier: float = setting(
    'Channel multiplier of the cnn: 1 or 2 in the paper, below 1 for small '
    'trials.',
    1.0,
    paper='Tables 1, 4',
  )

  def check(self):
    check(
      self.image_size % self.patch_size == 0,
      f'image_size {self.image_size} is not a multiple of patch_size '
      f'{self.patch_size}.',
    )
    check(
      self.backbone != 'cnn' or self.patch_size in CNN_PATCH_SIZES,
      f'patch_size is {self.patch_size}, but the cnn backbone halves its way '
      'down, at most five times: it must be one of '
      f'{", ".join(map(str, CNN_PATCH_SIZES))}.',
    )
    channels = CNN_CHANNELS * self.cnn_multiplier
    check(
      channels >= 1 and channels % 1 == 0,
      f'cnn_multiplier is {self.cnn_multiplier}, but must make a whole number '
      f'of channels out of {CNN_CHANNELS}.',
    )
    for name in ('encoder', 'decoder'):
      check(
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
class VIMConfig(Config):
  """The stage-2 model: a decoder-only Transformer over codes (paper 4)."""

  transformer: TransformerConfig = group('model', flags=('dropout', 'block'))
  grid_size: int = setting(
    'Codes along one side; an image has grid_size**2 of them.',
    32,
    paper='4.1',
    least=1,
  )
  codebook_size: int = setting(
    'Number of codes of the tokenizer.', 8192, paper='3.2', least=2
  )
  num_classes: int = setting(
    'Classes of the class-conditional model; 0: unconditional.',
    0,
    paper='4.1',
    least=0,
  )
  positions: str = setting(
    'Positions, as of the tokenizer; the paper\'s are "learnable 2-D".',
    'factorized',
    paper='4.1',
    choices=POSITIONS,
  )

  @property
  def num_codes(self) -> int:
    """Codes of one image."""
    return self.grid_size**2


# ---------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class DataConfig(Config):
  """Where images come from and how they are augmented for training."""

  name: str = setting(
    'openmoji, openmoji_variants (with skin tones), digits, a TFDS name, or '
    'folder:PATH with one subfolder a class.',
    'openmoji',
    flag='data',
    known_by='data_fingerprint',
    place=places.local,
  )
  image_size: int = setting(
    'Height and width of images, in pixels.', 256, paper='5.1', least=1
  )
  data_dir: str = setting(
    "Where TFDS keeps prepared data; empty: TFDS's own default.",
    '',
    may_change=True,
    place=places.anywhere,
  )
  classes_of: str = setting(
    "What the classes of openmoji are: Unicode's 9 groups, or its 99 subgroups "
    '(face-smiling, heart, food-fruit, transport-ground...).',
    'group',
    choices=('group', 'subgroup'),
  )
  train_split: str = setting('Split to train on.', 'train')
  eval_split: str = setting('Held-out split.', 'validation')
  crop: str = setting(
    'Augmentation of training images: center (none), shift by up to max_shift '
    'pixels, or random_resized to min_scale of the area.',
    'random_resized',
    choices=('center', 'random_resized', 'shift'),
  )
  max_shift: int = setting(
    'Largest shift along each axis, in pixels.', 0, least=0
  )
  min_scale: float = setting(
    'Smallest share of the area kept by random_resized.',
    0.75,
    above=0.0,
    most=1.0,
  )
  flip: bool = setting(
    'Whether to mirror images at random, where the data allow it.', True
  )
  balance_classes: bool = setting(
    'Whether every class is drawn equally often.', False
  )

  def check(self):
    check(bool(self.name), 'data.name is empty; name a data set.')


@dataclasses.dataclass(frozen=True)
class LossConfig(Config):
  """Weights of the stage-1 loss (paper 3.3)."""

  codebook: float = setting(
    'Weight of the codebook term of L_VQ.',
    1.0,
    paper='3.3',
    flag='codebook_weight',
    least=0.0,
  )
  commitment: float = setting(
    'Weight of the commitment term of L_VQ, beta.',
    0.25,
    paper='3.3',
    flag='commitment_weight',
    least=0.0,
  )
  l2: float = setting(
    'Weight of the squared error.',
    1.0,
    paper='3.3',
    flag='l2_weight',
    least=0.0,
  )
  l1: float = setting(
    'Weight of the absolute error; not in the paper.',
    0.0,
    flag='l1_weight',
    least=0.0,
  )
  logit_laplace: float = setting(
    'Weight of the logit-laplace likelihood.',
    0.1,
    paper='3.3',
    flag='logit_laplace_weight',
    least=0.0,
  )
  perceptual: float = setting(
    'Weight of LPIPS; 0 for tokenizers that feed a linear probe, because VGG '
    'was trained with labels.',
    0.1,
    paper='3.3',
    flag='perceptual_weight',
    least=0.0,
  )
  adversarial: float = setting(
    'Weight of the discriminator.',
    0.1,
    paper='3.3',
    flag='adversarial_weight',
    least=0.0,
  )
  logit_laplace_form: str = setting(
    'What the logit-laplace likelihood is of: binned, the 8-bit value (nats, '
    "at least 0), or density, the point (the paper's units).",
    'binned',
    paper='3.3',
    before='density',
    choices=('binned', 'density'),
  )


@dataclasses.dataclass(frozen=True)
class PerceptualConfig(Config):
  """LPIPS as a loss; unused at `losses.perceptual` 0."""

  start_step: int = setting(
    'First step with LPIPS in the loss.',
    0,
    flag='perceptual_start_step',
    least=0,
  )
  weights_file: str = setting(
    'File of the weights of LPIPS; empty: the one that comes with the '
    'dependencies.',
    '',
    flag='lpips_file',
    may_change=True,
    place=places.local,
  )
  weights_sha256: str = setting(
    'Hash that this file must have, in hexadecimal.', '', flag='lpips_sha256'
  )

  def check(self):
    check(
      bool(self.weights_file) == bool(self.weights_sha256),
      'perceptual.weights_file and perceptual.weights_sha256 go together: '
      'give both, or neither for the weights that come with the dependencies.',
    )


@dataclasses.dataclass(frozen=True)
class AdversarialConfig(Config):
  """The discriminator and its game; unused at `losses.adversarial` 0."""

  discriminator: str = setting(
    'stylegan2, or the patchgan of the ablation.',
    'stylegan2',
    paper='3.3, Table 4',
    choices=('stylegan2', 'patchgan'),
  )
  channel_multiplier: float = setting(
    "Factor of the discriminator's channels; 1: StyleGAN2's.",
    1.0,
    flag='discriminator_multiplier',
    above=0.0,
  )
  loss: str = setting(
    'Loss of the game.',
    'non_saturating',
    flag='gan_loss',
    choices=('non_saturating', 'hinge'),
  )
  r1_gamma: float = setting(
    'Weight of the R1 penalty, whose gradient is by images in [-1, 1] as in '
    'StyleGAN2; 0: none.',
    10.0,
    least=0.0,
  )
  r1_interval: int = setting(
    'Steps from one R1 penalty to the next (lazy regularisation).', 16, least=1
  )
  start_step: int = setting(
    'First step at which the autoencoder feels the discriminator.',
    0,
    flag='adversarial_start_step',
    least=0,
  )
  adaptive_weight: bool = setting(
    "Whether to scale the term by VQGAN's ratio of gradient norms.", False
  )
  augment: bool = setting(
    "Whether to augment the discriminator's input (small data).",
    False,
    flag='discriminator_augment',
  )


@dataclasses.dataclass(frozen=True)
class CodebookConfig(Config):
  """Help for the codebook on small data; the paper uses none of it."""

  init_from_data: bool = setting(
    'Whether the codes start as encoder outputs of one batch, and the decoder '
    'from its mean colour.',
    False,
  )
  init_step: int = setting(
    'Step at which they do; until then nothing is quantised, so that the codes '
    'meet an encoder that already tells patches apart.',
    0,
    least=0,
  )
  init_kmeans: int = setting(
    'Iterations of k-means, which begins as k-means++ does and makes them the '
    'centres of these outputs; 0: they are outputs drawn uniformly.',
    0,
    least=0,
  )
  revival_interval: int = setting(
    'Steps from one revival to the next, in which codes that a batch left '
    'unused become encoder outputs; 0: none.',
    0,
    least=0,
  )
  revival_steps: int = setting('Step after which revival ends.', 0, least=0)

  def check(self):
    for name in ('init_step', 'init_kmeans'):
      value = getattr(self, name)
      check(
        self.init_from_data or value == 0,
        f'{name} is {value}, but init_from_data is off: set it to true, or '
        f'{name} to 0.',
      )
    check(
      self.revival_interval == 0 or self.revival_steps > self.init_step,
      f'revival_interval is {self.revival_interval}, but revival_steps is '
      f'{self.revival_steps}: it must come after init_step '
      f'({self.init_step}), or nothing is revived.',
    )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Config):
  """An optimizer and its schedule: warm-up, plateau, decay (5.1, 5.2)."""

  name: str = setting(
    'adam, adafactor (Adam with a factored second moment), or, not in the '
    'paper, muon (Adam, but matrices move along an orthogonal matrix) and lamb '
    '(for large batches; it needs tensorflow-addons).',
    'adam',
    paper='5.1, 5.2',
    flag='optimizer',
    choices=('adam', 'adafactor', 'muon', 'lamb'),
  )
  learning_rate: float = setting(
    'Highest learning rate.', 1e-4, paper='5.1, 5.2', above=0.0, may_change=True
  )
  beta_1: float = setting(
    'Decay of the first moment.', 0.9, least=0.0, below=1.0
  )
  beta_2: float = setting(
    'Decay of the second moment.', 0.99, paper='5.1, 5.2', least=0.0, below=1.0
  )
  weight_decay: float = setting(
    'Decoupled decay of matrices; not of biases, norms, embeddings and codes.',
    1e-4,
    paper='5.1',
    least=0.0,
  )
  warmup_steps: int = setting(
    'Steps of linear warm-up from 0.', 0, paper='5.1, 5.2', least=0
  )
  decay: str = setting(
    'How the learning rate falls.',
    'constant',
    paper='5.1, 5.2',
    choices=('constant', 'cosine', 'exponential'),
    may_change=True,
  )
  decay_start: int = setting(
    'Step at which the learning rate begins to fall.',
    0,
    paper='5.1, 5.2',
    least=0,
    may_change=True,
  )
  decay_end: int = setting(
    'Step from which the learning rate is final_learning_rate.',
    0,
    paper='5.1, 5.2',
    least=0,
    may_change=True,
  )
  final_learning_rate: float = setting(
    'Lowest learning rate.', 0.0, paper='5.1, 5.2', least=0.0, may_change=True
  )
  clip_norm: float = setting(
    'Largest global gradient norm; 0: no clipping.', 0.0, least=0.0
  )
  ema_decay: float = setting(
    "Decay of the weights' moving average; 0: none.", 0.0, least=0.0, below=1.0
  )
  accumulate: int = setting(
    'Micro-batches of one update. Their gradients add up to that of the whole '
    'batch, but for what compares its images: the minibatch deviation of '
    'stylegan2, in groups of 4, and the adaptive weight.',
    1,
    least=1,
    may_change=True,
  )

  def check(self):
    if self.decay != 'constant':
      start = max(self.decay_start, self.warmup_steps)
      check(
        self.decay_end > start,
        f'decay_end is {self.decay_end}, but must come after warm-up and '
        f'decay_start (step {start}).',
      )
    check(
      self.decay != 'exponential' or self.final_learning_rate > 0,
      'final_learning_rate is 0, which exponential decay never reaches; '
      'give a value above 0.',
    )


@dataclasses.dataclass(frozen=True)
class RunConfig(Config):
  """How long a run takes and what it leaves behind."""

  num_steps: int = setting(
    'Training steps.',
    500_000,
    paper='5.1, 5.2',
    flag='steps',
    least=1,
    may_change=True,
  )
  batch_size: int = setting(
    'Global batch, in images.', 256, paper='5.1, 5.2', least=1
  )
  seed: int = setting('The one seed of the run.', 0, least=0)
  precision: str = setting(
    'What to compute in; variables stay float32.', 'float32', choices=PRECISIONS
  )
  recompute: bool = setting(
    'Whether blocks compute their activations again in the backward pass, for '
    'memory.',
    False,
    may_change=True,
  )
  deterministic: bool = setting(
    'Whether to ask TensorFlow for deterministic kernels.', False
  )
  steps_per_loop: int = setting(
    'Steps of one compiled chunk at most; it lasts ten seconds at most, too.',
    100,
    least=1,
    may_change=True,
  )
  log_every: int = setting(
    'Steps between two rows of metrics; the first one comes after 10 at most.',
    100,
    least=1,
    may_change=True,
  )
  eval_every: int = setting(
    'Steps between two evaluations; 0: only at the end.',
    5_000,
    least=0,
    may_change=True,
  )
  picture_every: int = setting(
    'Steps between two pictures; 0: only at the end.',
    5_000,
    least=0,
    may_change=True,
  )
  checkpoint_every: int = setting(
    'Steps between two checkpoints.', 5_000, least=1, may_change=True
  )
  checkpoint_minutes: float = setting(
    'Longest time between two checkpoints, by the clock of the machine that '
    'writes them; 0: none but those of checkpoint_every.',
    15.0,
    least=0.0,
    may_change=True,
  )
  keep_checkpoints: int = setting(
    'Newest checkpoints kept.', 3, least=1, may_change=True
  )
  eval_examples: int = setting(
    'Held-out images of one evaluation, at most.',
    10_000,
    least=1,
    may_change=True,
  )


@dataclasses.dataclass(frozen=True)
class BadExamples(Config):
  """What to do about data that cannot be read."""

  on_bad_example: str = setting(
    'At an image or record that cannot be read: stop and name it, or skip it. '
    'In training and in a cache of codes another example stands in.',
    'stop',
    choices=('stop', 'skip'),
  )


@dataclasses.dataclass(frozen=True)
class Faults(BadExamples):
  """What to do about faults; not part of a run's record."""

  on_non_finite: str = setting(
    'At a loss that is infinite or not a number: stop, or restore the last '
    'checkpoint and leave out the data since then.',
    'stop',
    choices=('stop', 'restore'),
  )


STOP = Faults()


# ---------------------------------------------------------------------------
# Whole runs
# ---------------------------------------------------------------------------


_SHARED = tuple(
  field.name
  for field in dataclasses.fields(OptimizerConfig)
  if field.name not in ('clip_norm', 'ema_decay', 'accumulate')
)


@dataclasses.dataclass(frozen=True)
class Stage1Config(Config):
  """A whole training of a tokenizer."""

  model: ViTVQGANConfig = group('model')
  data: DataConfig = group('data')
  losses: LossConfig = group('loss')
  perceptual: PerceptualConfig = group('perceptual')
  adversarial: AdversarialConfig = group('adversarial')
  codebook: CodebookConfig = group('codebook')
  optimizer: OptimizerConfig = group('optimizer')
  # The paper trains both networks alike, so the flags of the one set the
  # other's. Clipping is the discriminator's own; averages and micro-batches
  # are the tokenizer's.
  discriminator_optimizer: OptimizerConfig = group(
    "discriminator's optimizer",
    flags=(*_SHARED, 'clip_norm'),
    prefix='discriminator_',
    follows=_SHARED,
  )
  run: RunConfig = group('run')
  finetune_decoder_of: str = setting(
    'Working directory of a stage-1 run whose decoder alone is trained on, so '
    'that its codes stay; empty: a new tokenizer, trained whole.',
    '',
    known_by='start_fingerprint',
    place=places.local,
  )

  def check(self):
    check(
      not self.finetune_decoder_of
      or not (self.codebook.init_from_data or self.codebook.revival_interval),
      'finetune_decoder_of keeps the codes: set codebook.init_from_data to '
      'false and codebook.revival_interval to 0.',
    )
    check(
      self.data.image_size == self.model.image_size,
      f'data.image_size is {self.data.image_size}, but the model takes '
      f'images of {self.model.image_size} pixels.',
    )
    check(
      self.model.logit_laplace or self.losses.logit_laplace == 0,
      'losses.logit_laplace is above 0, but the model has plain outputs: '
      'set model.logit_laplace=true or the weight to 0.',
    )
    check(
      not self.losses.perceptual
      or self.model.image_size >= MIN_PERCEPTUAL_SIZE,
      f'image_size is {self.model.image_size}, but the perceptual loss '
      f'needs at least {MIN_PERCEPTUAL_SIZE} pixels: set losses.perceptual to '
      '0 or take larger images.',
    )
    if self.losses.adversarial:
      self._check_discriminator()

  def _check_discriminator(self):
    size = self.model.image_size
    if self.adversarial.discriminator == 'patchgan':
      check(
        size >= MIN_PATCHGAN_SIZE,
        f'image_size is {size}, but the patchgan discriminator needs at least '
        f'{MIN_PATCHGAN_SIZE} pixels.',
      )
    else:
      odd = size // (size & -size)  # Without its powers of two.
      check(
        size >= 4 and odd in (1, 3, 5, 7),
        f'image_size is {size}, but the stylegan2 discriminator halves it '
        'down: it must be 4, 5, 6 or 7 times a power of two.',
      )
    check(
      self.discriminator_optimizer.ema_decay == 0,
      'discriminator_optimizer.ema_decay is above 0, but the weights of a '
      'discriminator are not averaged: set it to 0.',
    )
    check(
      self.discriminator_optimizer.accumulate == 1,
      'discriminator_optimizer.accumulate is above 1, but both networks '
      'follow optimizer.accumulate: leave it at 1.',
    )


@dataclasses.dataclass(frozen=True)
class Stage2Config(Config):
  """A whole training of a VIM."""

  model: VIMConfig = group('model')
  data: DataConfig = group('data')
  optimizer: OptimizerConfig = group('optimizer')
  run: RunConfig = group('run')
  tokenizer: str = setting(
    'Working directory of the stage-1 run that makes the codes.',
    '',
    known_by='tokenizer_fingerprint',
    place=places.local,
  )
  label_drop: float = setting(
    "Share of training labels replaced by 'no class', which makes "
    'classifier-free guidance possible.',
    0.0,
    least=0.0,
    below=1.0,
  )
  codes: str = setting(
    'Folder of codes that encode_dataset made with the tokenizer; empty: the '
    "tokenizer encodes the images online, as the paper's.",
    '',
    known_by='codes_fingerprint',
    place=places.local,
  )

  def check(self):
    check(
      self.model.num_classes > 0 or self.label_drop == 0,
      'label_drop is above 0, but the model is unconditional '
      '(num_classes 0): set label_drop to 0.',
    )


@dataclasses.dataclass(frozen=True)
class ProbeConfig(Config):
  """A whole linear probe (paper 4.2, which leaves most of it open)."""

  data: DataConfig = group(
    'data',
    flags=(
      'name',
      'data_dir',
      'train_split',
      'eval_split',
      'crop',
      'max_shift',
      'flip',
    ),
  )
  # Fixed: block and penalty were chosen with them.
  optimizer: OptimizerConfig = group(
    'optimizer',
    flags=('learning_rate', 'warmup_steps', 'weight_decay'),
    fixed=True,
  )
  run: RunConfig = group(
    'run',
    flags=('num_steps', 'batch_size', 'seed', 'log_every', 'checkpoint_every'),
    fixed=True,
  )
  vim: str = setting(
    'Working directory of the stage-2 run.',
    '',
    known_by='vim_fingerprint',
    place=places.local,
  )
  tokenizer: str = setting(
    'Where its stage-1 run lies now; empty: where it lay then.',
    '',
    known_by='tokenizer_fingerprint',
    place=places.local,
  )
  block: str = setting(
    'Index of the block, from 0; all: every block is measured on the held-out '
    'images; best: the one that is best on the validation part of the training '
    'images.',
    BEST_BLOCK,
    paper='4.2, Figure 3',
  )
  passes: int = setting(
    'Augmented passes over the training images, besides one pass over their '
    'centre crops.',
    0,
    least=0,
  )
  views: str = setting(
    'What is measured of validation and held-out images: their center crops, '
    'or augmented ones, of each image as many as passes.',
    'center',
    choices=('center', 'augmented'),
  )
  normalize: str = setting(
    "standardize each feature by the training images' mean and standard "
    'deviation, or none.',
    'standardize',
    choices=('standardize', 'none'),
  )
  num_seeds: int = setting(
    'How often everything is repeated, with the seeds from run.seed on.',
    1,
    least=1,
  )
  validation_share: float = setting(
    'Share of each class of the training images on which the block and the '
    'penalty are chosen.',
    0.2,
    above=0.0,
    below=1.0,
  )
  labels_per_class: int = setting(
    'Labelled training images of each class, drawn anew by each seed; 0: all.',
    0,
    least=0,
  )
  smallest_l2: float = setting(
    'Weakest penalty tried: the factor of half the squared weights, beside the '
    'mean cross-entropy.',
    1e-6,
    above=0.0,
  )
  largest_l2: float = setting('Strongest penalty tried.', 1e-2, above=0.0)
  num_l2: int = setting(
    'Penalties tried, evenly spaced on a log scale.', 5, least=1
  )
  baselines: bool = setting(
    'Whether to probe what the VIM must beat, too: raw pixels, code vectors, '
    'code counts and an untrained VIM.',
    True,
  )
  network: str = setting(
    'Feature network trained on ImageNet as the ceiling: efficientnet_lite0, '
    'inception, inception:PATH or file:PATH; empty: none.',
    '',
    place=places.local,
  )

  def check(self):
    check(
      self.block in (ALL_BLOCKS, BEST_BLOCK) or self.block.isdecimal(),
      f'block is {self.block!r}, but must be an index from 0, '
      f'{ALL_BLOCKS} or {BEST_BLOCK}.',
    )
    check(
      self.views == 'center' or self.passes > 0,
      f'views is {self.views!r}, but passes is 0: it must be at least 1.',
    )
    check(
      self.smallest_l2 <= self.largest_l2,
      f'smallest_l2 is {self.smallest_l2}, but must not be above largest_l2, '
      f'{self.largest_l2}.',
    )
    # All layers are trained side by side, each as if it were alone.
    check(
      self.optimizer.clip_norm == 0
      and self.optimizer.ema_decay == 0
      and self.optimizer.accumulate == 1,
      'A probe has no clip_norm, no ema_decay and no accumulate: leave them at '
      '0, 0 and 1.',
    )

  @property
  def penalties(self) -> tuple[float, ...]:
    """The penalties to try, the weakest first."""
    ratio = self.largest_l2 / self.smallest_l2
    last = max(1, self.num_l2 - 1)
    return tuple(
      self.smallest_l2 * ratio ** (i / last) for i in range(self.num_l2)
    )

  @property
  def fixed_block(self) -> int | None:
    """The one block to probe; None if several are."""
    return int(self.block) if self.block.isdecimal() else None


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
    check(
      ours == theirs,
      f'{name} is {ours} for the VIM, but {theirs} for its tokenizer.',
    )


# ---------------------------------------------------------------------------
# Sampling
# ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SamplingConfig(Config):
  """How codes are drawn; the paper uses the defaults (section 4.1)."""

  temperature: float = setting(
    'Divides the logits; 0 always takes the likeliest code.',
    1.0,
    paper='4.1',
    least=0.0,
    below=float('inf'),
  )
  top_k: int = setting(
    'Draw from the k likeliest codes only; 0: from all.', 0, least=0
  )
  top_p: float = setting(
    'Draw from the fewest codes that hold this share of the probability, after '
    'top_k (Holtzman et al., 2020); 1: from all.',
    1.0,
    above=0.0,
    most=1.0,
  )
  guidance_scale: float = setting(
    'Classifier-free guidance (Ho & Salimans, 2021): 1 is none, 0 ignores the '
    'class, above 1 stresses it.',
    1.0,
    least=0.0,
    below=float('inf'),
  )
  guidance_schedule: str = setting(
    'How the scale goes over the positions of an image: constant; or from 1 at '
    'the first code to guidance_scale at the last, linear (Chang et al., 2023) '
    'or as a cosine, which rises late (Gao et al., 2023; Yu et al., 2024).',
    'constant',
    choices=SCHEDULES,
  )
  guidance_power: float = setting(
    'Exponent of the position within a schedule: above 1 it rises later, below '
    '1 sooner.',
    1.0,
    above=0.0,
    below=float('inf'),
  )

  def guidance_scales(self, num_codes: int) -> np.ndarray:
    """The guidance scale of each code, float32 `[num_codes]`.

    A scale of 1 is exactly 1 at every position, whatever the schedule.
    """
    progress = np.linspace(0.0, 1.0, num_codes) ** self.guidance_power
    share = {
      'constant': np.ones([num_codes]),
      'linear': progress,
      'cosine': (1.0 - np.cos(np.pi * progress)) / 2.0,
    }[self.guidance_schedule]
    scales = 1.0 + (self.guidance_scale - 1.0) * share
    return scales.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class SelectionConfig(Config):
  """Which of the samples are kept: rejection sampling."""

  acceptance: float = setting(
    'Share of the candidates of a class that a classifier keeps; 1: no '
    'rejection.',
    1.0,
    paper='Table 6',
    above=0.0,
    most=1.0,
  )
  classifier: str = setting(
    'Classifier that keeps them: head:NETWORK (trained on the '
    "model's training images, kept in its directory), resnet101 (ImageNet), "
    'resnet101:PATH (its weights as Keras fetches them) or file:PATH (a Keras '
    'model or SavedModel).',
    'head:efficientnet_lite2',
  )
