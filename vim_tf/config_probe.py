"""How a linear probe is trained and what it is compared with."""

import dataclasses

from vim_tf import places
from vim_tf.config_checks import check, check_choice, check_least
from vim_tf.config_fields import setting
from vim_tf.config_training import DataConfig, OptimizerConfig, RunConfig

NORMALIZATIONS = ('standardize', 'none')
VIEWS = ('center', 'augmented')
ALL_BLOCKS, BEST_BLOCK = 'all', 'best'


@dataclasses.dataclass(frozen=True)
class ProbeConfig:
  """A whole run of `train_probe` (paper 4.2, which leaves most of it open).

  Attributes:
    data: The images; size as the tokenizer takes it. `crop` and `flip` are
      those of the augmented passes.
    optimizer: Optimizer and schedule of the softmax layers.
    run: Length of a training and its first seed.
    vim: Working directory of the stage-2 run.
    tokenizer: Where its stage-1 run lies now; '': where it lay then.
    block: Index of the block, from 0; 'all' measures every block on the
      held-out images; 'best' measures the one that is best on the validation
      part of the training images.
    passes: Augmented passes over the training images, besides one pass over
      their centre crops.
    views: What is measured of validation and held-out images: their 'center'
      crops, or 'augmented' ones, of each image as many as `passes`.
    normalize: 'standardize' (each feature by the training images' mean and
      standard deviation) or 'none'.
    num_seeds: How often everything is repeated, with the seeds from
      `run.seed` on.
    validation_share: Share of each class of the training images on which the
      block and the penalty are chosen.
    labels_per_class: Labelled training images of each class, drawn anew by
      each seed; 0: all.
    smallest_l2: Weakest penalty tried: the factor of half the squared
      weights, beside the mean cross-entropy.
    largest_l2: Strongest penalty tried.
    num_l2: Penalties tried, evenly spaced on a log scale.
    baselines: Whether to probe what the VIM must beat, too: raw pixels, code
      vectors, code counts and an untrained VIM.
    network: Feature network trained on ImageNet as the ceiling; '': none.
  """

  data: DataConfig
  # Block and penalty were chosen with them.
  optimizer: OptimizerConfig = setting(fixed=True)
  run: RunConfig = setting(fixed=True)
  vim: str = setting('', known_by='vim_fingerprint')
  tokenizer: str = setting('', known_by='tokenizer_fingerprint')
  block: str = BEST_BLOCK
  passes: int = 0
  views: str = 'center'
  normalize: str = 'standardize'
  num_seeds: int = 1
  validation_share: float = 0.2
  labels_per_class: int = 0
  smallest_l2: float = 1e-6
  largest_l2: float = 1e-2
  num_l2: int = 5
  baselines: bool = True
  network: str = setting('', place=places.local)

  def __post_init__(self):
    check(
      self.block in (ALL_BLOCKS, BEST_BLOCK) or self.block.isdecimal(),
      f'block is {self.block!r}, but must be an index from 0, '
      f'{ALL_BLOCKS} or {BEST_BLOCK}.',
    )
    check_choice('normalize', self.normalize, NORMALIZATIONS)
    check_choice('views', self.views, VIEWS)
    check(
      self.views == 'center' or self.passes > 0,
      f'views is {self.views!r}, but passes is 0: it must be at least 1.',
    )
    check_least(self, 0, 'passes', 'labels_per_class')
    check_least(self, 1, 'num_seeds', 'num_l2')
    check(
      0.0 < self.validation_share < 1.0,
      f'validation_share is {self.validation_share}, but must be above 0 and '
      'below 1.',
    )
    check(
      0.0 < self.smallest_l2 <= self.largest_l2,
      f'smallest_l2 is {self.smallest_l2} and largest_l2 {self.largest_l2}, '
      'but the first must be above 0 and not above the second.',
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
