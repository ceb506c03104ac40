"""Counts the work and the memory of a program in XLA's intermediate language.

FLOPs are those of matrix products and convolutions, which is what a TPU's
matrix units do; loops count as often as they turn. The memory is an estimate,
because XLA decides itself what it keeps: `hlo_memory.py` says how.
"""

import dataclasses
import math
import re

from experiments.studies.lowering import hlo_memory, hlo_text


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


def cost(text: str) -> Cost:
  """What a program takes, from its text as `hlo_text.py` reads it.

  Raises:
    ValueError: If the text is no program.
  """
  computations, entry = hlo_text.parse(text)
  arguments = [i for i in computations[entry] if i.op == 'parameter']
  return Cost(
    flops=_flops(computations, entry, {}),
    argument_bytes=sum(argument.bytes for argument in arguments),
    working_bytes=hlo_memory.working_bytes(computations, entry),
  )


def _flops(computations, name: str, known: dict[str, float]) -> float:
  """FLOPs of a computation and of all that it calls."""
  if name in known:
    return known[name]
  total = 0.0
  by_name = {i.name: i for i in computations[name]}
  for instruction in computations[name]:
    if instruction.op == 'dot':
      total += _dot_flops(instruction, by_name)
    elif instruction.op == 'convolution':
      total += _convolution_flops(instruction, by_name)
    elif instruction.op == 'while':
      body = instruction.attribute('body')
      turns = _turns(computations, instruction.attribute('condition'))
      total += turns * _flops(computations, body, known)
    elif instruction.op == 'call':
      total += _flops(computations, instruction.attribute('to_apply'), known)
    elif instruction.op == 'conditional':
      total += max(
        _flops(computations, branch, known) for branch in instruction.branches
      )
  known[name] = total
  return total


def _dot_flops(instruction, by_name) -> float:
  left = by_name[instruction.operands[0]].dims
  contracted = instruction.numbers('lhs_contracting_dims')
  return (
    2.0 * math.prod(instruction.dims) * math.prod(left[i] for i in contracted)
  )


def _convolution_flops(instruction, by_name) -> float:
  kernel = by_name[instruction.operands[1]].dims
  labels = re.search(r'dim_labels=\w+_(\w+)->', instruction.text)[1]
  products = math.prod(kernel) / kernel[labels.index('o')]
  # Of an input that is spread out with zeros, those are not multiplied.
  spread = re.search(r'lhs_dilate=([\dx]+)', instruction.text)
  if spread:
    products /= math.prod(int(n) for n in spread[1].split('x'))
  return 2.0 * math.prod(instruction.dims) * products


def _turns(computations, condition: str) -> int:
  """How often a loop turns: the smallest number that its condition knows.

  A loop of TensorFlow that knows how often it turns counts from zero, besides
  what else it may count.
  """
  return min(_limits(computations, condition), default=1)


def _limits(computations, condition: str) -> list[int]:
  limits = []
  for instruction in computations[condition]:
    if instruction.op == 'constant':
      found = re.match(r'([1-9]\d*)\)', instruction.text)
      limits += [int(found[1])] if found else []
    elif instruction.op == 'call':
      limits += _limits(computations, instruction.attribute('to_apply'))
  return limits
