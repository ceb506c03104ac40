"""Whether a device can do all of it, in minutes, before it is paid for in days.

Both stages are trained, measured and drawn from in tiny, with what is most
likely to fail on a new device: R1's double gradient, StyleGAN2, LPIPS,
bfloat16, parts of a batch, recomputation, the optimizer's 8-bit moments,
averages, resuming, guidance. A tokenizer of the paper's size sees one image.
"""

from collections.abc import Callable, Iterator
import os
import pathlib
import time

from absl import logging
import numpy as np
import tensorflow as tf

from vim_tf import presets, protocols
from vim_tf.config import SamplingConfig, UserError, replace
from vim_tf.data import pipeline, sources
from vim_tf.jobs import (
  evaluate_reconstructions,
  evaluate_samples,
  replica_functions,
  restore,
  train_tokenizer,
  train_vim,
)
from vim_tf.jobs import sample as sample_job
from vim_tf.nn import replicas
from vim_tf.training import workdir as workdir_lib
from vim_tf.vit_vqgan import model as vit_vqgan_model

_EACH = 4  # Images of a replica.
_FAR = 0.02
"""Share by which float32 on the device may be off: products of a TPU are of
bfloat16, which is right to 0.4%."""

_RUN = {
  'data.name': 'digits',
  'run.precision': 'bfloat16',
  'run.num_steps': '6',
  'run.eval_every': '4',
  'run.picture_every': '4',
  'run.checkpoint_every': '4',
  'run.log_every': '1',
  'run.eval_examples': '64',
  'optimizer.ema_decay': '0.5',
  'optimizer.accumulate': '2',
}
_STAGE1 = {
  'losses.perceptual': '0.1',
  'losses.adversarial': '0.1',
  'adversarial.augment': 'true',
  'adversarial.r1_interval': '2',
  # Without the help for small data, of which each kind of step is compiled.
  'codebook.init_from_data': 'false',
}
_STAGE2 = {
  'run.recompute': 'true',
  # Wide enough for factors and codes of 8 bits.
  'optimizer.name': 'adafactor',
  'model.transformer.width': '128',
  'model.transformer.mlp_width': '128',
  'model.transformer.dropout': '0.1',
  'label_drop': '0.1',
}


def run(path: str | os.PathLike, strategy: tf.distribute.Strategy):
  """Tries everything in a new folder, and tells how long each part took.

  Raises:
    UserError: If something came out wrong; what fails otherwise raises what
      it does.
  """
  path = pathlib.Path(path)
  for what, part in _parts(path, strategy):
    started = time.monotonic()
    found = part()
    logging.info(
      'OK in %.0f s: %s%s', time.monotonic() - started, what, found or ''
    )


def _parts(
  path: pathlib.Path, strategy: tf.distribute.Strategy
) -> Iterator[tuple[str, Callable]]:
  first, second = path / 'tokenizer', path / 'vim'
  batch = _EACH * strategy.num_replicas_in_sync
  common = {**_RUN, 'run.batch_size': str(batch)}

  def stage1(steps: str):
    config = replace(presets.stage1('tiny'), {**common, **_STAGE1})
    config = replace(config, {'run.num_steps': steps})
    train_tokenizer.train(config, first, strategy)
    return _told(first, 'mean_psnr')

  def stage2():
    changes = {'tokenizer': str(first), 'model.num_classes': '10'}
    config = replace(presets.stage2('tiny'), {**common, **_STAGE2, **changes})
    train_vim.train(config, second, strategy)
    return _told(second, 'nats_per_code')

  def same_as_host():
    host = tf.distribute.get_strategy()
    nats = []
    for where in (strategy, host):
      with where.scope():
        models = restore.both(second, dtype='float32')
      nats.append(_nats(*models))
    if not abs(nats[0] - nats[1]) <= _FAR * nats[1]:
      raise UserError(
        f'The likelihood is {nats[0]:.5f} nats a code on the device, but '
        f'{nats[1]:.5f} on the host.'
      )
    return f' {nats[0]:.5f} nats a code, on the host {nats[1]:.5f}'

  def samples():
    sample_job.sample(
      second,
      path / 'samples',
      count=1,
      batch_size=batch,
      config=SamplingConfig(guidance_scale=2.0, top_k=50),
      precision='bfloat16',
      strategy=strategy,
    )

  def figures():
    with strategy.scope():
      tokenizer, vim = restore.both(second)
    evaluate_reconstructions.evaluate(
      tokenizer,
      protocols.ReconstructionProtocol(max_images=32, batch_size=batch),
    )
    evaluate_samples.evaluate(
      tokenizer,
      vim,
      protocols.SamplesProtocol(
        max_images=64, num_samples=20, batch_size=batch
      ),
    )

  def full_size():
    # Tiny attention is compiled as it stands, that of the paper's sizes to a
    # kernel of the compiler's own.
    with strategy.scope():
      model = vit_vqgan_model.ViTVQGAN(
        presets.stage1('vit_vqgan_ss').model, dtype=restore.policy('bfloat16')
      )
      model.build()

    def both_ways(images):
      with tf.GradientTape() as tape:
        found = model(images)
        loss = tf.reduce_sum(found['reconstruction'])
      gradients = tape.gradient(loss, model.encoder.trainable_variables)
      return model.encode(images), tf.linalg.global_norm(gradients)[tf.newaxis]

    images = np.full([strategy.num_replicas_in_sync, 256, 256, 3], 0.5)
    _, norms = replicas.OnReplicas(both_ways, strategy)(np.float32(images))
    if not np.all(np.isfinite(norms) & (norms > 0)):
      raise UserError(f'The norms of its gradients are {norms}.')

  yield 'all operations have a kernel for TPUs', _kernels
  yield 'stage 1, with LPIPS, StyleGAN2 and R1', lambda: stage1('4')
  yield 'stage 1 goes on from its checkpoint', lambda: stage1('6')
  yield 'stage 2, on codes made online', stage2
  yield 'a tokenizer of the paper, one image, both ways', full_size
  yield 'the likelihood is that of the host:', same_as_host
  yield 'samples, with guidance', samples
  yield 'reconstructions and samples are measured', figures


def _told(path: pathlib.Path, figure: str) -> str:
  """The last figure of a run, which must be finite."""
  rows = workdir_lib.read_metrics(path)
  for row in rows:
    for name, value in row.items():
      if not np.isfinite(value):
        raise UserError(f'{path}: {name} is {value} at step {row["step"]}.')
  return f': {figure} {rows[-1][f"eval/{figure}"]:.4g}'


def _nats(tokenizer: restore.Restored, vim: restore.Restored) -> float:
  data = vim.config.data
  figures = train_vim.Figures(vim.model, tokenizer.model)
  batches = pipeline.evaluation_batches(
    sources.load(data, data.eval_split),
    data,
    batch_size=figures.batch_size,
    max_examples=64,
  )
  return figures(batches)['nats_per_code']


def _kernels() -> str:
  """Refuses operations that TPUs do not have, if this TensorFlow knows TPUs."""
  if not replica_functions.knows_tpus():
    return ': not looked for, this TensorFlow knows no TPU'
  missing = replica_functions.without_kernel()
  if missing:
    lines = (f'{name}: {", ".join(ops)}' for name, ops in missing.items())
    raise UserError(f'No TPU has these operations: {"; ".join(lines)}.')
  return ''
