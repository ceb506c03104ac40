"""Weights of other projects, turned into working directories."""
