"""What the machine can do at best, measured beside what is timed.

A ceiling is the best of some calls: one that something else disturbed says
nothing about the machine. TensorFlow's own product is taken, because that is
what the models are made of.
"""

import time

import tensorflow as tf

FLOAT32, BFLOAT16, MEMORY = 'float32', 'bfloat16', 'memory'
UNITS = {
  FLOAT32: ('GFLOP/s of a float32 product', 1e9),
  BFLOAT16: ('GFLOP/s of a bfloat16 product', 1e9),
  MEMORY: ('GB/s read from memory', 1e9),
}

_CALLS = 5


class Ceilings:
  """The machine's ceilings, at TensorFlow's number of threads.

  Args:
    matmul: Rows and columns of the square matrices that are multiplied.
    memory: Bytes that are read; several times the last cache.

  Attributes:
    best: The highest rate of each kind so far, in FLOP/s or bytes/s.
  """

  def __init__(self, matmul: int, memory: int):
    self._matmul, self._memory = matmul, max(memory // 4, 1)
    self.best: dict[str, float] = {}
    self._probes = {}

  def measure(self, kind: str) -> float:
    """One more measurement: FLOP/s of 'float32' or 'bfloat16', or bytes/s."""
    if kind not in self._probes:
      self._probes[kind] = self._probe(kind)
    call, amount = self._probes[kind]
    rate = amount / _fastest(call)
    self.best[kind] = max(rate, self.best.get(kind, 0.0))
    return rate

  def _probe(self, kind: str):
    """A function, and the FLOPs or bytes of one call of it."""
    if kind == MEMORY:
      values = tf.ones([self._memory])
      # The largest element takes fewer instructions a byte than the sum.
      largest = tf.function(tf.reduce_max, autograph=False)
      return lambda: largest(values).numpy(), 4 * self._memory
    size = self._matmul
    matrix = tf.cast(tf.random.stateless_normal([size, size], [0, 0]), kind)
    product = tf.function(tf.matmul, autograph=False)
    return lambda: product(matrix, matrix).numpy(), 2 * size**3


def _fastest(call) -> float:
  call()  # Traces, and touches the memory.
  taken = []
  for _ in range(_CALLS):
    start = time.perf_counter()
    call()
    taken.append(time.perf_counter() - start)
  return min(taken)
