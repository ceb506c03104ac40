"""The exports in a C++ session, asked rightly, wrongly and at random.

What right requests come to, `exports_test` compares with the library.
"""

import tensorflow as tf

from tests.export import asked, c_api


class CApiTest(tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.found, cls.memory = asked.answers()

  def test_wrong_requests_are_refused_in_one_line(self):
    for row, expected, (code, text, _) in self.found['wrong']:
      self.assertEqual(code, c_api.INVALID_ARGUMENT, row)
      self.assertIn(expected, text.splitlines()[0], row)

  def test_odd_shapes_and_numbers(self):
    for kind in ('shapes', 'numbers'):
      refused = 0
      for row, right, (code, text, _) in self.found[kind]:
        if right:
          self.assertEqual(code, c_api.OK, (row, text))
          continue
        refused += 1
        self.assertEqual(code, c_api.INVALID_ARGUMENT, row)
        self.assertIn('assertion failed: [', text.splitlines()[0])
      self.assertBetween(refused, asked.FUZZ // 4, asked.FUZZ - 1)

  def test_damaged_files(self):
    refused = 0
    for row, _, (code, text, _) in self.found['files']:
      if code != c_api.OK:
        refused += 1
        self.assertEqual(code, c_api.INVALID_ARGUMENT, (row, text))
        if row[1] != 'classify':  # TensorFlow parses its examples.
          self.assertIn('[example 1: ', text.splitlines()[0])
    self.assertBetween(refused, asked.FUZZ // 4, asked.FUZZ - 1)

  def test_memory_stays(self):
    early, late = self.memory
    self.assertLess(late, 1.05 * early)


if __name__ == '__main__':
  tf.test.main()
