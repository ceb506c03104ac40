"""Splits of folders: their usual names, and files held out by their names."""

import hashlib
import pathlib

from absl.testing import absltest, parameterized
import numpy as np
import PIL.Image

from vim_tf.data import errors, folder_splits, folders


class _FolderTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.create_tempdir().full_path)

  def write(self, *names: str):
    for name in names:
      path = self.root / name
      path.parent.mkdir(parents=True, exist_ok=True)
      PIL.Image.new('RGB', (2, 2)).save(path)

  def write_split(self, split: str, *classes: str, count: int = 12):
    self.write(*(f'{split}/{c}/{i}.png' for c in classes for i in range(count)))

  def files(self, split: str) -> list[str]:
    paths, labels, names = folders.list_images(str(self.root), split)
    found = [pathlib.Path(p).relative_to(self.root) for p in paths]
    parents = [path.parent.name for path in found]
    self.assertEqual([names[label] for label in labels], parents)
    return [path.as_posix() for path in found]

  def assert_refused(self, message: str, split: str = 'train'):
    with self.assertRaisesRegex(errors.DataError, message) as raised:
      folders.list_images(str(self.root), split)
    self.assertNotIn('\n', str(raised.exception))


class NamesTest(_FolderTest):
  @parameterized.parameters(
    ('train', 'validation'),
    ('train', 'val'),
    ('Train', 'valid'),
    ('TRAINING', 'Dev'),
    ('training', 'eval'),
    ('train', 'test'),
    ('Training', 'Testing'),
  )
  def test_usual_names(self, train, held_out):
    self.write_split(train, 'a', 'b')
    self.write_split(held_out, 'b', count=2)
    self.assertLen(self.files('train'), 24)
    self.assertEqual(
      self.files('validation'), [f'{held_out}/b/{i}.png' for i in range(2)]
    )

  def test_three_splits(self):
    self.write_split('train', 'a', 'b')
    self.write_split('val', 'a', count=2)
    self.write_split('test', 'b', count=3)
    (self.root / 'annotations').mkdir()
    self.assertLen(self.files('train'), 24)
    self.assertEqual(self.files('validation'), ['val/a/0.png', 'val/a/1.png'])
    self.assertEqual(self.files('test'), [f'test/b/{i}.png' for i in range(3)])

  def test_a_lone_train_is_no_class(self):
    self.write_split('Train', 'a', 'b')
    found = {split: self.files(split) for split in folders.SPLITS}
    self.assertLen(set(found['train']) | set(found['validation']), 24)
    # The same files are held out as if its classes had no folder around them.
    (self.root / 'Train').rename(self.root / 'inner')
    self.root = self.root / 'inner'
    for split, files in found.items():
      self.assertEqual([f'Train/{name}' for name in self.files(split)], files)

  def test_a_lone_train_of_images_alone(self):
    self.write(*(f'train/{i}.png' for i in range(12)))
    paths, _, names = folders.list_images(str(self.root), 'train')
    self.assertEqual(names, ('image',))
    self.assertLess(len(paths), 12)

  def test_trains_beside_cars_are_a_class(self):
    self.write(*(f'{c}/{i}.png' for c in ('car', 'train') for i in range(12)))
    _, _, names = folders.list_images(str(self.root), 'train')
    self.assertEqual(names, ('car', 'train'))

  @parameterized.parameters(
    (['train/a/0', 'val/a/0', 'valid/a/0'], 'has val, valid, which are one'),
    (['train/a/0', 'Train/a/0'], 'has Train, train, which are one'),
    (['train/a/0', 'val/a/0', 'cats/0'], 'has train, val beside cats: are'),
    (['cats/0', 'dogs/0', 'test/0'], 'has test beside cats, dogs: are'),
    (['val/a/0', 'val/a/1'], 'has val, but no train'),
    (['train/a/0', 'cats/0'], 'train has subfolders.* classes are beside'),
    (['cats/train/0', 'cats/val/0', 'dogs/train/0'], 'cats .* train, val ins'),
    (['pets/train/a/0', 'pets/val/a/0'], 'pets is that of a class, but has'),
    (['train/a/0', 'val/a/0', 'x'], 'beside and inside.* x.png: .* into train'),
  )
  def test_what_is_ambiguous_is_refused(self, names, message):
    self.write(*(f'{name}.png' for name in names))
    self.assert_refused(message)

  def test_a_class_that_is_not_trained_on(self):
    self.write('train/a/0.png', 'val/b/0.png')
    self.assert_refused('val has classes that .*train lacks: b', 'validation')

  def test_unknown_split(self):
    self.write_split('train', 'a')
    self.assert_refused("no split 'test'; it has train and validation", 'test')


class HoldOutTest(absltest.TestCase):
  def test_every_class_has_both(self):
    names = [f'{c:03}/{i:02}.png' for c in range(200) for i in range(20)]
    labels = np.repeat(np.arange(200), 20)
    held_out = folder_splits.hold_out(names, labels)
    counts = np.bincount(labels[held_out], minlength=200)
    self.assertGreaterEqual(counts.min(), 1)
    self.assertLess(counts.max(), 20)
    self.assertBetween(held_out.mean(), 0.08, 0.13)
    # Without help many a class has none: the test can fail.
    lowest = np.array([self.hash(name) < 0.1 for name in names])
    self.assertEqual(np.bincount(labels[lowest], minlength=200).min(), 0)
    # What the hash alone holds out stays held out.
    self.assertTrue(held_out[lowest].all())

  def test_files_that_are_added_move_no_training_file(self):
    rng = np.random.default_rng(0)
    given_way = 0
    for trial in range(60):
      names = np.array([f'{trial}/{i}.png' for i in rng.permutation(60)])
      hashes = np.array([self.hash(name) for name in names])
      first = 1 + np.flatnonzero(hashes >= 0.1)[1]  # Of two that had a choice.
      before = None
      for count in range(first, 61):
        held_out = folder_splits.hold_out(names[:count], np.zeros(count, int))
        self.assertBetween(held_out.sum(), 1, count - 1)
        if before is not None:
          old, new = before, held_out[: count - 1]
          self.assertFalse((new & ~old).any())
          moved = np.flatnonzero(old & ~new)
          given_way += len(moved)
          if len(moved):  # The only one, and the newest has a lower hash.
            self.assertEqual(old.sum(), 1)
            self.assertGreaterEqual(hashes[moved[0]], 0.1)
            self.assertLess(hashes[count - 1], hashes[moved[0]])
        before = held_out
    self.assertGreater(given_way, 0)

  def test_classes_do_not_touch_one_another(self):
    own = [f'a/{i}.png' for i in range(7)]
    alone = folder_splits.hold_out(own, np.zeros(7, int))
    for count in (1, 5, 50):
      names = [*own, *(f'b/{i}.png' for i in range(count))]
      labels = np.repeat([0, 1], [7, count])
      both = folder_splits.hold_out(names, labels)
      np.testing.assert_array_equal(both[:7], alone)

  def test_a_class_of_one_is_trained_on(self):
    low = next(n for n in map(str, range(99)) if self.hash(n) < 0.1)
    others = [n for n in map(str, range(99)) if self.hash(n) > 0.1][:4]
    held_out = folder_splits.hold_out([low, *others], np.array([0, 1, 1, 1, 1]))
    self.assertFalse(held_out[0])
    self.assertEqual(held_out.sum(), 1)

  def test_classes_of_one_alone_still_hold_one_out(self):
    held_out = folder_splits.hold_out(['a/0', 'b/0', 'c/0'], np.arange(3))
    self.assertEqual(held_out.sum(), 1)

  def hash(self, name: str) -> float:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return int(digest[:12], 16) / 16**12


if __name__ == '__main__':
  absltest.main()
