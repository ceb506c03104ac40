"""SavedModels for TF Serving, one module an exporter."""

import os

# TensorFlow's C++ side greets every start with lines that say nothing is wrong.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
