"""Opens a trained run for use from Python: what `vim_tf.load` gives."""

from collections.abc import Callable, Sequence
import functools
import numbers
import os

import numpy as np
import tensorflow as tf

from vim_tf import places
from vim_tf.config import ConfigError, UserError
from vim_tf.jobs import class_names, restore
from vim_tf.nn import replicas
from vim_tf.probe import features
from vim_tf.training import workdir as workdir_lib
from vim_tf.vim import decoding
from vim_tf.vim import model as vim_model
from vim_tf.vim.sampling import SamplingConfig
from vim_tf.vit_vqgan import model as vit_vqgan_model


class Run:
  """The trained models of a run. Images go in and out as float32 in [0, 1].

  Attributes:
    kind: What the run trained: 'vit_vqgan', 'vim' or 'probe'.
    config: Its settings.
    tokenizer: The ViT-VQGAN, which turns images into codes and back.
    vim: The VIM, which draws codes; None of a stage-1 run.
    probe: The linear probe; None of the other kinds.
    class_names: Names of the classes by id: those that the VIM draws, or that
      the probe tells apart; of a stage-1 run those of its images.
  """

  def __init__(
    self,
    kind: str,
    class_names: Sequence[str],
    tokenizer: restore.Restored,
    vim: restore.Restored | None = None,
    probe: restore.RestoredProbe | None = None,
  ):
    self.kind = kind
    self.class_names = tuple(class_names)
    self.tokenizer: vit_vqgan_model.ViTVQGAN = tokenizer.model
    self.vim: vim_model.VIM | None = vim and vim.model
    self.probe = probe
    self.config = (vim or tokenizer).config
    self._names = vim.record['class_names'] if vim else ()

  def encode(self, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """Images to codes.

    Args:
      images: float32 `[n, image_size, image_size, 3]` in [0, 1].
      batch_size: Images at once.

    Returns:
      int32 `[n, num_codes]`.

    Raises:
      ConfigError: If the images are of another size.
    """
    return _batched(self._encode, self._checked(images), batch_size)

  def decode(self, codes: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """Codes to images.

    Args:
      codes: int `[n, num_codes]`.
      batch_size: Images at once.

    Returns:
      float32 `[n, image_size, image_size, 3]` in [0, 1].

    Raises:
      ConfigError: If there is another number of codes, or one that the
        codebook does not have.
    """
    sizes = self.tokenizer.config
    codes = np.asarray(codes)
    if codes.ndim != 2 or codes.shape[1] != sizes.num_codes:
      raise ConfigError(
        f'The codes are of the shape {list(codes.shape)}, but must be '
        f'[n, {sizes.num_codes}].'
      )
    if codes.size and not 0 <= codes.min() <= codes.max() < sizes.codebook_size:
      raise ConfigError(
        f'There are codes from {codes.min()} to {codes.max()}, but the '
        f'codebook has 0 to {sizes.codebook_size - 1}.'
      )
    return _batched(self._decode, np.int32(codes), batch_size)

  def sample(
    self,
    classes: Sequence[str | int] | None = None,
    *,
    seeds: Sequence[int] | None = None,
    batch_size: int = 32,
    window: int = 0,
    **sampling,
  ) -> np.ndarray:
    """Draws images.

    Args:
      classes: Class of each image, by name (of ImageNet, its words too) or by
        id; None: a VIM without classes draws one image a seed.
      seeds: Seed of each image, in [0, 2**32); None: 0, 1, 2... In float32
        the same seed, class and settings give the same image in any batch.
      batch_size: Images at once.
      window: Codes of an image to guess and check at once, which in float32
        changes nothing but the speed; 0: what suits the batch.
      **sampling: Fields of `SamplingConfig`: temperature, top_k, top_p,
        guidance_scale...

    Returns:
      float32 `[n, image_size, image_size, 3]` in [0, 1].

    Raises:
      UserError: If the run has no VIM, a class is unknown, or a seed or a
        setting is out of range.
    """
    codes = self.sample_codes(
      classes, seeds=seeds, batch_size=batch_size, window=window, **sampling
    )
    return self.decode(codes, batch_size)

  def sample_codes(
    self,
    classes: Sequence[str | int] | None = None,
    *,
    seeds: Sequence[int] | None = None,
    batch_size: int = 32,
    window: int = 0,
    **sampling,
  ) -> np.ndarray:
    """Draws codes alone, int32 `[n, num_codes]`; see `sample`."""
    if self.vim is None:
      raise UserError(
        'This run trained a tokenizer, which draws nothing: load the run of a '
        'VIM.'
      )
    try:
      config = SamplingConfig(**sampling)
    except TypeError as error:
      fields = ', '.join(SamplingConfig.__dataclass_fields__)
      raise ConfigError(
        f'{", ".join(sampling)}: not all are settings of sampling, which are '
        f'{fields}.'
      ) from error
    ids = self._ids(classes, seeds)
    seeds = np.arange(len(ids)) if seeds is None else np.asarray(seeds)
    if seeds.shape != ids.shape:
      raise ConfigError(
        f'There are {len(ids)} classes, but seeds of the shape '
        f'{list(seeds.shape)}: give one seed for each image.'
      )
    rows = np.stack([ids, seeds], axis=1)
    return _batched(
      lambda part: self._draw(part[:, 0], part[:, 1], config, window=window),
      rows,
      batch_size,
    )

  def classify(self, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """What the linear probe takes images for.

    Args:
      images: float32 `[n, image_size, image_size, 3]` in [0, 1].
      batch_size: Images at once.

    Returns:
      Probabilities of the classes, float32 `[n, classes]`.

    Raises:
      UserError: If the run is no probe, or the images are of another size.
    """
    if self.probe is None:
      raise UserError('This run trained no probe: load the run of one.')
    return _batched(self._classify, self._checked(images), batch_size)

  # ------------------------------------------------------------------- parts

  @functools.cached_property
  def _encode(self) -> Callable:
    return tf.function(self.tokenizer.encode, autograph=False)

  @functools.cached_property
  def _decode(self) -> Callable:
    return tf.function(self.tokenizer.decode, autograph=False)

  @functools.cached_property
  def _draw(self) -> decoding.Decoder:
    return decoding.Decoder(self.vim, frozen=True)

  @functools.cached_property
  def _classify(self) -> Callable:
    block = self.probe.block

    @tf.function(autograph=False)
    def classify(images):
      codes = self.tokenizer.encode(images)
      found = features.block_features(self.vim, codes, block)
      logits = self.probe.layer(found[features.block_name(block)])
      return tf.nn.softmax(logits[:, 0])

    return classify

  def _checked(self, images) -> np.ndarray:
    """Images as they must be."""
    size = self.tokenizer.config.image_size
    images = np.asarray(images)
    if images.dtype == np.uint8:
      raise ConfigError('The images are uint8, but must be float in [0, 1].')
    if images.ndim != 4 or images.shape[1:] != (size, size, 3):
      raise ConfigError(
        f'The images are of the shape {list(images.shape)}, but must be '
        f'[n, {size}, {size}, 3].'
      )
    return np.float32(images)

  def _ids(self, classes, seeds) -> np.ndarray:
    """Class of each image, `[n]`; 0 where the VIM has no classes."""
    count = self.vim.config.num_classes
    if not count:
      if classes is not None:
        raise ConfigError(
          'Classes were given, but the VIM has none: give seeds alone.'
        )
      return np.zeros([1 if seeds is None else len(seeds)], np.int64)
    if classes is None or isinstance(classes, str):
      raise ConfigError(
        "Give the class of each image in a list, such as ['"
        f"{self._names[0]}', '{self._names[-1]}']."
      )
    if not all(isinstance(name, numbers.Integral) for name in classes):
      ids = class_names.parse(list(map(str, classes)), self._names, count)
      return np.asarray(ids, np.int64)
    ids = np.asarray(classes, np.int64)
    if ids.size and not 0 <= ids.min() <= ids.max() < count:
      raise ConfigError(
        f'There are classes from {ids.min()} to {ids.max()}, but the VIM has 0 '
        f'to {count - 1}.'
      )
    return ids


def load(
  workdir: str | os.PathLike,
  *,
  tokenizer: str | os.PathLike = '',
  vim: str | os.PathLike = '',
  precision: str = 'float32',
) -> Run:
  """Opens the working directory of a run, whatever it trained.

  Args:
    workdir: The run: of a tokenizer, a VIM or a probe.
    tokenizer: Where the tokenizer of a VIM or a probe lies now, if its run was
      moved.
    vim: The same of the VIM of a probe.
    precision: 'float32', in which an image does not depend on its batch,
      'bfloat16', or 'auto': see `restore.policy`.

  Raises:
    UserError: If it is no such directory, the run has no checkpoint yet, or
      one that it builds on is not there.
  """
  workdir, tokenizer, vim = (
    path and places.local(path, 'The working directory')
    for path in (workdir, tokenizer, vim)
  )
  record = workdir_lib.read(workdir)
  kind = record.get('kind')
  if kind not in ('vit_vqgan', 'vim', 'probe'):
    raise workdir_lib.WorkdirError(
      f'{workdir} is the working directory of a run of another kind ({kind!r}).'
    )
  policy = restore.policy(precision)
  if kind == 'vit_vqgan':
    first = restore.tokenizer(workdir, policy)
    return Run(kind, first.record.get('class_names', ()), first)
  if kind == 'vim':
    first, second = restore.both(workdir, tokenizer, policy)
    names = (
      second.record['class_names'] if second.model.config.num_classes else ()
    )
    return Run(kind, names, first, second)
  probe = restore.probe(workdir, None, policy, vim, tokenizer)
  return Run(
    kind, probe.record['class_names'], probe.tokenizer, probe.vim, probe
  )


def _batched(function: Callable, rows: np.ndarray, size: int) -> np.ndarray:
  """Computes rows in batches of one size, so that a graph is made once."""
  if size < 1:
    raise ConfigError(f'batch_size is {size}, but must be at least 1.')
  if not len(rows):
    return np.asarray(function(rows))
  return np.concatenate(
    [
      np.asarray(function(rows[part]))[:own]
      for part, own in replicas.parts(len(rows), size)
    ]
  )
