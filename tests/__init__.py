"""Tests: the tree of what they test, mirrored."""

from vim_tf import compat as compat  # Before TensorFlow is imported.
