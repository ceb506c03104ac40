"""Every function that a replica runs, by name, with the shapes of its inputs.

They are what must compile with XLA at static shapes, because a TPU runs nothing
else. `tests/jobs/xla_test.py` compiles and runs them all in tiny for the CPU;
`experiments/studies/tpu` compiles them for TPUs in the paper's sizes.
"""

from collections.abc import Callable
import dataclasses

import tensorflow as tf

from vim_tf.config import OptimizerConfig, Stage1Config, Stage2Config
from vim_tf.jobs import restore, train_tokenizer, train_vim
from vim_tf.probe import features as probe_features
from vim_tf.probe import linear
from vim_tf.probe import step as probe_step
from vim_tf.training import optimizers
from vim_tf.vim import decoding
from vim_tf.vim import model as vim_model
from vim_tf.vit_vqgan import model as vit_vqgan_model


@dataclasses.dataclass(frozen=True)
class ReplicaFunction:
  """One of them.

  Attributes:
    run: The function.
    specs: `tf.TensorSpec`s of its arguments.
  """

  run: Callable
  specs: tuple


def stage1_steps(
  config: Stage1Config,
  batch: int,
  kinds: tuple[str, ...],
  perceptual: Callable | None = None,
) -> dict[str, ReplicaFunction]:
  """Updates of stage 1, one for each kind of step.

  Args:
    config: The run's settings.
    batch: Images of one replica.
    kinds: As `TokenizerStep.step_kind` gives them.
    perceptual: LPIPS, if its weight is above 0.
  """
  step, _ = train_tokenizer.build(config, None, perceptual)
  size = config.model.image_size
  inputs = {
    'images': tf.TensorSpec([batch, size, size, 3]),
    'seeds': tf.TensorSpec([batch], tf.uint32),
  }
  return {kind: _step(step, kind, inputs) for kind in kinds}


def stage2_step(config: Stage2Config, batch: int) -> ReplicaFunction:
  """The update of stage 2, on codes."""
  step, _ = train_vim.build(config, None)
  inputs = {
    'codes': tf.TensorSpec([batch, config.model.num_codes], tf.int32),
    'labels': tf.TensorSpec([batch], tf.int32),
    'seeds': tf.TensorSpec([batch], tf.uint32),
  }
  return _step(step, 'plain', inputs)


def probe(width: int, num_classes: int, batch: int) -> ReplicaFunction:
  """The update of a probe of one kind of features, with two penalties."""
  layers = {'block': linear.SoftmaxLayer(width, num_classes, (1e-4, 1e-3))}
  layers['block'].build()
  optimizer = optimizers.Optimizer(
    OptimizerConfig(weight_decay=0.0), probe_step.variables(layers)
  )
  inputs = {
    'block': tf.TensorSpec([batch, width]),
    'labels': tf.TensorSpec([batch], tf.int32),
  }
  return _step(probe_step.ProbeStep(layers, optimizer), 'plain', inputs)


def tokenizer(config: Stage1Config, batch: int) -> dict[str, ReplicaFunction]:
  """'encode' and 'decode'."""
  model = vit_vqgan_model.ViTVQGAN(
    config.model, dtype=restore.policy(config.run.precision)
  )
  model.build()
  size = config.model.image_size
  return {
    'encode': ReplicaFunction(
      model.encode, (tf.TensorSpec([batch, size, size, 3]),)
    ),
    'decode': ReplicaFunction(
      model.decode,
      (tf.TensorSpec([batch, config.model.num_codes], tf.int32),),
    ),
  }


def sample(
  config: Stage2Config, batch: int, guided: bool = True
) -> ReplicaFunction:
  """Drawing the codes of whole images."""
  model = vim_model.VIM(
    config.model, dtype=restore.policy(config.run.precision)
  )
  model.build()
  codes = config.model.num_codes

  def draw(class_ids, seeds, temperature, top_k, top_p, guidance_scale):
    return decoding.decode(
      model,
      class_ids=class_ids,
      seeds=seeds,
      temperature=temperature,
      top_k=top_k,
      top_p=top_p,
      guidance_scale=guidance_scale,
      prefix=tf.zeros([batch, codes], tf.int32),
      prefix_length=tf.zeros([batch], tf.int32),
      guided=guided,
    )

  def spec(dtype=tf.float32):
    return tf.TensorSpec([batch], dtype)

  specs = (spec(tf.int32), spec(tf.uint32), spec(), spec(tf.int32))
  return ReplicaFunction(draw, (*specs, spec(), spec()))


def features(config: Stage2Config, batch: int) -> ReplicaFunction:
  """What a probe sees of codes: every block's features."""
  model = vim_model.VIM(
    config.model, dtype=restore.policy(config.run.precision)
  )
  model.build()
  spec = tf.TensorSpec([batch, config.model.num_codes], tf.int32)
  return ReplicaFunction(
    lambda codes: probe_features.block_features(model, codes), (spec,)
  )


def _step(step, kind: str, inputs: dict) -> ReplicaFunction:
  def run(batch, number):
    return step.replica_step(kind, batch, number)

  return ReplicaFunction(run, (inputs, tf.TensorSpec([], tf.int64)))
