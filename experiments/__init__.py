"""The binaries: flags in, a config out, one call into vim_tf."""
