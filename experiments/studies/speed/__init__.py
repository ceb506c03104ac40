"""How fast the work is, against what the machine can do."""
