"""Calls exported signatures in a process that knows nothing of the project.

  python -I fresh_process.py CALLS RESULTS

CALLS is a pickle of (folder, signature, inputs) rows. Each is called after
`tf.saved_model.load`, and through a `tf.compat.v1` Session with the tag
'serve', which is how a server loads a model. RESULTS becomes a pickle of the
outputs, one pair a row.
"""

import importlib.util
import os
import pickle
import sys


def _call_all(calls):
  import tensorflow as tf

  # One way runs the graphs as they are, the other one optimises them first.
  tf.config.optimizer.set_experimental_options({'disable_meta_optimizer': True})
  results = [[] for _ in calls]
  for folder in sorted({folder for folder, _, _ in calls}):
    rows = [i for i, call in enumerate(calls) if call[0] == folder]
    loaded = tf.saved_model.load(folder)
    for i in rows:
      _, name, inputs = calls[i]
      outputs = loaded.signatures[name](
        **{key: tf.constant(value) for key, value in inputs.items()}
      )
      results[i].append({key: x.numpy() for key, x in outputs.items()})
    with tf.compat.v1.Session(
      graph=tf.Graph(), config=tf.compat.v1.ConfigProto()
    ) as session:
      graph = tf.compat.v1.saved_model.load(session, ['serve'], folder)
      for i in rows:
        _, name, inputs = calls[i]
        signature = graph.signature_def[name]
        results[i].append(
          session.run(
            {key: info.name for key, info in signature.outputs.items()},
            {signature.inputs[key].name: x for key, x in inputs.items()},
          )
        )
  return results


def main():
  """Does what the module says."""
  for name in ('vim_tf', 'export'):
    assert importlib.util.find_spec(name) is None, f'{name} can be imported.'
  os.environ['TF_CPP_MIN_LOG_LEVEL'] = '2'
  with open(sys.argv[1], 'rb') as file:
    calls = pickle.load(file)
  results = _call_all(calls)
  with open(sys.argv[2], 'wb') as file:
    pickle.dump(results, file)


if __name__ == '__main__':
  main()
