"""ViT-VQGAN and VIM (Yu et al., ICLR 2022) in TensorFlow and Keras.

  import vim_tf

  run = vim_tf.load('runs/vim')  # Tokenizer, VIM and class names.
  images = run.sample(['Flags'] * 8, seeds=range(8), guidance_scale=2.0)
  codes = run.tokenizer.encode(images)

`load` opens the working directory of any run; `ViTVQGAN` and `VIM` are the
Keras models, `presets` the paper's sizes and recipes, and `vim_tf.jobs` holds
what the programs call: to train, encode, evaluate, sample and probe.

TensorFlow is imported when one of them is asked for.
"""

import importlib
import typing

from vim_tf import compat as compat  # Before TensorFlow is imported.

if typing.TYPE_CHECKING:
  from vim_tf import presets as presets
  from vim_tf.jobs.load import load as load
  from vim_tf.vim.model import VIM as VIM
  from vim_tf.vit_vqgan.model import ViTVQGAN as ViTVQGAN

_FROM = {
  'VIM': ('vim_tf.vim.model', 'VIM'),
  'ViTVQGAN': ('vim_tf.vit_vqgan.model', 'ViTVQGAN'),
  'load': ('vim_tf.jobs.load', 'load'),
  'presets': ('vim_tf.presets', None),
}


def __getattr__(name: str):
  if name not in _FROM:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module, attribute = _FROM[name]
  found = importlib.import_module(module)
  return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
  return sorted({*globals(), *_FROM})
