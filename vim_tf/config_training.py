"""What a model is trained on, by which losses, and for how long."""

import dataclasses

from vim_tf import places
from vim_tf.config_checks import check, check_choice, check_least
from vim_tf.config_fields import setting

PRECISIONS = ('float32', 'bfloat16')
CROPS = ('center', 'random_resized', 'shift')
DISCRIMINATORS = ('stylegan2', 'patchgan')
GAN_LOSSES = ('non_saturating', 'hinge')
LOGIT_LAPLACE_FORMS = ('binned', 'density')
OPTIMIZERS = ('adam', 'adafactor', 'lamb')
DECAYS = ('constant', 'cosine', 'exponential')
STRATEGIES = ('auto', 'one_device', 'mirrored', 'multi_worker', 'tpu')


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Where images come from and how they are augmented for training.

  Attributes:
    name: 'openmoji', 'openmoji_variants' (with skin tones), 'digits', any TFDS
      name, or 'folder:PATH' with one subfolder a class.
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

  name: str = setting('openmoji', known_by='data_fingerprint')
  image_size: int = 256
  data_dir: str = setting('', may_change=True, place=places.anywhere)
  train_split: str = 'train'
  eval_split: str = 'validation'
  crop: str = 'random_resized'
  max_shift: int = 0
  min_scale: float = 0.75
  flip: bool = True
  balance_classes: bool = False

  def __post_init__(self):
    check(bool(self.name), 'data.name is empty; name a data set.')
    check_least(self, 1, 'image_size')
    check_least(self, 0, 'max_shift')
    check_choice('crop', self.crop, CROPS)
    check(
      0.0 < self.min_scale <= 1.0,
      f'min_scale is {self.min_scale}, but must be in (0, 1].',
    )


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """Weights of the stage-1 loss (paper 3.3), all at least 0.

  `l1` is not in the paper. The perceptual weight is 0 for tokenizers that
  feed a linear probe, because VGG was trained with labels.

  `logit_laplace_form` says what its likelihood is of: 'binned', the 8-bit value
  (nats, at least 0), or 'density', the point (the paper's units); see
  `losses.logit_laplace_nll`.
  """

  codebook: float = 1.0
  commitment: float = 0.25
  l2: float = 1.0
  l1: float = 0.0
  logit_laplace: float = 0.1
  perceptual: float = 0.1
  adversarial: float = 0.1
  logit_laplace_form: str = setting('binned', before='density')

  def __post_init__(self):
    weights = [f.name for f in dataclasses.fields(self) if f.type is float]
    check_least(self, 0.0, *weights)
    check_choice(
      'losses.logit_laplace_form', self.logit_laplace_form, LOGIT_LAPLACE_FORMS
    )


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
  weights_file: str = setting('', may_change=True, place=places.local)
  weights_sha256: str = ''

  def __post_init__(self):
    check_least(self, 0, 'start_step')
    check(
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
    r1_gamma: Weight of the R1 penalty, whose gradient is by images in
      [-1, 1] as in StyleGAN2; 0 turns it off.
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
    check_choice('discriminator', self.discriminator, DISCRIMINATORS)
    check_choice('adversarial.loss', self.loss, GAN_LOSSES)
    check_least(self, 0, 'r1_gamma', 'start_step')
    check_least(self, 1, 'r1_interval')
    check(
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
    check_least(self, 0, 'init_step', 'revival_interval', 'revival_steps')
    check(
      self.init_from_data or self.init_step == 0,
      f'init_step is {self.init_step}, but init_from_data is off: set it to '
      'true, or init_step to 0.',
    )
    check(
      self.revival_interval == 0 or self.revival_steps > self.init_step,
      f'revival_interval is {self.revival_interval}, but revival_steps is '
      f'{self.revival_steps}: it must come after init_step '
      f'({self.init_step}), or nothing is revived.',
    )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """Adam with its schedule: warm-up, plateau, decay (paper 5.1, 5.2).

  Attributes:
    name: 'adam', 'adafactor' (Adam with a factored second moment) or 'lamb'
      (not the paper's: for large batches, needs tensorflow-addons).
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
    accumulate: Micro-batches whose gradients make one update. They add up to
      the gradient of the whole batch, but for what compares the images of a
      batch: the minibatch deviation of the 'stylegan2' discriminator, whose
      groups of 4 are formed within a micro-batch, and the adaptive weight.
  """

  name: str = 'adam'
  learning_rate: float = setting(1e-4, may_change=True)
  beta_1: float = 0.9
  beta_2: float = 0.99
  weight_decay: float = 1e-4
  warmup_steps: int = 0
  decay: str = setting('constant', may_change=True)
  decay_start: int = setting(0, may_change=True)
  decay_end: int = setting(0, may_change=True)
  final_learning_rate: float = setting(0.0, may_change=True)
  clip_norm: float = 0.0
  ema_decay: float = 0.0
  accumulate: int = setting(1, may_change=True)

  def __post_init__(self):
    check_choice('optimizer.name', self.name, OPTIMIZERS)
    check_choice('optimizer.decay', self.decay, DECAYS)
    check_least(
      self,
      0,
      'weight_decay',
      'warmup_steps',
      'decay_start',
      'final_learning_rate',
      'clip_norm',
    )
    check_least(self, 1, 'accumulate')
    check(
      self.learning_rate > 0,
      f'learning_rate is {self.learning_rate}, but must be above 0.',
    )
    for name in ('beta_1', 'beta_2', 'ema_decay'):
      value = getattr(self, name)
      check(0 <= value < 1, f'{name} is {value}, but must be in [0, 1).')
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

  num_steps: int = setting(500_000, may_change=True)
  batch_size: int = 256
  seed: int = 0
  precision: str = 'float32'
  recompute: bool = setting(False, may_change=True)
  deterministic: bool = False
  steps_per_loop: int = setting(100, may_change=True)
  log_every: int = setting(100, may_change=True)
  eval_every: int = setting(5_000, may_change=True)
  picture_every: int = setting(5_000, may_change=True)
  checkpoint_every: int = setting(5_000, may_change=True)
  keep_checkpoints: int = setting(3, may_change=True)
  eval_examples: int = setting(10_000, may_change=True)

  def __post_init__(self):
    check_choice('precision', self.precision, PRECISIONS)
    check_least(
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
    check_least(self, 0, 'seed', 'eval_every', 'picture_every')
