"""The exports in a C++ session, asked rightly, wrongly and at random.

It runs in a process of its own, which never imports TensorFlow.
"""

import pathlib
import pickle
import subprocess
import sys

import numpy as np
import tensorflow as tf

from export import saved_model
from tests.export import c_api, calls, served

_FUZZ = 300  # Requests of each kind.
_MEMORY = (200, 2000)
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


def _right(batch: int) -> list:
  return list(calls.every_signature(batch))


def _wrong() -> list[tuple[tuple, str]]:
  """Requests, and what their refusals must hold."""
  found = []
  for model, signature, inputs in _right(2):
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


class CApiTest(tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root, cls.bases = served.exports()
    rng = np.random.default_rng(0)
    rows = _right(2)
    numbers = [row for row in rows if set(row[2]) & set(_RANGES)]
    files = [row for row in rows if set(row[2]) & {'image_bytes', 'inputs'}]
    cls.sent = {
      'right': [(row, True) for n in (1, 5) for row in _right(n)],
      'wrong': _wrong(),
      'shapes': [_odd_shapes(rng, rows[i % 12]) for i in range(_FUZZ)],
      'numbers': [
        _odd_numbers(rng, numbers[i % len(numbers)]) for i in range(_FUZZ)
      ],
      'files': [_damaged(rng, files[i % len(files)]) for i in range(_FUZZ)],
    }
    requests = [row for kind in cls.sent.values() for row, _ in kind]
    mixed = [requests[i] for i in rng.permutation(len(requests))[:200]]
    results, cls.memory = cls._ask(requests, mixed + _right(1))
    cls.found, start = {}, 0
    for kind, sent in cls.sent.items():
      cls.found[kind] = results[start : start + len(sent)]
      start += len(sent)

  @classmethod
  def _ask(cls, requests, repeated):
    models = {}
    for name, base in cls.bases.items():
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
    todo, done = cls.root / 'requests', cls.root / 'answers'
    todo.write_bytes(pickle.dumps((models, requests, repeated, _MEMORY)))
    program = pathlib.Path(__file__).with_name('c_api.py')
    ended = subprocess.run(
      [sys.executable, '-I', str(program), str(todo), str(done)],
      capture_output=True,
      text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return pickle.loads(done.read_bytes())

  def _of(self, kind: str):
    """Yields a request, what it must come to, and its answer."""
    for (row, expected), found in zip(
      self.sent[kind], self.found[kind], strict=True
    ):
      yield row, expected, found

  def test_right_requests_are_answered_as_in_python(self):
    loaded = {
      name: tf.saved_model.load(str(base / '1'))
      for name, base in self.bases.items()
    }
    for (model, signature, inputs), _, (code, text, found) in self._of('right'):
      self.assertEqual(code, c_api.OK, text)
      tensors = {name: tf.constant(x) for name, x in inputs.items()}
      expected = loaded[model].signatures[signature](**tensors)
      self.assertCountEqual(found, expected)
      for name, value in expected.items():
        if value.dtype.is_floating:
          self.assertAllClose(found[name], value, 1e-5, 1e-5)
        else:
          self.assertAllEqual(found[name], value)

  def test_wrong_requests_are_refused_in_one_line(self):
    for row, expected, (code, text, _) in self._of('wrong'):
      self.assertEqual(code, c_api.INVALID_ARGUMENT, row)
      self.assertIn(expected, text.splitlines()[0], row)

  def test_odd_shapes_and_numbers(self):
    for kind in ('shapes', 'numbers'):
      refused = 0
      for row, right, (code, text, _) in self._of(kind):
        if right:
          self.assertEqual(code, c_api.OK, (row, text))
          continue
        refused += 1
        self.assertEqual(code, c_api.INVALID_ARGUMENT, row)
        self.assertIn('assertion failed: [', text.splitlines()[0])
      self.assertBetween(refused, _FUZZ // 4, _FUZZ - 1)

  def test_damaged_files(self):
    refused = 0
    for row, _, (code, text, _) in self._of('files'):
      if code != c_api.OK:
        refused += 1
        self.assertEqual(code, c_api.INVALID_ARGUMENT, (row, text))
        if row[1] != 'classify':  # TensorFlow parses its examples.
          self.assertIn('[example 1: ', text.splitlines()[0])
    self.assertBetween(refused, _FUZZ // 4, _FUZZ - 1)

  def test_memory_stays(self):
    early, late = self.memory
    self.assertLess(late, 1.05 * early)


if __name__ == '__main__':
  tf.test.main()
