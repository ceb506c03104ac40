"""Estimates the memory of a program in XLA's intermediate language.

XLA decides itself what it keeps. Here all that matrix products, convolutions
and reductions give or take is taken to be kept, in its narrowest form, from
where it is made to where it is last needed, and everything between them to be
fused into them. What a program returns takes the place of its arguments: the
new weights that of the old.

The order counts, too. XLA's schedulers try several and take the one that needs
least; here it is the better one of two: that of the text, and one in which
whatever frees at least what it takes is done as soon as it can be, and random
numbers are drawn as late as they are needed. In the text's order many products
for gradients of weights come last, and what they are made of would be kept
until then, recomputed or not.
"""

import collections
import dataclasses

from experiments.studies.lowering import hlo_text

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
_CAN_WAIT = 'rng-bit-generator'
_GIVEN = {'parameter', 'constant', 'iota'}


def working_bytes(
  computations: dict[str, list[hlo_text.Instruction]], name: str
) -> int:
  """The most bytes that are alive at once, arguments left out.

  Args:
    computations: A whole program.
    name: The computation to run.
  """
  nodes = _nodes(computations, name)
  return min(map(_most_alive, (nodes, _eager(nodes))))


@dataclasses.dataclass(eq=False)
class _Node:
  """A value that is kept, or one that is returned.

  Attributes:
    bytes: What it takes; none if it is returned.
    inner: What computing it takes for itself.
    sources: The kept values that it is computed from.
    in_place: Whether it takes the place of those that it is the last to need.
    waits: Whether it costs nothing to make it as late as it is needed.
    users: The nodes that are computed from it.
  """

  bytes: int
  inner: int
  sources: list['_Node']
  in_place: bool = False
  waits: bool = False
  users: list['_Node'] = dataclasses.field(default_factory=list)


def _nodes(computations, name: str) -> list[_Node]:
  """The nodes of a computation, in the order of the text."""
  instructions = computations[name]
  kept = _kept_names(instructions)
  returned = _returned_names(instructions)
  nodes, sources = [], {}  # Of each value the kept ones that it comes from.
  for instruction in instructions:
    # A dictionary, because a set's order would change with every run.
    needed = {}
    for operand in instruction.operands:
      needed.update(sources[operand])
    if instruction.name in kept:
      node = _kept_node(computations, instruction, list(needed))
      nodes.append(node)
      needed = {node: None}
    sources[instruction.name] = needed
    if instruction.name in returned:
      nodes.append(_Node(0, 0, list(needed)))
  for node in nodes:
    for source in node.sources:
      source.users.append(node)
  return nodes


def _kept_node(computations, instruction, sources) -> _Node:
  if instruction.op != 'while':
    waits = instruction.op == _CAN_WAIT
    return _Node(instruction.bytes, 0, sources, waits=waits)
  body = instruction.attribute('body')
  return _Node(
    _loop_bytes(computations[body], instruction.parts),
    working_bytes(computations, body),
    sources,
    in_place=True,
  )


def _kept_names(instructions) -> set[str]:
  by_name = {i.name: i for i in instructions}
  kept = set()
  for instruction in instructions:
    if instruction.op in _KEPT:
      kept.add(instruction.name)
    if instruction.op in _MULTIPLIES:
      for name in instruction.operands:
        chain = [by_name[name]]
        while chain[-1].op in _LAYOUT and chain[-1].operands:
          chain.append(by_name[chain[-1].operands[0]])
        if chain[-1].op not in _GIVEN:
          # Of equals the last, from which the others are made.
          kept.add(min(reversed(chain), key=lambda i: i.bytes).name)
  return kept


def _returned_names(instructions) -> set[str]:
  root = next(i for i in instructions if i.root)
  return set(root.operands) if root.op == 'tuple' else {root.name}


def _loop_bytes(body, parts: list[int]) -> int:
  """What a loop carries, without what it only reads."""
  by_name = {i.name: i for i in body}
  root = next(i for i in body if i.root)
  total = 0
  for index, (name, size) in enumerate(zip(root.operands, parts, strict=True)):
    value = by_name[name]
    while value.op in _LAYOUT:
      value = by_name[value.operands[0]]
    only_read = (
      value.op == 'get-tuple-element'
      and by_name[value.operands[0]].op == 'parameter'
      and value.attribute('index') == str(index)
    )
    total += 0 if only_read else size
  return total


def _eager(nodes: list[_Node]) -> list[_Node]:
  """Another order: what frees at least what it takes comes as soon as it can.

  Several nodes may free a value together, such as the products for queries,
  keys and values that of their common input: they are then taken together.
  """
  order, done = [], set()
  left = {node: len(node.users) for node in nodes}

  def run(node):
    for source in node.sources:
      if source not in done:
        run(source)
    order.append(node)
    done.add(node)
    for source in node.sources:
      left[source] -= 1

  def ready(node):
    return all(s in done or (s.waits and ready(s)) for s in node.sources)

  def settle(fresh):
    while fresh:
      value = fresh.pop()
      users = [user for user in value.users if user not in done]
      if not users or not all(map(ready, users)):
        continue
      counts = collections.Counter(s for u in users for s in u.sources)
      freed = sum(
        s.bytes for s, n in counts.items() if left[s] == n and s in done
      )
      taken = sum(user.bytes + user.inner for user in users)
      taken += sum(
        s.bytes for s, n in counts.items() if left[s] > n and s not in done
      )
      if freed >= taken:
        for user in users:
          run(user)
        fresh += _touched(users)

  for node in nodes:
    if node not in done and not node.waits:
      run(node)
      settle(_touched([node]))
  return order


def _touched(nodes: list[_Node]) -> list[_Node]:
  """Values of which a user may have become ready, or the last one left."""
  touched = {}
  for node in nodes:
    touched[node] = None
    touched.update(dict.fromkeys(node.sources))
    for user in node.users:
      touched.update(dict.fromkeys(user.sources))
  return list(touched)


def _most_alive(order: list[_Node]) -> int:
  left = {node: len(node.users) for node in order}
  alive = most = 0
  for node in order:
    freed = 0
    for source in node.sources:
      left[source] -= 1
      freed += 0 if left[source] else source.bytes
    alive += node.bytes - (freed if node.in_place else 0)
    most = max(most, alive + node.inner)
    alive -= 0 if node.in_place else freed
    alive -= 0 if node.users else node.bytes
  return most
