"""SavedModels for TF Serving, and a loopback server to try them with."""

import sys


def _interrupted(kind, *rest):
  """Ctrl-C while the imports last, before `binary.run` sees to it."""
  if issubclass(kind, KeyboardInterrupt):
    print('Ctrl-C: stopping.', file=sys.stderr)
  else:
    sys.__excepthook__(kind, *rest)


sys.excepthook = _interrupted
