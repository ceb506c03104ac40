"""A call of every exported signature, with inputs that differ by example."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from tests.export import tiny
from vim_tf.vim import sampling

SETTINGS = (
  sampling.SamplingConfig(),
  sampling.SamplingConfig(guidance_scale=3.0),
  sampling.SamplingConfig(temperature=0.0),
  sampling.SamplingConfig(temperature=0.7, top_k=5),
  sampling.SamplingConfig(top_p=0.6, guidance_scale=0.5),
)
"""Of each example of a batch."""


def sampling_inputs(batch: int) -> dict[str, np.ndarray]:
  """Different classes, seeds and settings of each example."""
  rows = [SETTINGS[i % len(SETTINGS)] for i in range(batch)]
  return {
    'class_ids': np.arange(batch, dtype=np.int32) * 2 % 10,
    'seeds': np.arange(batch, dtype=np.int64) * 2**29 + 7,
    'temperature': np.float32([x.temperature for x in rows]),
    'top_k': np.int32([x.top_k for x in rows]),
    'top_p': np.float32([x.top_p for x in rows]),
    'guidance_scale': np.float32([x.guidance_scale for x in rows]),
  }


def example(file: bytes) -> tf.train.Example:
  """What the probe's Classify takes: an image's file as a feature."""
  found = tf.train.Example()
  found.features.feature['image/encoded'].bytes_list.value.append(file)
  return found


def every_signature(
  batch: int,
) -> Iterator[tuple[str, str, dict[str, np.ndarray]]]:
  """Yields the model, the signature and its inputs.

  Args:
    batch: Examples of each call.
  """
  contents = tiny.files(batch)
  rng = np.random.default_rng(batch)
  files = {'image_bytes': np.array(contents, object)}
  codes = {'codes': rng.integers(0, 32, [batch, 16], np.int32)}
  images = {'images': rng.random([batch, 16, 16, 3], np.float32)}
  drawn = sampling_inputs(batch)
  kept = {'kept_rows': np.arange(batch, dtype=np.int32) % 5}
  examples = [example(file).SerializeToString() for file in contents]
  yield 'tokenizer', 'serving_default', files
  yield 'tokenizer', 'encode_images', images
  yield 'tokenizer', 'decode', codes
  yield 'tokenizer', 'decode_png', codes
  yield 'tokenizer', 'reconstruct', files
  yield 'sampler', 'serving_default', drawn
  yield 'sampler', 'sample_images', drawn
  yield 'sampler', 'complete', {**files, **kept, **drawn}
  yield (
    'sampler',
    'negative_log_likelihood',
    {**files, 'class_ids': drawn['class_ids']},
  )
  yield 'probe', 'serving_default', files
  yield 'probe', 'features', files
  yield 'probe', 'classify', {'inputs': np.array(examples, object)}
