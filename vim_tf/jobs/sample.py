"""Draws images with both stages together: VIM draws codes, one decodes them."""

from collections.abc import Mapping, Sequence
import os
import pathlib

from absl import logging
from etils import epy
import numpy as np
from PIL import Image
import tensorflow as tf

from vim_tf import config as config_lib
from vim_tf.config import ConfigError, UserError
from vim_tf.data import folders
from vim_tf.data import images as images_lib
from vim_tf.jobs import class_names, output, pictures, restore, sample_folder
from vim_tf.metrics import classifiers
from vim_tf.nn import replicas
from vim_tf.training import strategy as strategy_lib
from vim_tf.vim import decoding, rejection
from vim_tf.vim.sampling import SamplingConfig

with epy.lazy_imports():  # Of data sets, which only rejection needs.
  from vim_tf.jobs import references

_AS_IN_THE_PAPER = SamplingConfig()
_MAX_IMAGES = 50_000  # That a head is trained on, at most.


def sample(
  workdir: str | os.PathLike,
  out: str | os.PathLike,
  *,
  tokenizer: str | os.PathLike = '',
  classes: Sequence[str] = (),
  count: int = 8,
  seed: int = 0,
  config: SamplingConfig = _AS_IN_THE_PAPER,
  complete: str = '',
  keep_rows: int | None = None,
  acceptance: float = 1.0,
  classifier: str | None = None,
  batch_size: int = 32,
  window: int = 0,
  precision: str = 'float32',
  changes: Mapping[str, str] | None = None,
  on_bad_example: str = 'stop',
  strategy: tf.distribute.Strategy | None = None,
) -> sample_folder.Samples:
  """Draws images of a trained VIM into a folder.

  Args:
    workdir: Working directory of the stage-2 run.
    out: A new or empty folder: one PNG an image, a grid of all, and
      `samples.json`, which `sample_again` reads.
    tokenizer: Its stage-1 run, if that was moved.
    classes: Names of classes, or ids as text; none: all.
    count: Images of each class.
    seed: Of the first image; the next ones count up.
    config: How codes are drawn.
    complete: An image file whose first rows of codes are kept; '': none.
    keep_rows: How many rows; each is as high as a patch.
    acceptance: Share of the candidates of a class that the classifier keeps,
      in (0, 1]; 1: no rejection (paper Table 6).
    classifier: Ranks them; see `references.load_classifier`. None:
      `references.CLASSIFIER`.
    batch_size: Images at once, at most.
    window: Codes of an image to guess and check at once; 0: what suits the
      batch. See `decoding.Decoder`.
    precision: 'float32', in which an image does not depend on its batch,
      'bfloat16', or 'auto': see `restore.policy`.
    changes: Settings of the run that differ, as `config.replace` takes them:
      where the images are that a classifier's head learns from.
    on_bad_example: At one of those that cannot be read 'stop', or 'skip' it.
    strategy: Whose replicas draw and decode; None: 'auto' of `strategy.make`.

  Returns:
    What was drawn.

  Raises:
    UserError: If the run cannot be read or drawn from, something of the
      arguments does not fit it, or `out` cannot be written to.
  """
  if bool(complete) != (keep_rows is not None):
    raise ConfigError(
      '--complete and --keep_rows go together: an image, and how many rows of '
      'its codes are kept.'
    )
  rejection.check_acceptance(acceptance)
  with output.new_folder(out) as out:
    with (strategy or strategy_lib.make()).scope():
      first, second = restore.both(
        workdir, tokenizer, restore.policy(precision)
      )
    warn(config.guidance_scale, second.config)
    model = second.config.model
    ids = class_names.parse(
      classes, second.record['class_names'], model.num_classes
    )
    ids = np.repeat(ids, count)
    image, prefix, length, selection = None, None, 0, {'acceptance': acceptance}
    if complete:
      image, prefix, length = read_prefix(first, complete, keep_rows)
      selection['completed'] = complete
    chooser = None
    if acceptance < 1:
      data = config_lib.replace(second.config, changes or {}).data
      chooser = references.load_classifier(
        classifier or references.CLASSIFIER,
        second,
        references.Data(data, _MAX_IMAGES, batch_size, on_bad_example),
        references.heads_folder(workdir),
      )
      selection['classifier'] = chooser.name
    kept = Sampler(first.model, second.model, window).keep_best(
      ids,
      seed,
      config,
      acceptance=acceptance,
      classifier=chooser,
      batch_size=batch_size,
      prefix=prefix,
      prefix_length=length,
    )
    selection['num_candidates'] = kept.num_candidates
    samples = sample_folder.Samples(
      ids,
      kept.seeds,
      kept.codes,
      config,
      batch_size,
      np.zeros([0], np.int32) if prefix is None else prefix[:length],
      kept.probabilities if chooser else None,
      selection,
      window,
    )
    sample_folder.write(out, samples, kept.images, first, second, str(workdir))
    if image is not None:
      Image.fromarray(image).save(out / 'original.png')
    logging.info('%d images are in %s.', len(ids), out)
  return samples


def sample_again(
  file: str | os.PathLike,
  workdir: str | os.PathLike,
  out: str | os.PathLike,
  *,
  tokenizer: str | os.PathLike = '',
  strategy: tf.distribute.Strategy | None = None,
) -> sample_folder.Samples:
  """Makes the images of a `samples.json` again: the very same files.

  The codes are drawn from their seeds once more, and where the machine or
  another TensorFlow rounds otherwise, a warning says of how many images they
  differ; the files are made of the codes in the record.

  Args:
    file: The `samples.json`.
    workdir: Working directory of the stage-2 run that drew them.
    out: A new or empty folder.
    tokenizer: Its stage-1 run, if that was moved.
    strategy: As of `sample`.

  Returns:
    What the file holds.

  Raises:
    UserError: If the file cannot be read, the models are others or `out`
      cannot be written to.
  """
  with output.new_folder(out) as out:
    samples, facts = sample_folder.read(file)
    with (strategy or strategy_lib.make()).scope():
      first, second = restore.both(workdir, tokenizer, facts['precision'])
    sample_folder.check_models(file, facts, first, second)
    sampler = Sampler(first.model, second.model, samples.window)
    _draw_again(samples, sampler, file)
    decode, images = decoder(first.model), []
    for part, own in replicas.parts(len(samples.codes), samples.batch_size):
      images.append(decode(samples.codes[part])[:own])
    images = np.concatenate(images)
    sample_folder.write(out, samples, images, first, second, str(workdir))
    logging.info('%d images are in %s.', len(samples.ids), out)
  return samples


def _draw_again(samples: sample_folder.Samples, sampler: 'Sampler', file):
  """Draws the codes of a file from their seeds, and tells what differs."""
  length = len(samples.prefix)
  prefix = np.zeros(samples.codes.shape[1:], np.int32)
  prefix[:length] = samples.prefix
  different = 0
  for part, own in replicas.parts(len(samples.ids), samples.batch_size):
    codes = sampler.codes(
      samples.ids[part], samples.seeds[part], samples.config, prefix, length
    )
    wrong = np.any(codes != samples.codes[part], axis=1)
    different += int(wrong[:own].sum())
  if different:
    logging.warning(
      '%d of %d images are drawn otherwise on this machine; the files are made '
      'of the codes in %s.',
      different,
      len(samples.ids),
      file,
    )


def warn(scale: float, vim: config_lib.Stage2Config):
  """Tells of a guidance scale that a model has not learned for."""
  if scale == 1:
    return
  if not vim.model.num_classes:
    logging.warning(
      'guidance_scale is %g, but changes nothing: the model has no classes.',
      scale,
    )
  elif not vim.label_drop:
    logging.warning(
      "guidance_scale is %g, but the model never met 'no class' in its "
      'training, because label_drop was 0: samples may be poor.',
      scale,
    )


class Sampler:
  """Draws codes and turns them into images.

  Args:
    tokenizer: Turns codes into images.
    vim: Draws the codes, with the weights of the first call.
    window: Codes of an image to guess at once; see `decoding.Decoder`.
  """

  def __init__(self, tokenizer, vim, window: int = 0):
    self._window = window
    self._decoder = decoding.Decoder(vim, frozen=True)
    self._decode = decoder(tokenizer)

  def __call__(
    self,
    ids,
    seeds,
    config: SamplingConfig,
    prefix: np.ndarray | None = None,
    prefix_length: int = 0,
  ) -> tuple[np.ndarray, np.ndarray]:
    """Draws one batch.

    Args:
      ids: Class of each image.
      seeds: Seed of each image.
      config: How to draw.
      prefix: Optional codes `[num_codes]` that every image starts from.
      prefix_length: How many codes of it are kept.

    Returns:
      Codes int32 `[batch, num_codes]` and uint8 images.
    """
    codes = self.codes(ids, seeds, config, prefix, prefix_length)
    return codes, self._decode(codes)

  def codes(
    self, ids, seeds, config, prefix=None, prefix_length=0
  ) -> np.ndarray:
    """The codes alone; see `__call__`."""
    if prefix is not None:
      prefix = np.tile(prefix, [len(ids), 1])
    return self._decoder(
      ids, seeds, config, prefix, prefix_length, self._window
    )

  def keep_best(
    self,
    ids,
    seed: int,
    config: SamplingConfig,
    *,
    acceptance: float,
    classifier: classifiers.Classifier | None,
    batch_size: int,
    **prefix,
  ) -> rejection.Kept:
    """Draws with rejection; at acceptance 1 without, and without classifier.

    Args:
      ids: Class of each wanted image.
      seed: Seed of the first one; see `rejection.candidates`.
      config: How to draw.
      acceptance: Share of the candidates that is kept.
      classifier: Ranks them.
      batch_size: Candidates at once, at most.
      **prefix: As of `__call__`.
    """
    return rejection.sample(
      lambda some, seeds: self(some, seeds, config, **prefix),
      lambda images: classifier(images_lib.from_uint8(images)),
      ids,
      seed=seed,
      acceptance=acceptance,
      batch_size=batch_size,
    )


def decoder(tokenizer):
  """A function from codes `[batch, num_codes]` to uint8 images."""
  to_images = replicas.OnReplicas(tokenizer.decode, replicas.of(tokenizer))
  return lambda codes: pictures.to_bytes(to_images(codes))


def read_prefix(
  tokenizer: restore.Restored, path: str, keep_rows: int
) -> tuple[np.ndarray, np.ndarray, int]:
  """Reads an image as evaluation images are read, and encodes it.

  Args:
    tokenizer: Makes the codes.
    path: A JPEG or PNG file of any size: its largest centred square
      is taken, resized.
    keep_rows: Rows of codes to keep, of which each is as high as a patch.

  Returns:
    The prepared image, uint8 `[image_size, image_size, 3]`; its codes, int32
    `[num_codes]`; and how many of them are kept.

  Raises:
    UserError: If the file is no image, or has not that many rows.
  """
  sizes = tokenizer.config.model
  if not 0 <= keep_rows <= sizes.grid_size:
    raise ConfigError(
      f'--keep_rows is {keep_rows}, but an image has {sizes.grid_size} rows of '
      f'codes, of {sizes.patch_size} pixels each: keep 0 to {sizes.grid_size}.'
    )
  try:
    encoded = pathlib.Path(path).read_bytes()
  except OSError as error:
    raise UserError(
      f'Cannot read --complete={path}: {error.strerror}.'
    ) from error
  folders.check_image(encoded, path)
  try:
    image = images_lib.decode_square(tf.constant(encoded), sizes.image_size)
  except tf.errors.InvalidArgumentError as error:
    raise UserError(f'{path} is not an image, or a broken one.') from error
  encode = replicas.OnReplicas(
    tokenizer.model.encode, replicas.of(tokenizer.model)
  )
  codes = encode(images_lib.from_uint8(image)[None])
  return image.numpy(), codes[0], keep_rows * sizes.grid_size
