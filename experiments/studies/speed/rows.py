"""The benchmark's table: what is timed, under which settings."""

from collections.abc import Callable
import dataclasses
import itertools
import re

from experiments.studies.speed import (
  export_jobs,
  input_jobs,
  tokenizer_jobs,
  vim_jobs,
)
from experiments.studies.speed.sizes import Sizes
from experiments.studies.speed.timing import Job
from vim_tf.config import ConfigError

_GUIDED = 2.0


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of the table.

  Attributes:
    name: How it is called.
    what: What one call does.
    prepare: Makes the job from sizes and settings, and from a new folder if
      `needs_folder`.
    settings: A dataclass of what can be set.
    needs_folder: Whether the job keeps files.
  """

  name: str
  what: str
  prepare: Callable[..., Job]
  settings: object
  needs_folder: bool = False


def rows(sizes: Sizes) -> list[Row]:
  """All rows, in the order of the table."""
  return [
    *_tokenizer(sizes),
    *_stage1_steps(sizes),
    *_vim(sizes),
    *_with_files(sizes),
  ]


def chosen(sizes: Sizes, pattern: str) -> list[Row]:
  """The rows whose names a regular expression matches somewhere.

  Raises:
    ConfigError: If it is no regular expression, or there is none.
  """
  every = rows(sizes)
  try:
    found = [row for row in every if re.search(pattern, row.name)]
  except re.error as error:
    raise ConfigError(
      f'--rows={pattern} is not a regular expression: {error}.'
    ) from error
  if not found:
    names = ', '.join(row.name for row in every)
    raise ConfigError(f'--rows={pattern} matches none of {names}.')
  return found


def _tokenizer(sizes: Sizes) -> list[Row]:
  found = []
  for name, what, prepare in (
    ('encode', 'images to codes', tokenizer_jobs.encode),
    ('decode', 'codes to images', tokenizer_jobs.decode),
  ):
    for precision in ('float32', 'bfloat16'):
      settings = tokenizer_jobs.Passing(sizes.batch, precision)
      found.append(Row(f'{name}_{precision}', what, prepare, settings))
  return [
    *found,
    Row(
      'lookup',
      'the nearest codes of vectors',
      tokenizer_jobs.lookup,
      tokenizer_jobs.Lookup(sizes.lookup_batch),
    ),
  ]


def _stage1_steps(sizes: Sizes) -> list[Row]:
  found = []
  for size, batch in (
    (sizes.small_image, sizes.small_batch),
    (sizes.large_image, sizes.large_batch),
  ):
    for r1 in (False, True):
      found.append(
        Row(
          f'stage1_step_{size}px' + '_r1' * r1,
          'an update of tokenizer and discriminator' + ', with R1' * r1,
          tokenizer_jobs.stage1_step,
          tokenizer_jobs.Stage1Step(size, batch, r1),
        )
      )
  return found


def _vim(sizes: Sizes) -> list[Row]:
  model = sizes.stage2.model
  dropout = model.transformer.dropout
  found = [
    Row(
      f'stage2_step_{precision}',
      'an update of VIM',
      vim_jobs.stage2_step,
      vim_jobs.Stage2Step(sizes.stage2_batch, precision, dropout=dropout),
    )
    for precision in ('float32', 'bfloat16')
  ]
  scales = (1.0, _GUIDED) if model.num_classes else (1.0,)
  batches = (sizes.few, sizes.some, sizes.many)
  for precision, scale, batch in itertools.product(
    ('float32', 'bfloat16'), scales, batches
  ):
    guided = scale != 1.0
    found.append(
      Row(
        f'sampling_{batch}_{precision}' + '_guided' * guided,
        'all codes of images' + ', with guidance' * guided,
        vim_jobs.sample,
        vim_jobs.Sampling(batch, model.grid_size, scale, precision=precision),
      )
    )
  return found


def _with_files(sizes: Sizes) -> list[Row]:
  return [
    Row(name, what, prepare, settings, needs_folder=True)
    for name, what, prepare, settings in (
      (
        'export_tokenizer_request',
        'images to codes by a warm export',
        export_jobs.request_codes,
        export_jobs.Exported(sizes.few),
      ),
      (
        'export_sampler_request',
        'images of a class by a warm export',
        export_jobs.request_images,
        export_jobs.ExportedSampler(sizes.few),
      ),
      (
        'input_jpeg',
        'batches from JPEG files',
        input_jobs.from_jpeg,
        input_jobs.Input(sizes.input_batch),
      ),
    )
  ]
