"""ViT-VQGAN and VIM (Yu et al., ICLR 2022) in TensorFlow and Keras."""

from vim_tf import compat as compat  # Before TensorFlow is imported.
