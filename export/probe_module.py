"""The probe's signatures: images to classes, by one block of a VIM."""

import tensorflow as tf

from export import checks, headers, reading, signatures
from vim_tf.probe import features, linear
from vim_tf.vim import model as vim_model
from vim_tf.vit_vqgan import model as vit_vqgan_model

CLASSIFY = 'classify'
FEATURE = 'image/encoded'
"""Feature of a tf.Example that holds the image's file."""

_MOST = 5


class Probe(signatures.SignatureModule):
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
    limits: The largest images that are decoded.
  """

  def __init__(
    self,
    layer: linear.SoftmaxLayer,
    block: int,
    vim: vim_model.VIM,
    tokenizer: vit_vqgan_model.ViTVQGAN,
    class_names: list[str],
    limits: headers.Limits,
  ):
    super().__init__('probe', layer=layer, vim=vim, tokenizer=tokenizer)
    self.parts.block = block
    self.parts.class_names = list(class_names)
    self.parts.limits = limits
    encoded = signatures.example(tf.string, 'image_bytes')
    self.add(signatures.SERVE, self.predict, encoded)
    self.add('features', self.features, encoded)
    self.add(CLASSIFY, self.classify, signatures.example(tf.string, 'inputs'))

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
    inputs = checks.checked({'image_bytes': image_bytes}, {})
    size = self.parts.tokenizer.config.image_size
    images = reading.read(inputs['image_bytes'], size, self.parts.limits)
    codes = self.parts.tokenizer.encode(images)
    block = self.parts.block
    found = features.block_features(self.parts.vim, codes, block)
    return {'features': found[features.block_name(block)]}

  def classify(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
    """Serialized tf.Examples `[batch]` to the likeliest classes."""
    numbers = tf.strings.as_string(tf.range(tf.size(inputs)))
    parsed = tf.io.parse_example(
      inputs,
      {FEATURE: tf.io.FixedLenFeature([], tf.string, '')},
      tf.strings.join(['example ', numbers]),  # What an error calls it.
    )
    found = self.predict(parsed[FEATURE])
    return {'classes': found['top_classes'], 'scores': found['top_scores']}
