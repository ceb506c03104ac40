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
    figures: By part: 'tokenizer', 'vim', 'probe', 'seconds', 'machine'. Goes
      into `report.json` as it is.
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
  """
  folder = pathlib.Path(folder)
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
    (folder / name).write_bytes(content)
  (folder / 'report.html').write_text(_page(report, stages, str(folder)))
  workdir_lib.write_json(folder / 'report.json', report.figures)


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
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters |= {
    'quote': shlex.quote,
    'png': lambda image: _uri(_png(image)),
    'svg': lambda *panel: _uri(curves_lib.svg(*panel), 'svg+xml'),
  }
  return environment.get_template(_TEMPLATE).render(
    report=report,
    light=curves_lib.LIGHT,
    dark=curves_lib.DARK,
    shown_pixels=_SHOWN_PIXELS,
    scale=_scale,
    tables=report_tables.tables(report.figures),
    stages=stages,
    vim=os.path.join(folder, 'vim'),
    # `bazel run` starts the tools elsewhere, hence the whole path.
    logdir=os.path.abspath(folder),
  )


def _panels(report: Report) -> dict[str, list[curves_lib.Panel]]:
  """What to draw of each stage, with the baselines as lines."""
  vim = report.figures['vim']
  references = {
    'eval/mean_psnr': {'k-means': report.figures['tokenizer']['kmeans_psnr']},
    'eval/bits_per_code': {
      'order-0': vim['order0_bits_per_code'],
      'order-1': vim['order1_bits_per_code'],
    },
  }
  stages = {
    title: curves_lib.panels(rows, references)
    for title, rows in report.curves.items()
  }
  return {**stages, **report.panels}


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
