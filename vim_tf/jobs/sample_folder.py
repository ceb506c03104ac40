"""A folder of samples: PNGs, a grid, and a JSON that makes them again."""

import dataclasses
import os
import pathlib

import numpy as np
from PIL import Image

from vim_tf.config import ConfigError, UserError, from_dict
from vim_tf.jobs import class_names, pictures, restore
from vim_tf.training import workdir as workdir_lib
from vim_tf.vim.sampling import SamplingConfig

FILE = 'samples.json'

_SELECTION = ('acceptance', 'classifier', 'num_candidates', 'completed')
_POLICIES = ('float32', 'mixed_bfloat16')


@dataclasses.dataclass(frozen=True)
class Samples:
  """Images that were drawn, and how.

  Attributes:
    ids: Class of each image, `[count]`.
    seeds: Seed of each.
    codes: int32 `[count, num_codes]`.
    config: How codes were drawn.
    batch_size: Images at once.
    prefix: Codes that each image starts from, maybe none.
    probabilities: What the classifier gave each; None without rejection.
    selection: How they were selected, for the record.
    window: How many codes of an image were guessed at once; 0: what suited the
      batch.
  """

  ids: np.ndarray
  seeds: np.ndarray
  codes: np.ndarray
  config: SamplingConfig
  batch_size: int
  prefix: np.ndarray
  probabilities: np.ndarray | None = None
  selection: dict = dataclasses.field(default_factory=dict)
  window: int = 0


def models_facts(tokenizer: restore.Restored, vim: restore.Restored) -> dict:
  """What must be the same for the same images."""
  return {
    'step': vim.step,
    'vim_fingerprint': restore.fingerprint(vim.model),
    'tokenizer_fingerprint': restore.fingerprint(tokenizer.model),
  }


def write(
  out: pathlib.Path,
  samples: Samples,
  images: np.ndarray,
  tokenizer: restore.Restored,
  vim: restore.Restored,
  workdir: str,
):
  """Writes a folder of samples.

  Args:
    out: The folder, which is there.
    samples: What was drawn.
    images: What its codes became, uint8 `[count, height, width, 3]`.
    tokenizer: What turned them into images.
    vim: What drew them.
    workdir: Its working directory.
  """
  names = vim.record['class_names']
  rows = []
  for i, image in enumerate(images):
    class_id, seed = int(samples.ids[i]), int(samples.seeds[i])
    file = f'{class_id:04d}-{seed}.png'
    Image.fromarray(image).save(out / file)
    row = {
      'file': file,
      'class_id': class_id,
      'class_name': names[class_id] if vim.config.model.num_classes else '',
      'seed': seed,
      'codes': samples.codes[i].tolist(),
    }
    if samples.probabilities is not None:
      row['probability'] = float(samples.probabilities[i])
    rows.append(row)
  grid = pictures.grid(
    images / np.float32(255),
    _columns(samples.ids),
    class_names.of(samples.ids, names, vim.config.model),
  )
  Image.fromarray(grid).save(out / 'grid.png')
  workdir_lib.write_json(
    out / FILE,
    {
      'workdir': workdir,
      **models_facts(tokenizer, vim),
      'precision': vim.model.dtype_policy.name,
      'batch_size': samples.batch_size,
      'window': samples.window,
      'sampling': vars(samples.config),
      'prefix': samples.prefix.tolist(),
      **samples.selection,
      'samples': rows,
    },
  )


def check_models(
  path: str | os.PathLike,
  facts: dict,
  tokenizer: restore.Restored,
  vim: restore.Restored,
):
  """Refuses models that did not draw the samples of a file with such facts."""
  for key, found in models_facts(tokenizer, vim).items():
    if facts[key] != found:
      raise UserError(
        f'The samples of {path} are of another model: their {key} is '
        f'{facts[key]}, but that of the one given is {found}.'
      )


def read(path: str | os.PathLike) -> tuple[Samples, dict]:
  """Reads what `write` noted.

  Returns:
    What was drawn, and the whole file: the models' facts, and their policy as
    'precision'.

  Raises:
    UserError: If the file cannot be read, or holds something else.
  """
  try:
    values = workdir_lib.read_json(path)
    rows = values['samples']
    samples = Samples(
      ids=np.array([row['class_id'] for row in rows]),
      seeds=np.array([row['seed'] for row in rows]),
      codes=np.array([row['codes'] for row in rows], np.int32),
      config=from_dict(SamplingConfig, values['sampling']),
      batch_size=values['batch_size'],
      prefix=np.array(values['prefix'], np.int32),
      probabilities=(
        np.array([row['probability'] for row in rows])
        if rows and 'probability' in rows[0]
        else None
      ),
      selection={
        key: value for key, value in values.items() if key in _SELECTION
      },
      window=values.get('window', 1),  # Before there were windows: one by one.
    )
    if values['precision'] not in _POLICIES:
      raise ValueError(f'precision is {values["precision"]!r}')
    _ = [values[key] for key in ('step', 'vim_fingerprint')]
    if samples.codes.ndim != 2:
      raise ValueError('its codes are not all of one length')
  except OSError as error:
    raise UserError(
      f'Cannot read --from_json={path}: {error.strerror}.'
    ) from error
  except ConfigError:
    raise
  except (KeyError, TypeError, ValueError) as error:
    raise UserError(
      f'{path} is no {FILE} of this program ({type(error).__name__}: {error}).'
    ) from error
  return samples, values


def _columns(ids: np.ndarray) -> int:
  """One row a class, if there are several with equally many images."""
  _, counts = np.unique(ids, return_counts=True)
  if len(counts) > 1 and len(set(counts)) == 1:
    return int(counts[0])
  return int(np.ceil(len(ids) ** 0.5))
