"""Encoded images to the models' inputs, and back, inside of a graph.

The path is that of `vim_tf.data.pipeline`'s evaluation: decoded, cropped to
the middle square, resized, rounded to bytes. Before that the file's header is
read, and what a server should not take is refused.
"""

import tensorflow as tf

from export import checks, headers
from export.settings import Settings
from vim_tf.data import images as images_lib

_THREADS = 2


def read(image_bytes: tf.Tensor, size: int, settings: Settings):
  """Images out of files.

  Args:
    image_bytes: Strings `[batch]`, each a JPEG or PNG file.
    size: Height and width of the result, in pixels.
    settings: Those of the export: how much is decoded.

  Returns:
    float32 `[batch, size, size, 3]` in [0, 1], each value a byte's.

  Raises:
    tf.errors.InvalidArgumentError: If one is no such image, or too large;
      the message names the example.
  """
  count = tf.size(image_bytes, out_type=tf.int64)
  nothing = tf.zeros([size, size, 3], tf.uint8)

  @tf.autograph.experimental.do_not_convert
  def load(index):
    problem = headers.problem(image_bytes[index], settings)
    image = tf.cond(
      tf.equal(problem, ''),
      lambda: images_lib.decode_square(image_bytes[index], size),
      lambda: nothing,
    )
    return index, problem, image

  # A dataset, because it alone can leave out what fails to decode and tell
  # afterwards which it was; and it decodes in parallel. One element more, of
  # no image, keeps it from being empty.
  data = tf.data.Dataset.range(count).map(
    load, num_parallel_calls=_THREADS, deterministic=True
  )
  data = data.ignore_errors().concatenate(
    tf.data.Dataset.from_tensors((count, tf.constant(''), nothing))
  )
  indices, found, images = data.batch(count + 1).get_single_element()
  problems = tf.tensor_scatter_nd_update(
    tf.fill([count + 1], 'the image is damaged or cut short'),
    indices[:, None],
    found,
  )
  images = checks.after(
    [checks.assert_examples(problems)], {'images': images[:-1]}
  )['images']
  return images_lib.from_uint8(tf.ensure_shape(images, [None, size, size, 3]))


def to_png(images: tf.Tensor) -> tf.Tensor:
  """Images `[batch, height, width, 3]` in [0, 1] to PNG files `[batch]`."""
  return tf.map_fn(
    tf.io.encode_png,
    images_lib.to_uint8(images),
    fn_output_signature=tf.TensorSpec([], tf.string),
  )
