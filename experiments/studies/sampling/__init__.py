"""How guidance and rejection change samples."""
