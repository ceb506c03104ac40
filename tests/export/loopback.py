"""The loopback server of tiny exports, in a thread of its own."""

import asyncio
import logging
import pathlib
import threading
import types

from export.try_it import servables, serve


def _quietly():
  # Not the subject here, and most of a first request's time.
  rewriting = servables.SESSION.graph_options.rewrite_options
  rewriting.disable_meta_optimizer = True
  for name in ('aiohttp', 'grpc'):  # They tell of broken requests.
    logging.getLogger(name).setLevel('CRITICAL')


def _configs(bases):
  return serve.find_models([f'{x}={base}' for x, base in bases.items()], '')


def start(bases: dict[str, pathlib.Path], seconds: float = 600.0):
  """A server that runs in a thread of its own; `stop` ends it."""
  _quietly()
  models = servables.Models(_configs(bases))
  loop, ready = asyncio.new_event_loop(), threading.Event()
  found = types.SimpleNamespace(models=models)

  def tell(*ports):
    found.port, found.rest_port = ports
    ready.set()

  task = loop.create_task(serve.serve(models, 0, 0, tell, 0.2, seconds))
  task.add_done_callback(lambda _: ready.set())
  thread = threading.Thread(
    target=loop.run_until_complete, args=[asyncio.wait([task])]
  )
  thread.start()
  ready.wait()
  if task.done():
    task.result()  # Raises what was wrong.

  def stop():
    loop.call_soon_threadsafe(task.cancel)
    thread.join()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()

  found.stop = stop
  return found
