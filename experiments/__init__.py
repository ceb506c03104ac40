"""The binaries: flags in, a config out, one call into vim_tf."""

import os

# TensorFlow's C++ side greets every start with lines that say nothing is wrong.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
