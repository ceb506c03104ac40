"""Tests: the tree of what they test, mirrored."""
