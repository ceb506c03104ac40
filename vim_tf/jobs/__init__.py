"""What one does with the models: a config in, a result out."""
