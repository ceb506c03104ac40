"""The whole method in one sitting, and its report."""
