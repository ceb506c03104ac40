"""Instruments: measurements beyond a single run."""
