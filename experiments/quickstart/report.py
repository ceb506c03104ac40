"""Writes the report that the quickstart ends with: a page, figures, pictures.

`report.html` carries its pictures in itself, so it opens from disk, without a
network, and can be sent to somebody. `report.json` has the figures alone; the
PNG files are for a README.
"""

import base64
from collections.abc import Mapping
import dataclasses
import io
import os
import pathlib
import shlex

import jinja2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from experiments.quickstart import report_tables
from vim_tf import files
from vim_tf.jobs import curves as curves_lib
from vim_tf.training import workdir as workdir_lib

_TEMPLATE = 'report.html.jinja'
_SHOWN_PIXELS = 128  # Side of a sample on the page and the sheet, at most.
_SHOWN_WIDTH = 1100  # Width of a picture of many images, at most.
_PAPER, _INK = (246, 247, 249), (31, 38, 48)  # Of the sheet of samples.
_FONT_PIXELS = 20
_GAP = 6
_MARGIN = 24


@dataclasses.dataclass(frozen=True)
class Report:
  """All that the report shows.

  Attributes:
    title: The headline, such as 'vim_tf quickstart'.
    budget: Name of the budget that was run.
    figures: Nested, by part: 'tokenizer', 'vim', 'probe', 'seconds',
      'machine'. Goes into `report.json` as it is; parts and keys may be
      missing, and unknown ones are shown under their names.
    reconstructions: uint8 `[height, width, 3]`: rows of held-out originals,
      each above its reconstructions.
    kmeans: The same of the k-means codebook.
    samples: uint8 `[count, height, width, 3]` by class name: the first that
      were drawn, as the page calls them unselected.
    curves: Rows of `metrics.jsonl` by title of the stage.
    licence: Licence and source of the data; '' if unknown.
    panels: More curves, ready to be drawn, by title.
    selected: As `samples`, but the best of many candidates; may be empty.
  """

  title: str
  budget: str
  figures: Mapping
  reconstructions: np.ndarray
  kmeans: np.ndarray
  samples: Mapping[str, np.ndarray]
  curves: Mapping[str, list[dict]]
  licence: str
  panels: Mapping[str, list[curves_lib.Panel]] = dataclasses.field(
    default_factory=dict
  )
  selected: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def write(report: Report, folder: str | os.PathLike) -> None:
  """Writes `report.html`, `report.json` and the pictures.

  The pictures are `samples.png`, `reconstructions.png`, `curves.png` and, if
  there are selected samples, `selected.png`. Files of these names are replaced.

  Args:
    report: What to show.
    folder: Where to; made if it is not there.

  Raises:
    ValueError: A picture is not uint8 or has another shape.
  """
  folder = pathlib.Path(folder)
  _check(report)
  folder.mkdir(parents=True, exist_ok=True)
  stages = _panels(report)
  pictures = {
    'samples.png': _png(sample_sheet(report.samples)),
    'reconstructions.png': _png(
      _enlarge(report.reconstructions, _scale(report.reconstructions.shape[1]))
    ),
    'curves.png': curves_lib.png(stages),
  }
  if report.selected:
    pictures['selected.png'] = _png(sample_sheet(report.selected))
  for name, content in pictures.items():
    _replace(folder / name, content)
  page = _page(report, stages, str(folder))
  _replace(folder / 'report.html', page.encode())
  workdir_lib.write_json(folder / 'report.json', _jsonable(report.figures))


def sample_sheet(samples: Mapping[str, np.ndarray]) -> np.ndarray:
  """One row a class, its name at the left.

  Args:
    samples: uint8 `[count, height, width, 3]` by class name.

  Returns:
    uint8 `[height, width, 3]`; images are enlarged by a whole number, each
    pixel to a square.
  """
  font = ImageFont.load_default(_FONT_PIXELS)
  rows = []
  for name, images in samples.items():
    if len(images):
      factor = max(1, _SHOWN_PIXELS // images.shape[2])
      rows.append((name, [_enlarge(image, factor) for image in images]))
  label = max((font.getlength(name) for name, _ in rows), default=0)
  left = 2 * _MARGIN + int(np.ceil(label))
  width = left + _MARGIN
  height = 2 * _MARGIN - _GAP
  if rows:
    width += max(sum(x.shape[1] + _GAP for x in row) - _GAP for _, row in rows)
    height += sum(row[0].shape[0] + _GAP for _, row in rows)
  sheet = Image.new('RGB', (width, max(1, height)), _PAPER)
  draw = ImageDraw.Draw(sheet)
  top = _MARGIN
  for name, row in rows:
    middle = top + row[0].shape[0] // 2
    draw.text((_MARGIN, middle), name, fill=_INK, font=font, anchor='lm')
    x = left
    for image in row:
      sheet.paste(Image.fromarray(image), (x, top))
      x += image.shape[1] + _GAP
    top += row[0].shape[0] + _GAP
  return np.asarray(sheet)


def _page(
  report: Report, stages: dict[str, list[curves_lib.Panel]], folder: str
) -> str:
  """The HTML page; everything that goes in is escaped."""
  parts = report_tables.complete(report.figures)
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  sampling = parts.get('vim', {}).get('sampling')
  return environment.get_template(_TEMPLATE).render(
    report=report,
    light=curves_lib.LIGHT,
    dark=curves_lib.DARK,
    cards=report_tables.cards(parts),
    tables=report_tables.tables(parts),
    sampling=report_tables.sampling(sampling)
    if isinstance(sampling, Mapping)
    else '',
    samples=_classes(report.samples),
    selected=_classes(report.selected),
    reconstructions=[
      _picture(
        report.reconstructions,
        'By the tokenizer',
        'Rows of held-out images, each above the tokenizer’s reconstructions.',
      ),
      _picture(
        report.kmeans,
        'By the k-means codebook of raw patches, for comparison',
        'The same held-out images above what the k-means codebook makes.',
      ),
    ],
    stages=[
      {
        'title': title,
        'panels': [
          {
            'light': _uri(curves_lib.svg(panel, curves_lib.LIGHT), 'svg+xml'),
            'dark': _uri(curves_lib.svg(panel, curves_lib.DARK), 'svg+xml'),
            'alt': panel.describe(),
          }
          for panel in panels
        ],
      }
      for title, panels in stages.items()
    ],
    next_steps=_next_steps(report, folder),
  )


def _panels(report: Report) -> dict[str, list[curves_lib.Panel]]:
  """What to draw of each stage, with the baselines as lines."""
  parts = report_tables.complete(report.figures)
  vim = parts.get('vim', {})
  references = {
    'eval/mean_psnr': {
      'k-means': parts.get('tokenizer', {}).get('kmeans_psnr')
    },
    'eval/bits_per_code': {
      'order-0': vim.get('order0_bits_per_code'),
      'order-1': vim.get('order1_bits_per_code'),
    },
  }
  stages = {
    title: curves_lib.panels(rows, references)
    for title, rows in report.curves.items()
  }
  return {**stages, **report.panels}


def _next_steps(report: Report, folder: str) -> list[dict[str, str]]:
  """Commands to copy, for a shell in the repository's root."""
  run = shlex.quote(folder)
  # `bazel run` starts the tools elsewhere, hence the whole path.
  whole = run if os.path.isabs(folder) else f'"$PWD"/{run}'
  vim = shlex.quote(os.path.join(folder, 'vim'))
  first_class = shlex.quote(next(iter(report.samples), ''))
  steps = []
  if report.budget != 'long':
    steps.append(
      {
        'text': 'Train twice as long (about 20 minutes on two cores):',
        'command': './bazelw run //experiments:quickstart -- --budget=long',
      }
    )
  steps += [
    {
      'text': 'Draw more images of a class:',
      'command': (
        f'./bazelw run //experiments:sample -- --workdir={vim} '
        f'--classes={first_class} --count=16 --out=more_samples'
      ),
    },
    {
      'text': 'See every metric and picture of this run in TensorBoard:',
      'command': f'./bazelw run //tools:tensorboard -- --logdir={whole}',
    },
    {
      'text': 'Train a size of the paper on your own pictures:',
      'command': './bazelw run //experiments:train_vit_vqgan -- --help',
    },
  ]
  return steps


def _classes(samples: Mapping[str, np.ndarray]) -> list[dict]:
  return [
    _class(name, images) for name, images in samples.items() if len(images)
  ]


def _class(name: str, images: np.ndarray) -> dict:
  """The samples of one class; the browser enlarges the pixels."""
  factor = max(1, _SHOWN_PIXELS // images.shape[2])
  side = images.shape[2] * factor
  return {
    'name': name,
    'width': len(images) * (side + 4),
    'pictures': [
      {
        'uri': _uri(_png(image)),
        'width': side,
        'height': images.shape[1] * factor,
      }
      for image in images
    ],
  }


def _picture(image: np.ndarray, caption: str, alt: str) -> dict:
  factor = _scale(image.shape[1])
  return {
    'uri': _uri(_png(image)),
    'width': image.shape[1] * factor,
    'height': image.shape[0] * factor,
    'caption': caption,
    'alt': alt,
  }


def _scale(width: int) -> int:
  """How often a picture of many images is enlarged."""
  return max(1, min(4, _SHOWN_WIDTH // max(1, width)))


def _enlarge(image: np.ndarray, factor: int) -> np.ndarray:
  return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _png(image: np.ndarray) -> bytes:
  out = io.BytesIO()
  Image.fromarray(image).save(out, 'png', optimize=True)
  return out.getvalue()


def _uri(content: bytes, kind: str = 'png') -> str:
  return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'


def _replace(path: pathlib.Path, content: bytes):
  with files.new_file(path) as new:
    new.write_bytes(content)


def _jsonable(value):
  """NumPy's numbers as Python's, and what is not finite as null."""
  if isinstance(value, Mapping):
    return {str(key): _jsonable(x) for key, x in value.items()}
  if isinstance(value, list | tuple):
    return [_jsonable(x) for x in value]
  if isinstance(value, np.ndarray | np.generic):
    return _jsonable(value.tolist())
  if isinstance(value, float):
    return value if np.isfinite(value) else None
  if value is None or isinstance(value, bool | int | str):
    return value
  return str(value)


def _check(report: Report):
  pictures = {
    'reconstructions': (report.reconstructions, 3),
    'kmeans': (report.kmeans, 3),
    **{f'samples of {name}': (x, 4) for name, x in report.samples.items()},
    **{f'selected {name}': (x, 4) for name, x in report.selected.items()},
  }
  for name, (picture, rank) in pictures.items():
    shape = np.shape(picture)
    if len(shape) != rank or shape[-1] != 3 or picture.dtype != np.uint8:
      count = '' if rank == 3 else 'count, '
      raise ValueError(
        f'The {name} are {getattr(picture, "dtype", type(picture))} of the '
        f'shape {list(shape)}, but must be uint8 [{count}height, width, 3].'
      )
