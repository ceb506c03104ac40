"""Where replicas run."""

import tensorflow as tf

from vim_tf.config import ConfigError

NAMES = ('auto', 'one_device', 'mirrored', 'tpu')


def make(name: str = 'auto', tpu: str = 'local') -> tf.distribute.Strategy:
  """Makes a distribution strategy.

  Args:
    name: One of `NAMES`. 'auto' takes every GPU of this machine, else its CPU.
    tpu: 'local' on a Cloud TPU VM, or a TPU's name.

  Returns:
    The strategy.

  Raises:
    ConfigError: If the name is unknown or no TPU answers.
  """
  if name not in NAMES:
    raise ConfigError(
      f'strategy is {name!r}, but must be one of {", ".join(NAMES)}.'
    )
  if name == 'tpu':
    try:
      resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu)
      tf.config.experimental_connect_to_cluster(resolver)
      tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
      line = str(error).splitlines()[0]
      raise ConfigError(f'No TPU {tpu!r} answers: {line}') from error
    return tf.distribute.TPUStrategy(resolver)
  gpus = tf.config.list_logical_devices('GPU')
  if name == 'mirrored' or (name == 'auto' and len(gpus) > 1):
    return tf.distribute.MirroredStrategy()
  return tf.distribute.OneDeviceStrategy('/gpu:0' if gpus else '/cpu:0')


def describe(strategy: tf.distribute.Strategy, batch_size: int) -> str:
  """One line with replicas and batch sizes.

  Raises:
    ConfigError: If the batch does not divide over the replicas.
  """
  replicas = strategy.num_replicas_in_sync
  if batch_size % replicas:
    raise ConfigError(
      f'batch_size {batch_size} does not divide over {replicas} replicas.'
    )
  return (
    f'{replicas} replica(s), batch {batch_size} in all, '
    f'{batch_size // replicas} each'
  )
