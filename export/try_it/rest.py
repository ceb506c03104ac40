"""TF Serving's REST API over loaded models, and the web page at `/`."""

import http
import http.server
import importlib.resources
import json
import re

from absl import logging
from tensorflow_serving.apis import input_pb2

from export import saved_model, signatures
from export.try_it import grpc_services, rest_json, servables
from vim_tf import compat

_MODEL = re.compile(
  r'/v1/models/(?P<name>[^/:]+)(/versions/(?P<version>\d+))?'
  r'(?P<verb>:predict|:classify|/metadata)?'
)
_LARGEST_BODY = 512 * 2**20
_PAGE = importlib.resources.files(__package__).joinpath('page.html')

# A signature that only the exports of this kind have.
_ROLES = {
  'tokenizer': 'reconstruct',
  'sampler': 'complete',
  'probe': 'features',
}


class Server(http.server.ThreadingHTTPServer):
  """Serves the REST API and the page on the loopback interface.

  Args:
    port: The port; 0: any free one.
    models: What is served.
  """

  daemon_threads = True
  request_queue_size = 512  # Clients that connect at once.

  def __init__(self, port: int, models: servables.Models):
    super().__init__(('127.0.0.1', port), _Handler)
    self.models = models


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'
  server: Server

  def do_GET(self):
    """Answers status, metadata and the page."""
    path = self.path.partition('?')[0]
    if path == '/':
      self._send(
        http.HTTPStatus.OK, _PAGE.read_bytes(), 'text/html; charset=utf-8'
      )
    elif path == '/page.json':
      self._answer(lambda: page_facts(self.server.models))
    else:
      self._answer(lambda: self._get(path))

  def do_POST(self):
    """Answers predict and classify."""
    # Read in any case, so that the connection can be used again.
    length = self.headers.get('Content-Length', '')
    if not length.isdigit() or int(length) > _LARGEST_BODY:
      self.close_connection = True
      self._answer(lambda: _refuse('Content-Length is missing or too large.'))
      return
    body = self.rfile.read(int(length))
    self._answer(lambda: self._post(self.path.partition('?')[0], body))

  def _get(self, path: str) -> dict:
    model, version, verb, name = self._find(path)
    if verb is None:
      return compat.message_to_dict(grpc_services.model_status(model, version))
    if verb != '/metadata':
      raise servables.NotFound(f'{verb} of {name} is asked for with POST.')
    servable = model.get(version)
    return {
      'model_spec': {
        'name': servable.name,
        'signature_name': '',
        'version': str(servable.version),
      },
      'metadata': {
        'signature_def': compat.message_to_dict(
          grpc_services.signature_map(servable)
        )
      },
    }

  def _post(self, path: str, body: bytes) -> dict:
    model, version, verb, name = self._find(path)
    if verb not in (':predict', ':classify'):
      raise servables.NotFound(f'{name} is asked with :predict or :classify.')
    servable = model.get(version)
    try:
      request = json.loads(body)
    except (ValueError, RecursionError) as error:
      raise servables.InvalidRequest(
        f'The request is not JSON: {error}.'
      ) from error
    if not isinstance(request, dict):
      raise servables.InvalidRequest('The request is not a JSON object.')
    signature = request.get('signature_name') or signatures.SERVE
    if not isinstance(signature, str):
      raise servables.InvalidRequest('signature_name is not a string.')
    definition = servable.definition(signature)
    if verb == ':classify':
      examples = input_pb2.Input()
      examples.example_list.examples.extend(rest_json.parse_examples(request))
      classes, scores = servable.classify(signature, examples)
      return {
        'result': [
          [[label.decode(), float(value)] for label, value in zip(*row)]
          for row in zip(classes, scores)
        ]
      }
    outputs = servable.predict(
      signature, rest_json.parse_predict(request, definition)
    )
    return rest_json.predict_result(outputs, rest_json.INSTANCES in request)

  def _find(self, path: str):
    match = _MODEL.fullmatch(path)
    if not match:
      raise servables.NotFound(f'There is nothing at {path}.')
    version = match['version']
    return (
      self.server.models[match['name']],
      int(version) if version else None,
      match['verb'],
      match['name'],
    )

  def _answer(self, make):
    status = http.HTTPStatus.OK
    try:
      value = make()
    except servables.InvalidRequest as error:
      status, value = http.HTTPStatus.BAD_REQUEST, {'error': str(error)}
    except servables.NotFound as error:
      status, value = http.HTTPStatus.NOT_FOUND, {'error': error.args[0]}
    except Exception as error:  # One request must not end the server.
      logging.exception('A request failed.')
      status = http.HTTPStatus.INTERNAL_SERVER_ERROR
      value = {'error': str(error)}
    self._send(status, json.dumps(value).encode(), 'application/json')

  def _send(self, status: http.HTTPStatus, body: bytes, kind: str):
    try:
      self.send_response(status)
      self.send_header('Content-Type', kind)
      self.send_header('Content-Length', str(len(body)))
      self.end_headers()
      self.wfile.write(body)
    except ConnectionError:  # The client has gone.
      self.close_connection = True

  def log_message(self, format, *args):  # noqa: A002
    """Keeps quiet: only what fails is told."""


def page_facts(models: servables.Models) -> dict:
  """What the page must know: which model has which part, classes, sizes.

  Returns:
    By part ('tokenizer', 'sampler', 'probe') the model's 'name', its
    'class_names' and the exported 'config'; parts that are not served are
    left out.
  """
  found = {}
  for model in models.by_name.values():
    try:
      servable = model.get()
    except servables.NotFound:
      continue
    for role, signature in _ROLES.items():
      if signature in servable.signature_defs:
        found[role] = {
          'name': model.name,
          'version': servable.version,
          'class_names': (servable.folder / saved_model.CLASS_NAMES_FILE)
          .read_text()
          .splitlines(),
          'config': json.loads(
            (servable.folder / saved_model.CONFIG_FILE).read_text()
          ),
        }
  return found


def _refuse(message: str):
  raise servables.InvalidRequest(message)
