"""What the exports are asked: rightly, wrongly and at random, and the answers.

A C++ session answers, in a process of its own that never imports TensorFlow or
the project.
"""

import functools
import pathlib
import pickle
import subprocess
import sys

import numpy as np

from export import saved_model
from tests.export import calls, served

BATCHES = (1, 5)
"""Sizes of the right requests."""

FUZZ = 150
"""Odd requests of each kind."""

_MEMORY = (200, 1000)
_RANGES = {
  'images': (-0.01, 1.01),
  'codes': (0, 31),
  'class_ids': (0, 9),
  'seeds': (0, 2**32 - 1),
  'temperature': (0.0, 1000.0),
  'top_k': (0, 2**31 - 1),
  'top_p': (1e-45, 1.0),
  'guidance_scale': (0.0, 1000.0),
  'kept_rows': (0, 4),
}
_ODD = (0.0, -1.0, 0.5, 1.0, 5.0, 40.0, 1e6, 3e9, 1e19, -1e30, np.nan, np.inf)


def _wrong() -> list[tuple[tuple, str]]:
  """Requests, and what their refusals must hold."""
  found = []
  for model, signature, inputs in calls.every_signature(2):
    for name, value in inputs.items():
      others = [
        value[:, None],
        value[0] if value.ndim > 1 else np.array(value[0], value.dtype),
      ]
      if value.ndim > 1:
        others += [np.repeat(value, 2, 1), value[:, :8]]
      if name == 'images':
        others += [np.repeat(np.repeat(value, 2, 1), 2, 2), value[..., :1]]
      for other in others:
        sides = ', '.join(['batch', *map(str, value.shape[1:])])
        text = (
          f'[{name} has the shape {list(other.shape)}, but must have [{sides}]'
        )
        if value.ndim == 1:
          text += ': each example is one value, not a list of values'
        found.append(((model, signature, {**inputs, name: other}), text))
      if len(inputs) > 1:
        uneven = {**inputs, name: value[:1]}
        found.append(((model, signature, uneven), ' examples, but '))
    for batch in (0, 33):
      sized = {name: np.repeat(x[:1], batch, 0) for name, x in inputs.items()}
      text = f'holds {batch} examples, but a batch holds 1 to 32'
      found.append(((model, signature, sized), text))
  return found


def _odd_shapes(rng: np.random.Generator, row: tuple) -> tuple[tuple, bool]:
  model, signature, inputs = row
  name = rng.choice(sorted(inputs))
  value = inputs[name]
  shape = list(value.shape)
  for _ in range(rng.integers(1, 3)):
    change = rng.integers(3)
    if change == 0 and shape:
      shape[rng.integers(len(shape))] = rng.integers(0, 34)
    elif change == 1 and shape:
      del shape[rng.integers(len(shape))]
    else:
      shape.insert(rng.integers(len(shape) + 1), rng.integers(1, 4))
  other = np.resize(value, shape)
  alone = len(inputs) == 1 and 1 <= (shape or [0])[0] <= 32
  same = shape[1:] == list(value.shape[1:]) and len(shape) == value.ndim
  right = same and (alone or shape[0] == len(value))
  return (model, signature, {**inputs, name: other}), right


def _odd_numbers(rng: np.random.Generator, row: tuple) -> tuple[tuple, bool]:
  model, signature, inputs = row
  name = rng.choice(sorted(set(inputs) & set(_RANGES)))
  value = inputs[name].copy()
  odd = rng.choice(_ODD)
  if value.dtype.kind == 'i':
    most = int(np.iinfo(value.dtype).max)
    odd = max(-most, min(most, int(np.nan_to_num(odd))))
  value.flat[rng.integers(value.size)] = odd
  low, high = _RANGES[name]
  odd = float(value.dtype.type(odd))
  return (model, signature, {**inputs, name: value}), low <= odd <= high


def _damaged(rng: np.random.Generator, row: tuple) -> tuple[tuple, None]:
  """Files or examples of which one has other bytes."""
  model, signature, inputs = row
  (name,) = set(inputs) & {'image_bytes', 'inputs'}
  value = inputs[name].copy()
  content = bytearray(value[1])
  for place in rng.integers(0, len(content), rng.integers(1, 6)):
    content[place] = rng.integers(256)
  if rng.integers(3) == 0:
    del content[rng.integers(len(content)) :]
  value[1] = bytes(content)
  return (model, signature, {**inputs, name: value}), None


@functools.cache
def answers() -> tuple[dict[str, list[tuple]], tuple[int, int]]:
  """Asks `served.exports` once a process.

  Returns:
    By the kind of request a list of requests, of what each must come to, and
    of its answer; and the memory early and late.
  """
  root, bases = served.exports()
  rng = np.random.default_rng(0)
  rows = list(calls.every_signature(2))
  numbers = [row for row in rows if set(row[2]) & set(_RANGES)]
  files = [row for row in rows if set(row[2]) & {'image_bytes', 'inputs'}]
  sent = {
    'right': [(row, True) for n in BATCHES for row in calls.every_signature(n)],
    'wrong': _wrong(),
    'shapes': [_odd_shapes(rng, rows[i % 12]) for i in range(FUZZ)],
    'numbers': [
      _odd_numbers(rng, numbers[i % len(numbers)]) for i in range(FUZZ)
    ],
    'files': [_damaged(rng, files[i % len(files)]) for i in range(FUZZ)],
  }
  requests = [row for kind in sent.values() for row, _ in kind]
  mixed = [requests[i] for i in rng.permutation(len(requests))[:200]]
  repeated = mixed + list(calls.every_signature(1))
  results, memory = _ask(root, bases, requests, repeated)
  results = iter(results)
  found = {
    kind: [(*row, next(results)) for row in rows] for kind, rows in sent.items()
  }
  return found, memory


def _ask(root, bases, requests, repeated):
  models = {}
  for name, base in bases.items():
    graph = saved_model.read_graph(base / '1')
    names = {
      key: tuple(
        {name: info.name for name, info in side.items()}
        for side in (found.inputs, found.outputs)
      )
      for key, found in graph.signature_def.items()
      if not key.startswith('__')
    }
    models[name] = str(base / '1'), names
  todo, done = root / 'requests', root / 'answers'
  todo.write_bytes(pickle.dumps((models, requests, repeated, _MEMORY)))
  program = pathlib.Path(__file__).with_name('c_api.py')
  ended = subprocess.run(
    [sys.executable, '-I', str(program), str(todo), str(done)],
    capture_output=True,
    text=True,
  )
  assert ended.returncode == 0, ended.stderr
  return pickle.loads(done.read_bytes())
