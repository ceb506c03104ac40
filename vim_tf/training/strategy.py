"""Where replicas run."""

import json
import os
import pathlib
import urllib.error

from absl import logging
import tensorflow as tf

from vim_tf.config import STRATEGIES, ConfigError, check_choice, first_line

_GPU_SIGNS = ('proc/driver/nvidia', 'dev/nvidia0')
_NO_GPUS = ('', '-1', 'NoDevFiles')  # Values of CUDA_VISIBLE_DEVICES.

_TF_CONFIG_HELP = (
  'strategy=multi_worker needs the environment variable TF_CONFIG, such as '
  '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
  '"task": {"type": "worker", "index": 0}}.'
)


def make(name: str = 'auto', tpu: str = 'local') -> tf.distribute.Strategy:
  """Makes a distribution strategy; call it before TensorFlow computes anything.

  Args:
    name: One of `config.STRATEGIES`. 'auto' takes every GPU of this machine,
      else its CPU. 'mirrored' takes every GPU, or every logical CPU device.
      'multi_worker' joins the cluster that the environment variable TF_CONFIG
      describes.
    tpu: 'local' on a Cloud TPU VM, or a TPU's name.

  Returns:
    The strategy.

  Raises:
    ConfigError: If the name is unknown, no TPU answers or TF_CONFIG describes
      no cluster.
  """
  check_choice('strategy', name, STRATEGIES)
  if name == 'tpu':
    # A TPU would round the factors of float32 products to bfloat16, and what
    # is looked up by them would be other codes.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    return _tpu(tpu)
  if name == 'multi_worker':
    return _multi_worker()
  gpus = tf.config.list_logical_devices('GPU')
  if not gpus and (note := missing_gpu()):
    logging.warning(note)
  if name == 'mirrored' or (name == 'auto' and len(gpus) > 1):
    devices = gpus or tf.config.list_logical_devices('CPU')
    return tf.distribute.MirroredStrategy([device.name for device in devices])
  return tf.distribute.OneDeviceStrategy('/gpu:0' if gpus else '/cpu:0')


def _tpu(name: str) -> tf.distribute.Strategy:
  """The TPU of this machine, or the one with a name."""
  try:
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name)
    tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
  except Exception as error:  # Of TensorFlow, the network, Google's clients.
    raise ConfigError(f'No TPU {name!r} answers: {_no_tpu(error)}') from error
  return tf.distribute.TPUStrategy(resolver)


def _no_tpu(error: Exception) -> str:
  """What may be wrong, and what TensorFlow says, in one line."""
  said = first_line(error)
  if 'No OpKernel' in said:
    return (
      f'TensorFlow {tf.__version__} as it is installed here knows no TPU. '
      'Install the packages of requirements-tpu.lock (docs/tpu.md).'
    )
  if 'TPU_SYSTEM' in said:
    return (
      'this machine has none, or another process uses it. On a Cloud TPU VM '
      'end that process; elsewhere choose another --strategy.'
    )
  if isinstance(error, urllib.error.URLError):
    return (
      "a TPU is looked up by its name in Google Cloud's network, which cannot "
      f'be reached from here ({said}). On the VM of a TPU give --tpu=local.'
    )
  return said


def _multi_worker() -> tf.distribute.Strategy:
  """The workers that TF_CONFIG names, one process each."""
  text = os.environ.get('TF_CONFIG', '')
  try:
    settings = json.loads(text)
    workers = settings['cluster']['worker']
    index = settings['task']['index']
    known = settings['task']['type'] == 'worker' and 0 <= index < len(workers)
  except (ValueError, KeyError, TypeError) as error:
    raise ConfigError(_TF_CONFIG_HELP) from error
  if not known:
    raise ConfigError(_TF_CONFIG_HELP)
  try:
    return tf.distribute.MultiWorkerMirroredStrategy()
  # If TensorFlow has computed something already, it is a RuntimeError.
  except (RuntimeError, tf.errors.OpError) as error:
    raise ConfigError(
      f'Worker {index} cannot join the others: {first_line(error)}'
    ) from error


def missing_gpu(root: str | os.PathLike = '/') -> str:
  """Why a GPU of this machine is not used; '' if it has none, or it is hidden.

  Args:
    root: Where the files of the machine's drivers are looked for.
  """
  signs = [pathlib.Path(root) / path for path in _GPU_SIGNS]
  found = [str(path) for path in signs if path.exists()]
  hidden = os.environ.get('CUDA_VISIBLE_DEVICES') in _NO_GPUS
  if not found or hidden:
    return ''
  build = tf.sysconfig.get_build_info()
  text = (
    f'This machine has an NVIDIA GPU ({found[0]}), but TensorFlow '
    f'{tf.__version__} sees none and computes on the CPU: '
  )
  if not build['is_cuda_build']:
    return text + 'it was built without CUDA.'
  return (
    f'{text}it needs the libraries of CUDA {build["cuda_version"]} and cuDNN '
    f'{build["cudnn_version"]}, for which it was built. See '
    'docs/troubleshooting.md, "A GPU is not used".'
  )


def describe(strategy: tf.distribute.Strategy, batch_size: int) -> str:
  """One line with replicas, this process's devices and batch sizes.

  Raises:
    ConfigError: If the batch does not divide over the replicas.
  """
  replicas = strategy.num_replicas_in_sync
  if batch_size % replicas:
    raise ConfigError(
      f'batch_size {batch_size} does not divide over {replicas} replicas.'
    )
  names = strategy.extended.worker_devices
  devices = [name.rpartition('device:')[2] for name in names]
  return (
    f'{replicas} replica(s), here on {", ".join(devices)}, batch {batch_size} '
    f'in all, {batch_size // replicas} each'
  )


def check_input(strategy: tf.distribute.Strategy, python: bool, name: str):
  """Refuses data that need Python where there is none.

  The hosts of a TPU pod slice run input pipelines, but no Python: one program,
  on the first of them, drives them all.

  Raises:
    ConfigError: If that cannot work.
  """
  hosts = getattr(strategy.extended, 'num_hosts', 1)
  if python and hosts > 1:
    raise ConfigError(
      f'{name} is read through Python, which {hosts} TPU hosts cannot do: take '
      'a TFDS data set large enough to be streamed, or the TPU of one host.'
    )
