"""Files and folders are there whole or not at all."""

import hashlib
import os
import pathlib

from absl.testing import absltest

from vim_tf import files


class FilesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.create_tempdir().full_path)
    self.path = self.root / 'x'

  def test_a_file_takes_the_place_of_another(self):
    self.path.write_text('old')
    with files.new_file(self.path) as one, files.new_file(self.path) as other:
      one.write_text('one')
      other.write_text('other')
      self.assertEqual(self.path.read_text(), 'old')
      self.assertTrue(all(map(files.is_unfinished, (one.name, other.name))))
    self.assertEqual(self.path.read_text(), 'one')  # The last one to end.
    self.assertEqual(os.listdir(self.root), ['x'])

  def test_a_file_that_fails_changes_nothing(self):
    self.path.write_text('old')
    with self.assertRaises(ZeroDivisionError):
      with files.new_file(self.path) as new:
        new.write_text('half')
        raise ZeroDivisionError
    self.assertEqual(self.path.read_text(), 'old')
    self.assertEqual(os.listdir(self.root), ['x'])

  def test_of_two_folders_the_first_stays(self):
    with self.assertRaises(OSError):
      with files.new_folder(self.path) as late:
        (late / 'late').touch()
        with files.new_folder(self.path) as new:
          (new / 'first').touch()
    self.assertEqual(os.listdir(self.path), ['first'])
    self.assertEqual(os.listdir(self.root), ['x'])

  def test_what_was_killed_can_be_removed(self):
    for make in (files.new_file, files.new_folder):
      context = make(self.path)
      new = context.__enter__()
      if make is files.new_file:
        new.touch()
      else:
        (new / 'half').touch()
      self.assertTrue(new.exists())
      self.path.touch()
      files.remove_unfinished(self.root)
      self.assertEqual(os.listdir(self.root), ['x'])

  def test_a_known_file(self):
    digest = hashlib.sha256(b'abc').hexdigest()
    with self.assertRaisesRegex(ValueError, 'W cannot be read.*No such.*: do'):
      files.read_known(self.path, digest, 'W', 'do')
    self.path.write_text('abc')
    found = files.read_known(self.path, digest.upper(), 'W', 'do')
    self.assertEqual(found, b'abc')
    with self.assertRaisesRegex(ValueError, f'{digest}, but ff is .*: do'):
      files.read_known(self.path, 'FF', 'W', 'do')


if __name__ == '__main__':
  absltest.main()
