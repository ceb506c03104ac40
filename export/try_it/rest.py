"""TF Serving's REST API over loaded models, and the web page at `/`."""

import asyncio
from concurrent import futures
import importlib.resources
import json
import re
import urllib.parse

from absl import logging
from aiohttp import web
from tensorflow_serving.apis import (
  classification_pb2,
  get_model_metadata_pb2,
  get_model_status_pb2,
  predict_pb2,
  regression_pb2,
)

from export import saved_model
from export.try_it import grpc_services, rest_json, servables
from export.try_it.servables import Code
from vim_tf import compat

# As model_servers/http_rest_api_util.cc has them, over path and query.
_WHICH = r'(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?'
_PATHS = {
  'GET': re.compile(
    rf'(?i)/v1/models(?:/(?P<name>[^/:]+))?{_WHICH}(?:/(?P<verb>metadata))?'
  ),
  'POST': re.compile(
    rf'(?i)/v1/models/(?P<name>[^/:]+){_WHICH}:'
    '(?P<verb>classify|regress|predict)'
  ),
}
_VERBS = {
  'classify': classification_pb2.ClassificationRequest,
  'regress': regression_pb2.RegressionRequest,
  'predict': predict_pb2.PredictRequest,
  'metadata': get_model_metadata_pb2.GetModelMetadataRequest,
}

# As model_servers/http_server.cc answers; the rest is 500.
_STATUSES = {'INVALID_ARGUMENT': 400, 'FAILED_PRECONDITION': 400,
             'OUT_OF_RANGE': 400, 'NOT_FOUND': 404, 'RESOURCE_EXHAUSTED': 429,
             'CANCELLED': 499, 'UNIMPLEMENTED': 501, 'UNAVAILABLE': 503,
             'DEADLINE_EXCEEDED': 504}  # fmt: skip

_LOOPBACK = re.compile(r'(?i)(localhost|127\.0\.0\.1|\[::1\])(:\d+)?')
_LARGEST_BODY = 256 * 2**20
_PATIENCE = 30.0  # Seconds that headers, and then a body, may take to come.

_PAGE = importlib.resources.files(__package__)
_KINDS = {'page.html': 'text/html', 'page.css': 'text/css',
          'page.js': 'text/javascript'}  # fmt: skip

# A signature that only the exports of this kind have.
_ROLES = {'tokenizer': 'reconstruct', 'sampler': 'complete',
          'probe': 'features'}  # fmt: skip


class Handler:
  """Answers REST and the page; requests run in `pool`, `seconds` at most."""

  def __init__(
    self, models: servables.Models, pool: futures.Executor, seconds: float
  ):
    self._models, self._pool, self._seconds = models, pool, seconds

  def runner(self) -> web.AppRunner:
    """What serves it, within an event loop."""
    app = web.Application(client_max_size=_LARGEST_BODY)
    app.router.add_route('*', '/{path:.*}', self.answer)
    return web.AppRunner(app, access_log=None, keepalive_timeout=_PATIENCE)

  async def answer(self, request: web.Request) -> web.Response:
    """The answer to any request."""
    path = request.raw_path  # With its query, as the real server looks at it.
    if not _LOOPBACK.fullmatch(request.headers.get('Host', '')):
      # Another site's name, which now leads here, does not reach the models.
      return _json({'error': 'Host must be localhost or 127.0.0.1.'}, 403)
    name = request.path[1:] or 'page.html'
    if request.method == 'GET' and name in _KINDS:
      text = (_PAGE / name).read_text()
      return web.Response(text=text, content_type=_KINDS[name])
    if request.method == 'GET' and name == 'page.json':
      return _json(_page_facts(self._models))
    if not re.match('(?i)/v1/', path):
      return _json({'error': f'There is nothing at {request.path}.'}, 404)
    if request.method == 'OPTIONS':
      origin = re.search('https?://', request.headers.get('Origin', ''))
      return web.Response(status=200 if origin else 400)
    try:
      body = await asyncio.wait_for(request.read(), _PATIENCE)
    except web.HTTPRequestEntityTooLarge as error:
      return _json({'error': error.text}, 413)
    except asyncio.TimeoutError:  # noqa: UP041 - of Python 3.10
      return _json({'error': 'The body did not come in time.'}, 408)
    except (web.RequestPayloadError, ConnectionError) as error:
      return _json({'error': f'The body cannot be read: {error}'}, 400)
    loop, work = asyncio.get_running_loop(), (request.method, path, body)
    try:
      return await loop.run_in_executor(self._pool, self._serve, *work)
    except servables.Refused as error:
      return _json({'error': str(error)}, _STATUSES.get(error.code.name, 500))
    except Exception as error:  # One request must not end the server.
      logging.exception('A request failed.')
      return _json({'error': str(error)}, 500)

  def _serve(self, method: str, path: str, body: bytes) -> web.Response:
    match = _PATHS[method].fullmatch(path) if method in _PATHS else None
    # Verbs in capitals match, too, but the real server then knows none.
    verb = match and (match['verb'] if match['verb'] in _VERBS else None)
    if not match or (method == 'POST' and not verb):
      raise servables.invalid(f'Malformed request: {method} {path}')
    if not match['name']:
      raise servables.invalid('Missing model name in request.')
    request = _VERBS.get(verb, get_model_status_pb2.GetModelStatusRequest)()
    _fill_spec(request.model_spec, match)
    if verb == 'predict':
      return _json(self._predict(request, rest_json.parse(body)))
    if verb == 'classify':
      rest_json.parse_examples(rest_json.parse(body), request)
      found = grpc_services.classify(self._models, request, self._seconds)
      rows = [row.classes for row in found.result.classifications]
      return _json({'results': [[[x.label, x.score] for x in y] for y in rows]})
    if verb == 'metadata':
      request.metadata_field.append(grpc_services.METADATA)
      found = grpc_services.metadata(self._models, request)
      packed = get_model_metadata_pb2.SignatureDefMap()
      found.metadata[grpc_services.METADATA].Unpack(packed)
      spec = compat.message_to_dict(found.model_spec)
      signatures = {'signature_def': compat.message_to_dict(packed)}
      return _json({'model_spec': spec, 'metadata': signatures})
    if verb:
      raise servables.Refused(Code.UNIMPLEMENTED, f'{verb} is not done here.')
    found = grpc_services.status(self._models, request)
    return _json(compat.message_to_dict(found))

  def _predict(self, request, body: dict) -> dict:
    request.model_spec.signature_name = body.get('signature_name', '')
    name = servables.signature_of(request)
    servable = self._models.find(request)
    definition = servable.definition(name, Code.INVALID_ARGUMENT)
    inputs = rest_json.parse_predict(body, definition)
    outputs = servable.predict(name, inputs, seconds=self._seconds)
    return rest_json.predict_result(outputs, 'instances' in body)


def _page_facts(models: servables.Models) -> dict:
  """By part ('tokenizer', ...) what the page must know of the model."""
  found = {}
  for name, model in models.by_name.items():
    servable = model.get()
    for role, signature in _ROLES.items():
      if servable and signature in servable.signature_defs:
        names = (servable.folder / saved_model.CLASS_NAMES_FILE).read_text()
        config = (servable.folder / saved_model.CONFIG_FILE).read_text()
        found[role] = {'name': name, 'version': servable.version}
        found[role]['class_names'] = names.splitlines()
        found[role]['config'] = json.loads(config)
  return found


def _json(value: dict, status: int = 200) -> web.Response:
  body = json.dumps(value).encode()
  return web.Response(body=body, status=status, content_type='application/json')


def _fill_spec(spec, match):
  spec.name = urllib.parse.unquote(match['name'])
  if match['label']:
    spec.version_label = urllib.parse.unquote(match['label'])
  try:
    if match['version']:
      spec.version.value = int(match['version'])
  except ValueError as error:  # It does not fit in 64 bits.
    raise servables.invalid('Failed to convert version to numeric.') from error
