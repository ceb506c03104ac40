"""A stand-in for TF Serving, with a page to try exports."""
