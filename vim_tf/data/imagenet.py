"""The words of ImageNet's classes, whose names are WordNet's ids (wnids)."""

import functools
import pathlib

_FILE = pathlib.Path(__file__).with_name('imagenet_words.txt')


def words(wnid: str) -> tuple[str, ...]:
  """The words of a class, the usual one first.

  Args:
    wnid: Such as 'n01440764'.

  Returns:
    WordNet's words for it, such as 'tench' and 'Tinca tinca'; none where it is
    not one of the 1,000 classes of ILSVRC 2012.
  """
  return _all_words().get(wnid, ())


@functools.cache
def _all_words() -> dict[str, tuple[str, ...]]:
  rows = (line.split('\t') for line in _FILE.read_text().splitlines())
  return {wnid: tuple(text.split(', ')) for wnid, text in rows}
