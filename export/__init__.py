"""SavedModels for TF Serving, and a loopback server to try them with."""
