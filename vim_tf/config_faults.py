"""What a run does about faults that are not its own."""

import dataclasses

from vim_tf.config_checks import check_choice

ON_BAD_EXAMPLE = ('stop', 'skip')
ON_NON_FINITE = ('stop', 'restore')


@dataclasses.dataclass(frozen=True)
class Faults:
  """What to do; not a part of a run's config, because a resumed run may change.

  Attributes:
    on_bad_example: At an image or a record that cannot be read: 'stop', or
      'skip' it, so that another example stands in for it.
    on_non_finite: At a loss that is infinite or not a number: 'stop', or
      'restore' the last checkpoint and leave out the data since then.
  """

  on_bad_example: str = 'stop'
  on_non_finite: str = 'stop'

  def __post_init__(self):
    check_choice('on_bad_example', self.on_bad_example, ON_BAD_EXAMPLE)
    check_choice('on_non_finite', self.on_non_finite, ON_NON_FINITE)


STOP = Faults()
