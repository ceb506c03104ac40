"""The documents' commands that are run by a test of their own, or by none."""

import dataclasses
import re

from tests.docs import pages


@dataclasses.dataclass(frozen=True)
class Elsewhere:
  """Commands that are not run as they stand.

  Attributes:
    pattern: Regular expression that their text begins with, or the text after
      `./bazelw run`.
    why: Why not.
    test: Label of the test that runs what it is about, if there is one.
    file: The document; empty: any.
  """

  pattern: str
  why: str
  test: str = ''
  file: str = ''

  def holds(self, command: pages.Command) -> bool:
    text = command.text.removeprefix('./bazelw run ')
    return self.file in ('', command.file) and bool(
      re.match(self.pattern, text)
    )


OWN_DATA = '//tests/docs:own_data_test'

_NO_CLOUD = 'There is no Google Cloud where tests run.'
_NO_NETWORK = 'Tests have no network.'
_NO_END = 'It does not end.'
_OWN_TEST = 'It has a test of its own, with its flags.'

ALL = (
  # Other tests.
  Elsewhere('//tools:api_docs', _OWN_TEST, '//tests/tools:api_docs_test'),
  Elsewhere(
    '//experiments:quickstart', _OWN_TEST, '//tests/experiments:quickstart_test'
  ),
  Elsewhere(
    '//experiments/studies/ablations',
    _OWN_TEST,
    '//tests/experiments:ablations_test',
  ),
  Elsewhere(
    '//experiments/studies/speed -- --rows=(sampling|export_sampler_request)',
    'Some of its rows are run there, and each of its flags.',
    '//tests/experiments:benchmark_test',
  ),
  Elsewhere(
    '//tools:python .*saved_model_cli',
    'It is run there, and held against what the page shows.',
    '//tests:export_test',
  ),
  Elsewhere('//export/try_it:serve', _NO_END, '//tests:export_test'),
  Elsewhere(
    '//tests:page_picture',
    'It needs Chromium and a server; that page is driven there.',
    '//tests:export_test',
  ),
  Elsewhere(
    'curl -s localhost',
    'They are asked of a server there.',
    '//tests:export_test',
  ),
  Elsewhere(
    '//tests/faults:suite',
    'It takes up to an hour; the faults that need no kill are tried there.',
    '//tests/faults:single_test',
  ),
  # Tests that are run by hand.
  Elsewhere(
    'tensorflow_model_server',
    'It is not installed.',
    '//tests:real_server_test',
  ),
  Elsewhere(
    r'(//experiments:encode_dataset_beam|beam/bin/python -m)',
    'Beam is an environment of its own.',
    '//tests/experiments:beam_encoding_test',
  ),
  Elsewhere(
    r'(export TF_CONFIG=|//experiments:train_vit_vqgan -- --strategy=multi)',
    'It is for two machines.',
    '//tests/experiments:multi_worker_test',
  ),
  # None.
  Elsewhere('docker run', _NO_NETWORK),
  Elsewhere('curl -fsSL https:', _NO_NETWORK),
  Elsewhere('echo "deb', _NO_NETWORK),
  Elsewhere('sudo apt-get', _NO_NETWORK),
  Elsewhere('git clone', _NO_NETWORK),
  Elsewhere('pip install', _NO_NETWORK),
  Elsewhere('python3.11 -m venv', 'It makes an environment to fill by pip.'),
  Elsewhere('python -c', 'It shows the version that a TPU VM has.'),
  Elsewhere('gcloud', _NO_CLOUD),
  Elsewhere('tar cf', _NO_CLOUD),
  Elsewhere('export TPU_NAME', _NO_CLOUD),
  Elsewhere(
    r'python -m \S+ --strategy=tpu --tpu=vim', f'{_NO_CLOUD} It is cut short.'
  ),
  Elsewhere('while true', 'It starts a run again and again.'),
  # What is left of a page that is walked on its own.
  Elsewhere('', 'Walked from end to end there.', OWN_DATA, 'docs/own_data.md'),
)


def find(command: pages.Command) -> Elsewhere | None:
  """What is said of a command; None: it is run as it stands."""
  return next((one for one in ALL if one.holds(command)), None)
