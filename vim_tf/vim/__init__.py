"""VIM, stage 2: a decoder-only Transformer over codes, and its sampler."""
