"""Counts the work and the memory of a program in XLA's intermediate language.

The text is what `tf.function(...).experimental_get_compiler_ir` gives at stage
'hlo': the whole program with every shape, before XLA optimizes it for one kind
of machine. FLOPs are those of matrix products and convolutions, which is what a
TPU's matrix units do; loops count as often as they turn.

The memory is an estimate, because XLA decides itself what it keeps: all that
matrix products, convolutions and reductions give or take is taken to be kept
from where it is made to where it is last needed, and everything between them
to be fused into them.
"""

import collections
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
_HEADER = re.compile(r'^(ENTRY )?%?([\w.\-]+) .*\{$')
_KEPT = {
  'convolution',
  'custom-call',
  'dot',
  'dynamic-slice',
  'gather',
  'reduce',
  'reduce-window',
  'rng-bit-generator',
  'scatter',
  'select-and-scatter',
  'sort',
  'while',
}
_LAYOUT = {'bitcast', 'convert', 'copy', 'reshape', 'transpose', 'broadcast'}
_MULTIPLIES = {'convolution', 'dot'}


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a program takes.

  Attributes:
    flops: Multiplications and additions of matrix products and convolutions.
    argument_bytes: Size of everything that it is given: weights, the state of
      the optimizer, a batch.
    working_bytes: Estimate of the most that it keeps besides.
  """

  flops: float
  argument_bytes: int
  working_bytes: int


@dataclasses.dataclass(frozen=True)
class _Instruction:
  name: str
  op: str
  shape: str
  operands: list[str]
  text: str
  root: bool

  @property
  def bytes(self) -> int:
    return sum(
      _BYTES.get(kind, 0) * math.prod(_dims(sizes))
      for kind, sizes in _ARRAY.findall(self.shape)
    )


def cost(text: str) -> Cost:
  """What a program takes, from its text.

  Raises:
    ValueError: If the text is no program.
  """
  computations, entry = _parse(text)
  instructions = computations[entry]
  return Cost(
    flops=_flops(computations, entry, {}),
    argument_bytes=sum(i.bytes for i in instructions if i.op == 'parameter'),
    working_bytes=_working_bytes(instructions),
  )


def _parse(text: str) -> tuple[dict[str, list[_Instruction]], str]:
  """The instructions of each computation, and the name of the first one."""
  computations, entry, current = {}, None, None
  for line in text.splitlines():
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
    current.append(_Instruction(name, op, shape, operands, rest, bool(root)))
  if entry is None:
    raise ValueError('The text is not a program of XLA.')
  return {name: _alive(c) for name, c in computations.items()}, entry


def _alive(instructions: list[_Instruction]) -> list[_Instruction]:
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


def _flops(computations, name: str, known: dict[str, float]) -> float:
  """FLOPs of a computation and of all that it calls."""
  if name in known:
    return known[name]
  total = 0.0
  shapes = {i.name: i.shape for i in computations[name]}
  for instruction in computations[name]:
    if instruction.op == 'dot':
      total += _dot_flops(instruction, shapes)
    elif instruction.op == 'convolution':
      total += _convolution_flops(instruction, shapes)
    elif instruction.op == 'while':
      body = _attribute(instruction, 'body')
      turns = _turns(computations, _attribute(instruction, 'condition'))
      total += turns * _flops(computations, body, known)
    elif instruction.op == 'call':
      called = _attribute(instruction, 'to_apply')
      total += _flops(computations, called, known)
    elif instruction.op == 'conditional':
      total += max(
        _flops(computations, branch, known) for branch in _branches(instruction)
      )
  known[name] = total
  return total


def _dot_flops(instruction, shapes) -> float:
  left = _only_dims(shapes[instruction.operands[0]])
  contracted = _numbers(instruction, 'lhs_contracting_dims')
  return (
    2.0
    * math.prod(_only_dims(instruction.shape))
    * math.prod(left[i] for i in contracted)
  )


def _convolution_flops(instruction, shapes) -> float:
  kernel = _only_dims(shapes[instruction.operands[1]])
  labels = re.search(r'dim_labels=\w+_(\w+)->', instruction.text)[1]
  products = math.prod(kernel) / kernel[labels.index('o')]
  # Of an input that is spread out with zeros, those are not multiplied.
  spread = re.search(r'lhs_dilate=([\dx]+)', instruction.text)
  if spread:
    products /= math.prod(int(n) for n in spread[1].split('x'))
  return 2.0 * math.prod(_only_dims(instruction.shape)) * products


def _turns(computations, condition: str) -> int:
  """How often a loop turns: the largest number that its condition knows."""
  limits = [1]
  for instruction in computations[condition]:
    if instruction.op == 'constant':
      found = re.match(r'(\d+)\)', instruction.text)
      limits.append(int(found[1]) if found else 1)
    elif instruction.op == 'call':
      called = _attribute(instruction, 'to_apply')
      limits.append(_turns(computations, called))
  return max(limits)


def _working_bytes(instructions: list[_Instruction]) -> int:
  """The most bytes that are alive at once, arguments left out."""
  by_name = {i.name: i for i in instructions}
  kept = set()
  for instruction in instructions:
    if instruction.op in _KEPT:
      kept.add(instruction.name)
    if instruction.op in _MULTIPLIES:
      for name in instruction.operands:
        while by_name[name].op in _LAYOUT and by_name[name].operands:
          name = by_name[name].operands[0]
        if by_name[name].op not in ('parameter', 'constant', 'iota'):
          kept.add(name)
  sources = {}  # Of each value the kept ones that it is computed from.
  last_use = {}
  for place, instruction in enumerate(instructions):
    needed = set().union(*(sources[name] for name in instruction.operands))
    if 'XLA_Retvals' not in instruction.text:
      # What it returns takes the place of arguments: the new weights.
      last_use.update(dict.fromkeys(needed, place))
    is_kept = instruction.name in kept
    sources[instruction.name] = {instruction.name} if is_kept else needed
  changes = collections.Counter()
  for place, instruction in enumerate(instructions):
    if instruction.name in kept:
      changes[place] += instruction.bytes
      end = last_use.get(instruction.name, place)
      changes[end + 1] -= instruction.bytes
  alive = most = 0
  for place in sorted(changes):
    alive += changes[place]
    most = max(most, alive)
  return most


def _attribute(instruction, name: str) -> str:
  return re.search(rf'\b{name}=%?([\w.\-]+)', instruction.text)[1]


def _branches(instruction) -> list[str]:
  found = re.search(r'branch_computations=\{([^}]*)\}', instruction.text)
  if found:
    return re.findall(r'[\w.\-]+', found[1])
  return [
    _attribute(instruction, f'{value}_computation')
    for value in ('true', 'false')
  ]


def _numbers(instruction, name: str) -> list[int]:
  found = re.search(rf'{name}=\{{([\d,]*)\}}', instruction.text)
  return _dims(found[1]) if found else []


def _only_dims(shape: str) -> list[int]:
  return _dims(_ARRAY.search(shape)[2])


def _dims(text: str) -> list[int]:
  return [int(number) for number in text.split(',') if number]
