"""The binaries: flags in, a config out, one call into vim_tf."""

import os
import sys
import warnings

from vim_tf import compat as compat  # Before TensorFlow is imported.

# TensorFlow's C++ side greets every start with lines that say nothing is wrong.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

# Nor is it that Google will drop the Python of its own TPU images, one day.
warnings.filterwarnings('ignore', module=r'google\.api_core')


def _interrupted(kind, *rest):
  """Ctrl-C while the imports last, before `flags.run` sees to it."""
  if issubclass(kind, KeyboardInterrupt):
    print('Ctrl-C: stopping.', file=sys.stderr)
  else:
    sys.__excepthook__(kind, *rest)


sys.excepthook = _interrupted
