"""Tests of tools.ci.count_cases on events and reports as Bazel writes them."""

import json
import pathlib

from absl.testing import absltest

from tools.ci import count_cases

_XML = """\
<?xml version="1.0"?>
<testsuites><testsuite name="FooTest">
<testcase name="test_session" status="notrun" result="suppressed"/>
<testcase name="test_good" status="run" result="completed"/>
<testcase name="test_left_out" status="notrun" result="suppressed"/>
{more}
</testsuite></testsuites>
"""
_FAILURE = """\
<testcase name="test_bad" status="run" result="completed">
<failure message="no">Traceback</failure>
</testcase>
"""
_EMPTY = '<?xml version="1.0"?><testsuites><testsuite/></testsuites>'


class CountCasesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self._folder = pathlib.Path(self.create_tempdir().full_path)
    self._events = []

  def _add(self, label, status=None, xml=None, **key):
    """Adds a target and, where a status is given, a run of it."""
    self._events.append(
      {
        'id': {'targetConfigured': {'label': label}},
        'configured': {'targetKind': 'py_test rule', 'testSize': 'SMALL'},
      }
    )
    if status is None:
      return
    outputs = []
    if xml is not None:
      path = self._folder / f'{len(self._events)} test.xml'
      path.write_text(xml)
      outputs = [{'name': 'test.xml', 'uri': path.as_uri()}]
    self._events.append(
      {
        'id': {'testResult': {'label': label, **key}},
        'testResult': {'status': status, 'testActionOutput': outputs},
      }
    )

  def _count(self):
    path = self._folder / 'events.json'
    path.write_text('\n'.join(map(json.dumps, self._events)))
    return count_cases.count(str(path))

  def test_counts_cases_of_all_targets(self):
    self._add('//a:t', 'PASSED', _XML.format(more=''))
    self._add('//b:t', 'FAILED', _XML.format(more=_FAILURE))
    self.assertEqual(
      self._count(), count_cases.Counts(2, 1, 2, ['//b:t test_bad'])
    )

  def test_adds_up_shards(self):
    for shard in (1, 2):
      self._add('//a:t', 'PASSED', _XML.format(more=''), run=1, shard=shard)
    self.assertEqual(self._count()[:3], (2, 0, 2))

  def test_takes_the_last_attempt(self):
    more = {'run': 1, 'shard': 1}
    self._add('//a:t', 'FAILED', _XML.format(more=_FAILURE), attempt=1, **more)
    self._add('//a:t', 'PASSED', _XML.format(more=''), attempt=2, **more)
    self.assertEqual(self._count()[:3], (1, 0, 1))

  def test_failure_outside_of_cases(self):
    self._add('//a:t', 'TIMEOUT')
    self._add('//b:t', 'FAILED', _XML.format(more=''))
    self.assertEqual(
      self._count(),
      count_cases.Counts(1, 2, 1, ['//a:t timeout', '//b:t failed']),
    )

  def test_target_without_a_case_fails(self):
    self._add('//a:t', 'PASSED', _EMPTY)
    self._add('//b:t')
    self.assertEqual(
      self._count(),
      count_cases.Counts(0, 2, 0, ['//a:t ran no case', '//b:t was not run']),
    )

  def test_damaged_report_fails(self):
    self._add('//a:t', 'PASSED', '<testsuites>')
    counts = self._count()
    self.assertEqual(counts[:3], (0, 2, 0))
    self.assertIn('unreadable test.xml', counts.failures[0])


if __name__ == '__main__':
  absltest.main()
