"""What differs between the TensorFlows that this code runs on.

The reference is 2.15 with its own Keras 2; from 2.16 on Keras 2 is the package
tf_keras, which `tf.keras` stands for once TF_USE_LEGACY_KERAS is set. All other
code says `tf.keras` and `tf`.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
import types


def _tensorflow() -> tuple[str, tuple[int, int]]:
  """The package that is installed and its version, without importing it."""
  for package in ('tensorflow', 'tensorflow-tpu', 'tensorflow-cpu'):
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      major, minor, *_ = importlib.metadata.version(package).split('.')
      return package, (int(major), int(minor))
  return 'tensorflow', (0, 0)  # Whoever imports it will be told.


TENSORFLOW, _VERSION = _tensorflow()

KERAS = 'tf-keras' if _VERSION >= (2, 16) else 'keras'
"""The package that is Keras 2 here."""

HAS_HOST_XLA = TENSORFLOW != 'tensorflow-tpu'
"""Whether XLA compiles for the CPU, too; the TPUs' build knows only them."""

if KERAS == 'tf-keras':
  # TensorFlow reads it as it is imported.
  os.environ.setdefault('TF_USE_LEGACY_KERAS', '1')


def versions() -> dict[str, str]:
  """Those of the packages that what a run writes may depend on."""
  packages = (TENSORFLOW, KERAS, 'tensorflow-datasets', 'numpy')
  return {name: importlib.metadata.version(name) for name in packages}


_PACKAGES = {'tensorflow_gan': '', 'tensorflow_gan.python': 'python'}


def tfgan(name: str) -> types.ModuleType:
  """A module of TF-GAN, loaded without the rest of it.

  Its packages import `tf.estimator`, which TensorFlow 2.16 dropped and which
  takes a second where it is; its losses and distances do not need it.

  Args:
    name: The module within `tensorflow_gan.python`, such as 'eval'.
  """
  whole = f'tensorflow_gan.python.{name}'
  if whole in sys.modules:
    return sys.modules[whole]
  before = {n: sys.modules.get(n) for n in _PACKAGES}
  (root,) = importlib.util.find_spec(
    'tensorflow_gan'
  ).submodule_search_locations
  for package, folder in _PACKAGES.items():
    sys.modules[package] = types.ModuleType(package)
    sys.modules[package].__path__ = [os.path.join(root, folder)]
  try:
    return importlib.import_module(whole)
  finally:  # Who imports TF-GAN itself shall get all of it.
    for package, module in before.items():
      if module is None:
        del sys.modules[package]
      else:
        sys.modules[package] = module


def message_to_dict(message) -> dict:
  """A proto as JSON values, with the fields that hold their defaults.

  The option for those has had another name since protobuf 5.26.
  """
  from google.protobuf import json_format

  names = inspect.signature(json_format.MessageToDict).parameters
  newer = 'always_print_fields_with_no_presence'
  option = newer if newer in names else 'including_default_value_fields'
  return json_format.MessageToDict(
    message, preserving_proto_field_name=True, **{option: True}
  )
