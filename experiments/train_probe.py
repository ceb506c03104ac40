"""Trains linear probes on the blocks of a trained VIM (paper 4.2 and 5.3).

  ./bazelw run //experiments:train_probe -- \
    --workdir=runs/probe --vim=runs/vim --block=all --num_seeds=3

It prints a table and writes `figures.json` (one line, with the whole protocol)
and, where there are several blocks, `accuracy_by_block.png`. Images and their
size are those of the VIM's run. A run that was stopped goes on when it is
started again; --workdir is enough then.
"""

from absl import flags
from etils import epy

from experiments import flag_help
from experiments import flags as flags_lib
from vim_tf import presets
from vim_tf.config import BadExamples, ConfigError, ProbeConfig, Stage2Config
from vim_tf.training import workdir as workdir_lib

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from vim_tf.jobs import probe as probe_job
  from vim_tf.jobs import probe_figures

SETTINGS = flags_lib.settings_of(
  ProbeConfig, also={'steps': ('optimizer.decay_end',)}
)

flags_lib.define_run_flags(presets.PROBE, 'small')
for setting in SETTINGS:
  setting.define()
flags_lib.define(BadExamples, 'data')
flags.mark_flag_as_required('workdir')


_NO_VIM = (
  'No VIM was given: set --vim to the working directory of a stage-2 run.'
)


def preset(name: str) -> ProbeConfig:
  """A preset, made to fit the VIM."""
  if not flags.FLAGS.vim:
    raise ConfigError(_NO_VIM)
  vim = workdir_lib.read_config(flags.FLAGS.vim, 'vim', Stage2Config)
  return presets.probe(name, vim)


def main():
  """Probes, prints and writes."""
  config = flags_lib.config_from_flags(preset, SETTINGS, 'probe', ProbeConfig)
  if not config.vim:
    raise ConfigError(_NO_VIM)
  figures = probe_job.probe(
    config,
    flags.FLAGS.workdir,
    flags_lib.strategy(),
    flags.FLAGS.on_bad_example,
  )
  print('\n'.join(['', *probe_figures.table(figures)]))


if __name__ == '__main__':
  flags_lib.run(
    main,
    SETTINGS,
    flag_help.Presets(
      # What is of the VIM's run is not told.
      lambda name: presets.probe(name, presets.stage2('tiny')),
      presets.ABOUT_PROBE,
      (
        *('block', 'passes', 'baselines', 'smallest_l2', 'largest_l2'),
        *('run.num_steps', 'run.batch_size', 'optimizer.learning_rate'),
      ),
      {
        setting.flag: "the VIM's"
        for setting in SETTINGS
        if setting.paths[0].startswith('data.')
      },
    ),
  )
