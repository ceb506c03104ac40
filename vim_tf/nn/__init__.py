"""The shared Transformer: attention, blocks, positions, randomness."""
