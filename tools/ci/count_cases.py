"""Counts the test cases of a Bazel run from its build events.

Usage: python3 count_cases.py EVENTS, with EVENTS written by
`bazel test --build_event_json_file=EVENTS`, or the test.xml of a single run.
Prints three numbers on one line: passed, failed and skipped cases. What failed
is named on standard error.

Bazel itself counts targets. It also reports as passed a target that ran no
case at all, for example for want of a `main()`: here that is a failure.
"""

import json
import pathlib
import sys
from typing import NamedTuple
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ElementTree

# tf.test.TestCase has this helper, which looks like a case and skips itself.
_NO_CASE = 'test_session'


class Counts(NamedTuple):
  """Numbers of test cases, and a line for each failure."""

  passed: int
  failed: int
  skipped: int
  failures: list[str]


class _Run(NamedTuple):
  """One run of a shard of a test target."""

  status: str
  xml: str | None


def _read_events(path: str) -> tuple[set[str], dict[tuple, _Run]]:
  """Reads the test targets, and the last attempt of each of their runs."""
  targets = set()
  runs = {}
  with open(path, encoding='utf-8') as lines:
    for line in lines:
      event = json.loads(line)
      kind = event.get('configured', {}).get('targetKind', '')
      if kind.endswith('_test rule'):
        targets.add(event['id']['targetConfigured']['label'])
      if 'testResult' not in event:
        continue
      key = event['id']['testResult']
      result = event['testResult']
      outputs = {
        output['name']: output.get('uri')
        for output in result.get('testActionOutput', [])
      }
      # Attempts come in order: a later one takes the place of an earlier.
      runs[key['label'], key.get('run'), key.get('shard')] = _Run(
        result['status'], outputs.get('test.xml')
      )
  return targets, runs


def _count_xml(label: str, uri: str) -> Counts:
  """Counts the cases of one test.xml."""
  path = urllib.request.url2pathname(urllib.parse.urlparse(uri).path)
  passed = skipped = 0
  failures = []
  for case in ElementTree.parse(path).getroot().iter('testcase'):
    name = case.get('name', '?')
    if name == _NO_CASE:
      continue
    if case.find('failure') is not None or case.find('error') is not None:
      failures.append(f'{label} {name}')
    elif case.get('status') == 'notrun' or case.find('skipped') is not None:
      skipped += 1
    else:
      passed += 1
  return Counts(passed, len(failures), skipped, failures)


def count(path: str) -> Counts:
  """Counts the test cases of a run.

  Args:
    path: path of the build event file, in JSON.

  Returns:
    The counts. A target that was not built, ran no case, or failed outside of
    its cases (a crash, a time-out) is one failed case.
  """
  targets, runs = _read_events(path)
  passed = skipped = 0
  failures = []
  cases = dict.fromkeys(targets, 0)
  for (label, _, _), run in sorted(runs.items(), key=str):
    counts = Counts(0, 0, 0, [])
    if run.xml:
      try:
        counts = _count_xml(label, run.xml)
      except (OSError, ElementTree.ParseError) as error:
        failures.append(f'{label} has an unreadable test.xml: {error}')
    passed += counts.passed
    skipped += counts.skipped
    failures += counts.failures
    cases[label] = (
      cases.get(label, 0) + counts.passed + counts.failed + counts.skipped
    )
    if run.status not in ('PASSED', 'FLAKY') and not counts.failures:
      failures.append(f'{label} {run.status.lower()}')
      cases[label] += 1
  for label, number in sorted(cases.items()):
    if not number:
      built = any(key[0] == label for key in runs)
      failures.append(f'{label} {"ran no case" if built else "was not run"}')
  return Counts(passed, len(failures), skipped, failures)


def main() -> None:
  """Prints the counts of the file named on the command line."""
  if len(sys.argv) != 2:
    sys.exit('usage: count_cases.py EVENTS')
  path = pathlib.Path(sys.argv[1]).absolute()
  if path.suffix == '.xml':
    counts = _count_xml(path.stem, path.as_uri())
  else:
    counts = count(str(path))
  for failure in counts.failures:
    print(f'FAILED: {failure}', file=sys.stderr)
  print(counts.passed, counts.failed, counts.skipped)


if __name__ == '__main__':
  main()
