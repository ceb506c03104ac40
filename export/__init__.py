"""SavedModels for TF Serving, one module an exporter."""

import experiments as experiments  # How programs start and are interrupted.
