"""Measures of reconstructions, codes and samples, and their baselines."""
