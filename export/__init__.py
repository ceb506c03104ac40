"""SavedModels for TF Serving, one module an exporter."""
