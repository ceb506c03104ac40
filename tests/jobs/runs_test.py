"""What is said of schedules that do not fit the number of steps."""

from absl.testing import absltest

from vim_tf import presets
from vim_tf.config import replace
from vim_tf.jobs import runs


class NotesTest(absltest.TestCase):
  def notes(self, config, **changes):
    changes = {key.replace('__', '.'): str(x) for key, x in changes.items()}
    return runs.schedule_notes(replace(config, changes))

  def test_every_preset_fits_its_steps(self):
    for name in presets.STAGE1:
      self.assertEqual(self.notes(presets.stage1(name)), [], name)
    for name in presets.STAGE2:
      self.assertEqual(self.notes(presets.stage2(name)), [], name)

  def test_a_short_run(self):
    config = presets.stage1('small')
    found = self.notes(config, run__num_steps=150)
    self.assertLen(found, 4)
    for note, text in zip(
      found,
      (
        '--decay_end=150 ',
        '--perceptual_start_step',
        '--adversarial_start_step',
        '--init_step',
      ),
    ):
      self.assertIn(text, note)
      self.assertNotIn('\n', note)
    kept = self.notes(
      config,
      run__num_steps=150,
      optimizer__decay='constant',
      losses__perceptual=0,
      losses__adversarial=0,
      codebook__init_from_data='false',
      codebook__init_step=0,
    )
    self.assertEqual(kept, [])

  def test_the_last_step_counts(self):
    config = presets.stage1('small')
    steps = config.perceptual.start_step
    for more, expected in ((0, 2), (1, 0)):
      found = self.notes(
        config,
        run__num_steps=steps + more,
        optimizer__decay_end=steps + more,
      )
      self.assertLen(found, expected)

  def test_a_long_run(self):
    for config in (presets.stage1('small'), presets.stage2('vim_base')):
      (found,) = self.notes(config, run__num_steps=10**6)
      self.assertIn('--decay_end=1000000 ', found)


if __name__ == '__main__':
  absltest.main()
