"""Classes given by name, by ImageNet's words and by id."""

from absl.testing import absltest, parameterized
import tensorflow_datasets as tfds

from vim_tf.config import ConfigError
from vim_tf.data import imagenet
from vim_tf.jobs import class_names

_NUMBERED = ('0', '1', '10', '11', '2')  # Folders, in their order.
_NAMED = ('birds', 'Cats', 'cats', 'Dogs')


class ParseTest(parameterized.TestCase):
  def imagenet(self) -> tuple[str, ...]:
    builder = tfds.builder('imagenet2012', data_dir=self.create_tempdir())
    return tuple(builder.info.features['label'].names)

  @parameterized.parameters(
    (_NUMBERED, ['2', '10'], [4, 2], 'as names'),
    (_NUMBERED, ['0', '1'], [0, 1], ''),
    (_NUMBERED, ['2', '3'], [2, 3], "as ids: 2 \\('10'\\), 3 \\('11'\\)"),
    (_NAMED, ['DOGS', ' birds'], [3, 0], ''),
    (_NAMED, ['cats', 'Cats'], [2, 1], ''),
    (_NAMED, ['3', '0'], [3, 0], ''),
    (_NAMED, [], [0, 1, 2, 3], ''),
  )
  def test_names_first(self, names, wanted, ids, message):
    if message:
      with self.assertLogs('absl', 'WARNING') as logs:
        found = class_names.parse(wanted, names, len(names))
      self.assertRegex('\n'.join(logs.output), message)
    else:
      with self.assertNoLogs('absl', 'WARNING'):
        found = class_names.parse(wanted, names, len(names))
    self.assertEqual(found, ids)

  @parameterized.parameters(
    (_NUMBERED, ['2', '3', '10'], "such as '10', and ids, such as '3'"),
    (_NAMED, ['birds', '3'], "such as 'birds', and ids, such as '3'"),
    (_NAMED, ['mice'], "no class 'mice'; there are the ids 0 to 3: birds, C"),
    (_NAMED, ['birds', '-1'], "no class '-1'"),
    (_NAMED, ['4'], "no class '4'"),
    (_NAMED, ['²'], "no class '²'"),
    (_NAMED, [''], "no class ''"),
    (_NAMED, ['CATS'], "'CATS' may be any of the classes Cats, cats"),
  )
  def test_refusals(self, names, wanted, message):
    with self.assertRaisesRegex(ConfigError, message) as raised:
      class_names.parse(wanted, names, len(names))
    self.assertNotIn('\n', str(raised.exception))

  def test_words_of_imagenet(self):
    names = self.imagenet()
    wanted = ['tench', 'Goldfish', 'n01443537', 'Tinca tinca', 'toilet tissue']
    self.assertEqual(
      class_names.parse([*wanted, 'tench, Tinca tinca'], names, 1000),
      [0, 1, 1, 0, 999, 0],
    )
    with self.assertRaisesRegex(ConfigError, 'of .* n02012849, n03126707'):
      class_names.parse(['crane'], names, 1000)
    with self.assertRaisesRegex(ConfigError, '0 to 999: tench, goldfish, '):
      class_names.parse(['unicorn'], names, 1000)

  def test_every_class_of_imagenet_has_words(self):
    names = self.imagenet()
    self.assertTrue(all(map(imagenet.words, names)))
    for i, name in list(enumerate(names))[::10]:
      word = class_names.shown_name(name)
      try:
        self.assertEqual(class_names.parse([word], names, 1000), [i])
      except ConfigError as error:  # Words of several: their wnids are named.
        self.assertIn(name, str(error))
    self.assertEqual(class_names.shown_name('birds'), 'birds')


if __name__ == '__main__':
  absltest.main()
