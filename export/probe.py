"""Exports a linear probe for TF Serving: images to classes.

  ./bazelw run //export:probe -- --workdir=runs/probe --base=exports/probe

The same from Python: `probe.export('runs/probe', 'exports/probe')`.
"""

from __future__ import annotations

import os

from absl import flags
from etils import epy

from experiments import flags as flags_lib
from export import settings as settings_lib

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  import tensorflow as tf

  from export import reading, saved_model, signatures, warmup
  from vim_tf.jobs import restore
  from vim_tf.probe import features, linear
  from vim_tf.vim import model as vim_model
  from vim_tf.vit_vqgan import model as vit_vqgan_model

_CLASSIFY = 'classify'
_FEATURE = 'image/encoded'  # Of a tf.Example: the image's file.
_MOST = 5


class Probe:
  """A linear probe with its VIM and tokenizer for a server.

  Signatures:
    serving_default: `image_bytes` to `probabilities` of all classes, and
      `top_classes` (names), `top_ids` and `top_scores` of the five likeliest.
    features: `image_bytes` to `features`, what the softmax layer takes in.
    classify: `inputs`, tf.Examples with the feature 'image/encoded', to
      `classes` and `scores`, for TF Serving's Classify API.

  Args:
    layer: A built softmax layer of one penalty.
    block: Index of the VIM's block whose features it takes.
    vim: A built VIM.
    tokenizer: The tokenizer of its codes.
    class_names: Names of the classes.
    settings: Those of the export.
  """

  def __init__(
    self,
    layer: linear.SoftmaxLayer,
    block: int,
    vim: vim_model.VIM,
    tokenizer: vit_vqgan_model.ViTVQGAN,
    class_names: list[str],
    settings: settings_lib.Settings = settings_lib.DEFAULTS,
  ):
    self.module = signatures.SignatureModule(
      'probe', settings, layer=layer, vim=vim, tokenizer=tokenizer
    )
    self.parts = self.module.parts
    self.parts.block = block
    self.parts.class_names = list(class_names)
    encoded = signatures.example(tf.string, 'image_bytes')
    self.module.add(signatures.SERVE, self.predict, encoded)
    self.module.add('features', self.features, encoded)
    self.module.add(
      _CLASSIFY, self.classify, signatures.example(tf.string, 'inputs')
    )

  def predict(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
    """Files `[batch]` to probabilities `[batch, classes]` and the likeliest."""
    logits = self.parts.layer(self.features(image_bytes)['features'])[:, 0]
    probabilities = tf.nn.softmax(logits)
    most = min(_MOST, len(self.parts.class_names))
    scores, ids = tf.math.top_k(probabilities, most)
    return {
      'probabilities': probabilities,
      'top_classes': tf.gather(tf.constant(self.parts.class_names), ids),
      'top_ids': ids,
      'top_scores': scores,
    }

  def features(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
    """Files `[batch]` to features `[batch, width]`."""
    size = self.parts.tokenizer.config.image_size
    images = reading.read(image_bytes, size, self.parts.settings)
    codes = self.parts.tokenizer.encode(images)
    block = self.parts.block
    found = features.block_features(self.parts.vim, codes, block)
    return {'features': found[features.block_name(block)]}

  def classify(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
    """Serialized tf.Examples `[batch]` to the likeliest classes."""
    numbers = tf.strings.as_string(tf.range(tf.size(inputs)))
    parsed = tf.io.parse_example(
      inputs,
      {_FEATURE: tf.io.FixedLenFeature([], tf.string, '')},
      tf.strings.join(['example ', numbers]),  # What an error calls it.
    )
    found = self.predict(parsed[_FEATURE])
    return {'classes': found['top_classes'], 'scores': found['top_scores']}


def export(
  workdir: str | os.PathLike,
  base: str | os.PathLike,
  block: int | None = None,
  vim: str = '',
  tokenizer: str = '',
  settings: settings_lib.Settings = settings_lib.DEFAULTS,
) -> str:
  """Writes the next version of a probe with its VIM and tokenizer.

  Args:
    workdir: Working directory of a probe.
    base: Folder of the versions.
    block: Index of the block; None: the one that the validation images chose.
    vim: Its stage-2 run, if that was moved.
    tokenizer: Its stage-1 run, if that was moved.
    settings: What every exporter can be told.

  Returns:
    The version's folder.

  Raises:
    UserError: If a run cannot be read or the version cannot be written.
  """
  saved_model.new_version(base, settings.version)  # Refused before the work.
  run = restore.probe(
    workdir, block, restore.policy(settings.precision), vim, tokenizer
  )
  class_names = run.record['class_names']
  encoded = [warmup.image(run.tokenizer.config.model.image_size)]
  example = tf.train.Example()
  example.features.feature[_FEATURE].bytes_list.value.extend(encoded)
  found = saved_model.Export(
    Probe(
      run.layer,
      run.block,
      run.vim.model,
      run.tokenizer.model,
      class_names,
      settings,
    ).module,
    class_names,
    config={
      'probe': run.record,
      'block': run.block,
      'probe_step': run.step,
      'vim': run.vim.record,
      'tokenizer': run.tokenizer.record,
    },
    requests=[
      (signatures.SERVE, {'image_bytes': encoded}),
      ('features', {'image_bytes': encoded}),
    ],
    classify={_CLASSIFY: [example]},
  )
  return saved_model.write(found, base, settings)


def define_flags():
  """Defines the flags of the binary."""
  flags.DEFINE_string(
    'workdir', None, '[model] Working directory of a probe.', required=True
  )
  flags.DEFINE_integer(
    'block', None, '[model] Index of the block; unset: the best one.', 0
  )
  flags.DEFINE_string('vim', '', '[model] Its stage-2 run, if moved.')
  flags.DEFINE_string('tokenizer', '', '[model] Its stage-1 run, if moved.')
  settings_lib.define_flags()


def main():
  """Exports what the flags say."""
  values = flags.FLAGS
  export(
    values.workdir,
    values.base,
    values.block,
    values.vim,
    values.tokenizer,
    settings_lib.from_flags(),
  )


if __name__ == '__main__':
  define_flags()
  flags_lib.run(main)
