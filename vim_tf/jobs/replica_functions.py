"""Every function that a replica runs, by name, with the shapes of its inputs.

They are what must compile with XLA at static shapes, because a TPU runs nothing
else. `tests/jobs/xla_test.py` compiles and runs them all in tiny for the CPU;
`experiments/studies/tpu` compiles them for TPUs in the paper's sizes. Where
TensorFlow knows TPUs, `without_kernel` asks it for what they would not run.
"""

from collections.abc import Callable
import dataclasses
import functools

import tensorflow as tf
from tensorflow.python.framework import kernels

from vim_tf import presets
from vim_tf.config import OptimizerConfig, Stage1Config, Stage2Config, replace
from vim_tf.jobs import (
  evaluate_reconstructions,
  probe_features,
  restore,
  train_tokenizer,
  train_vim,
)
from vim_tf.metrics import feature_networks
from vim_tf.probe import features as block_features
from vim_tf.probe import linear
from vim_tf.probe import step as probe_step
from vim_tf.training import optimizers
from vim_tf.vim import decoding
from vim_tf.vim import model as vim_model
from vim_tf.vit_vqgan import model as vit_vqgan_model

_TINY_STAGE1 = {
  'run.precision': 'bfloat16',
  'model.encoder.num_blocks': '1',
  'model.decoder.num_blocks': '1',
  'adversarial.augment': 'true',
  'adversarial.channel_multiplier': str(1 / 128),
  'losses.adversarial': '0.1',
  'losses.perceptual': '0.1',
  'optimizer.ema_decay': '0.9',
}
_IN_PARTS = {
  'run.recompute': 'true',
  'optimizer.accumulate': '2',
  # Wide enough for factors and codes of 8 bits.
  'optimizer.name': 'adafactor',
  'model.transformer.width': '128',
  'model.transformer.mlp_width': '128',
}
_KINDS = (
  'center+unquantized',
  'initialize',
  'revive+adversarial',
  'perceptual+adversarial+r1',
)
_CALLS = {'PartitionedCall', 'StatefulPartitionedCall', 'Placeholder', 'NoOp'}
"""What is a program's form rather than work."""


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
  model = _tokenizer(config)
  size = config.model.image_size
  return {
    'encode': ReplicaFunction(
      model.encode, (tf.TensorSpec([batch, size, size, 3]),)
    ),
    'decode': ReplicaFunction(
      model.decode, (tf.TensorSpec([batch, config.model.num_codes], tf.int32),)
    ),
  }


def sample(
  config: Stage2Config, batch: int, guided: bool = True
) -> ReplicaFunction:
  """Drawing the codes of whole images."""
  model = _vim(config)
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
  model = _vim(config)
  spec = tf.TensorSpec([batch, config.model.num_codes], tf.int32)
  return ReplicaFunction(
    lambda codes: block_features.block_features(model, codes), (spec,)
  )


def tiny(batch: int = 4) -> dict[str, Callable[[], ReplicaFunction]]:
  """What makes each of them, in tiny and in bfloat16, by its name."""
  first = replace(presets.stage1('tiny'), _TINY_STAGE1)
  second = replace(presets.stage2('tiny'), {'run.precision': 'bfloat16'})
  size = first.model.image_size
  images = tf.TensorSpec([batch, size, size, 3])

  def step(kind):
    perceptual = 'perceptual' in kind and train_tokenizer.load_perceptual(first)
    return stage1_steps(first, batch, (kind,), perceptual or None)[kind]

  def in_parts():
    return stage2_step(replace(second, _IN_PARTS), batch)

  def measured():
    run = evaluate_reconstructions.measure_function(
      _tokenizer(first), True, first.losses.logit_laplace_form
    )
    return ReplicaFunction(run, (images,))

  def likelihood():
    model = _vim(second)
    codes = tf.TensorSpec([batch, second.model.num_codes], tf.int32)
    return ReplicaFunction(
      lambda codes, labels: vim_model.negative_log_likelihood(
        model(codes, labels), codes
      ),
      (codes, tf.TensorSpec([batch], tf.int32)),
    )

  def network():
    return ReplicaFunction(feature_networks.load().function, (images,))

  def features():
    run = probe_features.features_function(
      _tokenizer(first), _vim(second), None, True
    )
    return ReplicaFunction(run, (images,))

  return {
    **{kind: functools.partial(step, kind) for kind in _KINDS},
    'stage2': lambda: stage2_step(second, batch),
    'stage2 in parts': in_parts,
    'probe': lambda: probe(32, 9, batch),
    'encode': lambda: tokenizer(first, batch)['encode'],
    'decode': lambda: tokenizer(first, batch)['decode'],
    'sample': lambda: sample(second, batch),
    'sample without guidance': lambda: sample(second, batch, guided=False),
    'reconstructions': measured,
    'likelihood': likelihood,
    'feature network': network,
    'features to probe': features,
  }


def knows_tpus() -> bool:
  """Whether this TensorFlow has kernels for TPUs."""
  tf.add(1, 1)  # The first operation of a process registers XLA's kernels.
  return 'XLA_TPU_JIT' in _devices('MatMul')


def without_kernel(device: str = 'XLA_TPU_JIT') -> dict[str, list[str]]:
  """The operations of `tiny` that a kind of device cannot compile.

  Returns:
    Their names, by that of the function; only functions that have any.
  """
  found = {}
  for name, make in tiny().items():
    function = make()
    graph = tf.function(function.run, autograph=False)
    graph = graph.get_concrete_function(*function.specs).graph.as_graph_def()
    nodes = [
      *graph.node,
      *(n for f in graph.library.function for n in f.node_def),
    ]
    ops = {node.op for node in nodes} - {
      f.signature.name for f in graph.library.function
    }
    missing = sorted(op for op in ops - _CALLS if device not in _devices(op))
    if missing:
      found[name] = missing
  return found


def _devices(op: str) -> set[str]:
  """The kinds of devices that have a kernel for an operation."""
  return {
    k.device_type for k in kernels.get_registered_kernels_for_op(op).kernel
  }


def _tokenizer(config: Stage1Config) -> vit_vqgan_model.ViTVQGAN:
  model = vit_vqgan_model.ViTVQGAN(
    config.model, dtype=restore.policy(config.run.precision)
  )
  model.build()
  return model


def _vim(config: Stage2Config) -> vim_model.VIM:
  model = vim_model.VIM(
    config.model, dtype=restore.policy(config.run.precision)
  )
  model.build()
  return model


def _step(step, kind: str, inputs: dict) -> ReplicaFunction:
  def run(batch, number):
    return step.replica_step(kind, batch, number)

  return ReplicaFunction(run, (inputs, tf.TensorSpec([], tf.int64)))
