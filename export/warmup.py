"""Requests that a server replays before it takes a version into use.

The first request of a signature is slow, because TensorFlow then prepares its
graph (and XLA compiles it).
"""

import io

import numpy as np
from PIL import Image
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2


def predict(
  model: str, signature: str, inputs: dict[str, np.ndarray | list]
) -> prediction_log_pb2.PredictionLog:
  """A Predict request.

  Args:
    model: The name under which the model is served.
    signature: The signature to call.
    inputs: Each with the batch first; NumPy arrays of the signature's types.
  """
  log = prediction_log_pb2.PredictionLog()
  request = log.predict_log.request
  request.model_spec.name = model
  request.model_spec.signature_name = signature
  for name, value in inputs.items():
    request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
  return log


def classify(
  model: str, signature: str, examples: list[tf.train.Example]
) -> prediction_log_pb2.PredictionLog:
  """A Classify request of some examples."""
  log = prediction_log_pb2.PredictionLog()
  request = log.classify_log.request
  request.model_spec.name = model
  request.model_spec.signature_name = signature
  for example in examples:
    request.input.example_list.examples.add().CopyFrom(example)
  return log


def image(size: int) -> bytes:
  """A PNG file of a smooth ramp of colours, `size` pixels a side."""
  ramp = np.linspace(0, 255, size).astype(np.uint8)
  pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 128), -1)
  file = io.BytesIO()
  Image.fromarray(pixels.astype(np.uint8)).save(file, 'PNG')
  return file.getvalue()


def sampling_settings(batch: int = 1) -> dict[str, np.ndarray]:
  """Inputs of the sampler: class 0, seeds from 0 on, the plain draw."""
  return {
    'class_ids': np.zeros(batch, np.int32),
    'seeds': np.arange(batch, dtype=np.int64),
    'temperature': np.ones(batch, np.float32),
    'top_k': np.zeros(batch, np.int32),
    'top_p': np.ones(batch, np.float32),
    'guidance_scale': np.ones(batch, np.float32),
  }
