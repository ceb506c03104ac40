"""What a replica runs, compiled by the TPU's own compiler without a TPU."""
