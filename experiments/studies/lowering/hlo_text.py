"""Reads a program in XLA's intermediate language, as text, into instructions.

The text is what `tf.function(...).experimental_get_compiler_ir` gives at stage
'hlo': the whole program with every shape, before XLA optimizes it for one kind
of machine.
"""

import dataclasses
import math
import re

_BYTES = {
  'pred': 1,
  's8': 1,
  'u8': 1,
  'bf16': 2,
  'f16': 2,
  's16': 2,
  'u16': 2,
  'f32': 4,
  's32': 4,
  'u32': 4,
  'f64': 8,
  's64': 8,
  'u64': 8,
}
_ARRAY = re.compile(r'\b([a-z]+[0-9]*)\[([0-9,]*)\]')
_INSTRUCTION = re.compile(
  r'^\s*(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$'
)
_COMMENT = re.compile(r'/\*.*?\*/')
_HEADER = re.compile(r'^(ENTRY )?%?([\w.\-]+) .*\{$')


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a program.

  Attributes:
    name: Unique within its computation.
    op: What it does, such as 'dot'.
    shape: Type and sizes of its result, in parentheses if there are several.
    operands: Names of what it is computed from.
    text: All that stands behind the opening parenthesis of its operands.
    root: Whether its value is that of the computation.
  """

  name: str
  op: str
  shape: str
  operands: list[str]
  text: str
  root: bool

  @property
  def parts(self) -> list[int]:
    """Bytes of each array of its result."""
    return [
      _BYTES.get(kind, 0) * math.prod(dims(sizes))
      for kind, sizes in _ARRAY.findall(self.shape)
    ]

  @property
  def bytes(self) -> int:
    return sum(self.parts)

  @property
  def dims(self) -> list[int]:
    """Sizes of its result, if that is one array."""
    return dims(_ARRAY.search(self.shape)[2])

  def attribute(self, name: str) -> str:
    """The word that stands for an attribute."""
    return re.search(rf'\b{name}=%?([\w.\-]+)', self.text)[1]

  def numbers(self, name: str) -> list[int]:
    """The numbers of an attribute; empty if it is not there."""
    found = re.search(rf'{name}=\{{([\d,]*)\}}', self.text)
    return dims(found[1]) if found else []

  @property
  def branches(self) -> list[str]:
    """The computations that a conditional chooses from."""
    found = re.search(r'branch_computations=\{([^}]*)\}', self.text)
    if found:
      return re.findall(r'[\w.\-]+', found[1])
    return [
      self.attribute(f'{value}_computation') for value in ('true', 'false')
    ]


def dims(text: str) -> list[int]:
  """Numbers between commas."""
  return [int(number) for number in text.split(',') if number]


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
  """The instructions of each computation, and the name of the first one.

  Raises:
    ValueError: If the text is no program.
  """
  computations, entry, current = {}, None, None
  for line in _COMMENT.sub('', text).splitlines():
    header = _HEADER.match(line)
    if header:
      current = computations.setdefault(header[2], [])
      names = set()
      entry = header[2] if header[1] else entry
      continue
    found = _INSTRUCTION.match(line)
    if not found or current is None:
      continue
    root, name, shape, op, rest = found.groups()
    inside = rest if op == 'constant' else rest[: _closing(rest)]
    operands = [
      word for word in re.findall(r'[\w.\-]+', inside) if word in names
    ]
    names.add(name)
    current.append(Instruction(name, op, shape, operands, rest, bool(root)))
  if entry is None:
    raise ValueError('The text is not a program of XLA.')
  return {name: _alive(c) for name, c in computations.items()}, entry


def _alive(instructions: list[Instruction]) -> list[Instruction]:
  """Those that the result depends on, and the arguments: XLA drops the rest."""
  needed = {i.name for i in instructions if i.root or i.op == 'parameter'}
  for instruction in reversed(instructions):
    if instruction.name in needed:
      needed.update(instruction.operands)
  return [i for i in instructions if i.name in needed]


def _closing(text: str) -> int:
  """Where the parenthesis closes that was open before the text."""
  depth = 1
  for place, letter in enumerate(text):
    depth += (letter == '(') - (letter == ')')
    if not depth:
      return place
  return len(text)
