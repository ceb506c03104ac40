"""Batches of images from a source, for training and for evaluation.

What a training batch holds is a function of (seed, step) alone. Example p of
a run, counted from 0 over all steps, is number p mod n of epoch p div n; the
epoch's order is a function of (seed, epoch), the augmentation one of (seed,
epoch, example). A run that starts at step k computes where it stands and gets
the batches that it would have got.

No function in here needs AutoGraph, and to convert one takes longer than to
trace it: hence `do_not_convert` around all that is made of `tf.data`.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from vim_tf import machine
from vim_tf.config import DataConfig
from vim_tf.data import errors, images, order
from vim_tf.data.errors import DataError
from vim_tf.data.sources import Source
from vim_tf.nn import randomness

MAX_CACHE = 512 * 2**20
"""Bytes up to which decoded images are kept in memory."""

_THREADS = machine.cores()  # They rest once batches are ready.
_FOREVER = np.iinfo(np.int64).max


@tf.autograph.experimental.do_not_convert
def training_batches(
  source: Source,
  config: DataConfig,
  *,
  batch_size: int,
  seed: int,
  start_step: int = 0,
  input_context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
  """Endless batches of augmented images.

  Batches run across the ends of epochs, so that none is short. Under
  `config.balance_classes` an epoch draws every class equally often, and
  'epoch' in an example's augmentation counts how often it was drawn.

  Args:
    source: The training images.
    config: Image size and augmentation.
    batch_size: Images of one step, over all input pipelines.
    seed: The run's seed, at least 0.
    start_step: Step of the first batch.
    input_context: Of `tf.distribute`: each input pipeline gives its
      contiguous share of every batch.

  Returns:
    Dictionaries: `images`, float32 `[batch, image_size, image_size, 3]` in
    [0, 1]; `labels`, int32 `[batch]`; `seeds`, uint32 `[batch]`, a hash of
    (seed, epoch, example) for all that the step draws for an example. `batch`
    is `batch_size` divided by the number of input pipelines. If the source
    leaves out bad examples also `broken`, float32 `[batch]`: 1 where another
    example stands in.

  Raises:
    DataError: If classes shall be balanced, but the source is streamed.
  """
  local_size, share = own_share(batch_size, input_context)
  if config.balance_classes and not source.random_access:
    raise DataError(
      f'Data set {source.name!r} is streamed, so that its classes cannot be '
      'balanced: set balance_classes to false.'
    )
  read = _reader(source, config)
  flippable = tf.constant(source.flippable)

  def draws(start):
    epoch = start // source.num_examples
    if source.random_access:
      data = draw_examples(
        source.num_examples,
        source.labels if config.balance_classes else None,
        seed=seed,
        epoch=epoch,
      )
    else:
      data = _stream_examples(source, seed, epoch)
    return data.skip(start % source.num_examples)

  def finish(example):
    image, label, sound = read(example)
    image = images.augment(
      image, example['seed'], tf.gather(flippable, label), config
    )
    return dict(images=image, labels=label, seeds=example['seed'], sound=sound)

  def following(number):
    rest = draws((start_step + number + 1) * batch_size)
    return _map(finish, rest.take(source.num_examples))

  data = draws(start_step * batch_size)
  if local_size < batch_size:
    data = data.batch(batch_size, drop_remainder=True).map(share).unbatch()
  data = _map(finish, data).batch(local_size, drop_remainder=True)
  if source.on_bad_example == errors.SKIP:
    data = errors.fill_gaps(data, following, source.name)
  else:
    data = data.map(
      lambda batch: {k: x for k, x in batch.items() if k != 'sound'}
    )
  return data.prefetch(2).with_options(options())


@tf.autograph.experimental.do_not_convert
def evaluation_batches(
  source: Source,
  config: DataConfig,
  *,
  batch_size: int,
  max_examples: int | None = None,
  part: range | None = None,
  fill_gaps: bool = False,
) -> tf.data.Dataset:
  """One pass over images in a fixed order, with a centre crop.

  Args:
    source: The held-out images.
    config: Image size.
    batch_size: Images of a batch.
    max_examples: Most images given out: spread evenly over a random-access
      source, the first ones of a stream.
    part: Which of those, by their place in that order; None: all.
    fill_gaps: Whether sound images stand in for bad ones, so that there are as
      many as there should be.

  Returns:
    Dictionaries: `images`, float32 `[batch_size, image_size, image_size, 3]`
    in [0, 1]; `labels`, int32 `[batch_size]`; `indices`, int64
    `[batch_size]`, each example's identity; `mask`, float32 `[batch_size]`:
    1, or 0 for the zeros that fill up the last batch and for bad examples
    that the source leaves out.
  """
  count = min(source.num_examples, max_examples or source.num_examples)
  read = _reader(source, config, centered=True)
  return _one_pass(source, count, read, batch_size, part, fill_gaps)


@tf.autograph.experimental.do_not_convert
def epoch_batches(
  source: Source,
  config: DataConfig,
  *,
  batch_size: int,
  seed: int,
  epoch: int,
  part: range | None = None,
  fill_gaps: bool = False,
) -> tf.data.Dataset:
  """One pass in the source's own order, augmented as training augments.

  Args:
    source: The training images.
    config: Image size and augmentation.
    batch_size: Images of a batch.
    seed: The seed of the augmentation, at least 0.
    epoch: Which of its crops an image is given: that with which a run of this
      seed draws it after so many earlier draws.
    part: Which examples, by their place in that order; None: all.
    fill_gaps: As of `evaluation_batches`.

  Returns:
    Dictionaries as `evaluation_batches` gives them.
  """
  read = _reader(source, config)
  flippable = tf.constant(source.flippable)

  def augmented(example):
    image, label, sound = read(example)
    seeds = example_seeds(seed, tf.constant(epoch, tf.int64), example['index'])
    image = images.augment(image, seeds, tf.gather(flippable, label), config)
    return image, label, sound

  count = source.num_examples
  return _one_pass(source, count, augmented, batch_size, part, fill_gaps)


def evaluation_arrays(
  source: Source, config: DataConfig, max_examples: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """The images of `evaluation_batches` in memory, for small sets.

  Returns:
    Images, float32 `[num_images, image_size, image_size, 3]` in [0, 1], each
    value a byte's; labels, int32 `[num_images]`.
  """
  parts = [
    (batch['images'][batch['mask'] > 0], batch['labels'][batch['mask'] > 0])
    for batch in evaluation_batches(
      source, config, batch_size=64, max_examples=max_examples
    ).as_numpy_iterator()
  ]
  all_images, labels = zip(*parts)
  return np.concatenate(all_images), np.concatenate(labels)


@tf.autograph.experimental.do_not_convert
def draw_examples(
  num_examples: int, labels: np.ndarray | None, *, seed: int, epoch: int
) -> tf.data.Dataset:
  """Endless draws of examples, in an order that is a function of the seed.

  Args:
    num_examples: How many there are.
    labels: Class of each, int `[num_examples]`, to draw every class equally
      often; None to draw every example equally often.
    seed: The run's seed, at least 0.
    epoch: The first epoch.

  Returns:
    Dictionaries of scalars: `index`, int64; `round`, int64, how often the
    example was drawn before; `seed`, uint32, a hash of (seed, round, index).
  """

  def draw(number):
    if labels is not None:
      return order.balanced_order(seed, int(number), labels)
    return order.epoch_order(seed, int(number), num_examples)

  def make_epoch(number):
    indices, rounds = tf.numpy_function(draw, [number], [tf.int64, tf.int64])
    indices.set_shape([num_examples])
    rounds.set_shape([num_examples])
    seeds = example_seeds(seed, rounds, indices)
    return tf.data.Dataset.from_tensor_slices(
      dict(index=indices, round=rounds, seed=seeds)
    )

  return tf.data.Dataset.range(epoch, _FOREVER).flat_map(make_epoch)


def example_seeds(
  seed: int, rounds: tf.Tensor, indices: tf.Tensor
) -> tf.Tensor:
  """uint32 hashes of (seed, round, example), the same for any batch size."""
  seeds = randomness.fold(tf.constant(seed % 2**32, tf.uint32), rounds)
  return randomness.fold(seeds, indices)


def own_share(
  batch_size: int, input_context: tf.distribute.InputContext | None
) -> tuple[int, Callable[[dict], dict]]:
  """What one of several input pipelines gives of each batch.

  Args:
    batch_size: Examples of one step, over all input pipelines; a multiple of
      their number, as `strategy.describe` has checked.
    input_context: Of `tf.distribute`; None: this one gives everything.

  Returns:
    How many examples that is, and a function from a batch to that part.
  """
  context = input_context or tf.distribute.InputContext()
  size = batch_size // context.num_input_pipelines
  first = context.input_pipeline_id * size
  return size, lambda batch: {
    name: x[first : first + size] for name, x in batch.items()
  }


def options() -> tf.data.Options:
  """How every input pipeline runs: in order, on its threads, not sharded."""
  result = tf.data.Options()
  result.deterministic = True
  result.autotune.enabled = False
  result.threading.private_threadpool_size = _THREADS
  result.threading.max_intra_op_parallelism = 1
  result.experimental_distribute.auto_shard_policy = (
    tf.data.experimental.AutoShardPolicy.OFF
  )
  return result


def _map(function: Callable, data: tf.data.Dataset) -> tf.data.Dataset:
  return data.map(function, num_parallel_calls=_THREADS, deterministic=True)


def _stream_examples(source: Source, seed: int, epoch: int):
  """Endless examples of a streamed source, with their `seed`."""

  def make_epoch(number):
    return source.stream(seed, number).map(
      lambda example: (
        example | dict(seed=example_seeds(seed, number, example['index']))
      )
    )

  return tf.data.Dataset.range(epoch, _FOREVER).flat_map(make_epoch)


def _one_pass(
  source: Source,
  count: int,
  read: Callable,
  batch_size: int,
  part: range | None,
  fill_gaps: bool,
) -> tf.data.Dataset:
  """Batches of a part of a pass, the last one filled up with zeros.

  The pass is over `count` examples: spread evenly over a random-access source,
  the first ones of a stream. `read` gives image, label and whether it is sound.
  """
  if source.random_access:
    chosen = np.arange(count) * source.num_examples // count
    data = tf.data.Dataset.from_tensor_slices(dict(index=chosen))
  else:
    data = source.stream(None, None).take(count)
  part = range(count) if part is None else part
  fill_gaps &= source.on_bad_example == errors.SKIP

  def finish(example):
    image, label, sound = read(example)
    return dict(
      images=image, labels=label, indices=example['index'], sound=sound
    )

  def following(number):
    rest = data.skip(part.start + (number + 1) * batch_size)
    return _map(finish, rest.concatenate(data))

  def fill_up(batch):
    batch = dict(batch)
    if fill_gaps:
      mask = tf.ones_like(batch.pop('broken'))
    else:
      mask = tf.cast(batch.pop('sound'), tf.float32)
    batch['mask'] = mask
    missing = batch_size - tf.shape(batch['mask'])[0]

    def pad(x):
      x = tf.pad(x, [[0, missing]] + [[0, 0]] * (x.shape.rank - 1))
      return tf.ensure_shape(x, [batch_size, *x.shape[1:]])

    return {name: pad(x) for name, x in batch.items()}

  examples = data.skip(part.start).take(len(part))
  batches = _map(finish, examples).batch(batch_size)
  if fill_gaps:
    batches = errors.fill_gaps(batches, following, source.name)
  return batches.map(fill_up).prefetch(1).with_options(options())


def _reader(source: Source, config: DataConfig, centered: bool = False):
  """A function from an example to its image and label, inside `tf.data`.

  Unless the crop wants the whole image, images are cropped to the square and
  rounded to bytes, so that it makes no difference whether they are cached.
  It also tells whether the image is sound; a bad one that the source does not
  leave out is an error.
  """
  whole = config.crop == 'random_resized' and not centered
  size = config.image_size

  def find(example):
    if source.random_access:
      return source.read(example['index'])
    return example['image']

  def prepare(example):
    encoded = find(example)
    if whole:
      return images.decode(encoded)
    return images.decode_square(encoded, size)

  def attempt(example):
    blank = tf.zeros([size, size, 3], tf.float32 if whole else tf.uint8)
    image, sound = errors.guarded(
      lambda example: (prepare(example), True), example, (blank, False)
    )
    if source.on_bad_example == errors.STOP:
      sound = errors.refused(sound, lambda: source.explain(example['index']))
    return image, sound

  if source.random_access:
    labels = tf.constant(source.labels, tf.int32)
    if not whole and source.num_examples * size**2 * 3 <= MAX_CACHE:
      attempt = _cached(source, size, attempt)

  def read(example):
    image, sound = attempt(example)
    image = image if whole else images.from_uint8(image)
    if source.random_access:
      return image, tf.gather(labels, example['index']), sound
    return image, example['label'], sound

  return read


def _cached(source: Source, size: int, attempt):
  """Like `attempt`, from decoded images in memory."""
  if size not in source.cache:
    data = tf.data.Dataset.range(source.num_examples).map(
      lambda index: attempt(dict(index=index)),
      num_parallel_calls=_THREADS,
      deterministic=True,
    )
    decoded = np.empty([source.num_examples, size, size, 3], np.uint8)
    sound = np.empty([source.num_examples], bool)
    first = 0
    batches = data.batch(64).with_options(options()).as_numpy_iterator()
    for pictures, found in batches:
      decoded[first : first + len(found)] = pictures
      sound[first : first + len(found)] = found
      first += len(found)
    with tf.device('CPU'):
      source.cache[size] = tf.constant(decoded), tf.constant(sound)
  decoded, sound = source.cache[size]
  return lambda example: (
    tf.gather(decoded, example['index']),
    tf.gather(sound, example['index']),
  )
