"""In which precision this machine computes models faster."""

import functools
import time

from absl import logging
import tensorflow as tf

from vim_tf.config import PRECISIONS
from vim_tf.nn import replicas

_ROWS, _WIDTH = 512, 1024  # Of the product: about that of an MLP.
_TIMES = 7


@functools.cache
def faster() -> str:
  """The precision in which a product takes less time, measured once.

  A processor may know bfloat16 and yet be slower in it. A TPU never is, and the
  host beside it tells nothing of it.
  """
  if replicas.is_xla(tf.distribute.get_strategy()):
    return 'bfloat16'
  products = {name: _product(name) for name in PRECISIONS}
  best = dict.fromkeys(PRECISIONS, float('inf'))
  for _ in range(_TIMES):  # In turn, and the best of each: others work here.
    for name, product in products.items():
      start = time.perf_counter()
      product()
      best[name] = min(best[name], time.perf_counter() - start)
  faster = min(best, key=best.get)
  logging.info(
    'precision auto: %s, because a product takes %.2f of the time in bfloat16.',
    faster,
    best['bfloat16'] / best['float32'],
  )
  return faster


def _product(precision: str):
  """Computes a product of matrices to its end, at each call."""
  rows = tf.ones([_ROWS, _WIDTH], precision)
  weights = tf.ones([_WIDTH, _WIDTH], precision)
  return lambda: tf.matmul(rows, weights).numpy()
