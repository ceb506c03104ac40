"""Images for training and evaluation: sources, decoding, pipeline."""
