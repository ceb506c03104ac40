"""Work and memory of programs, counted without running them."""
