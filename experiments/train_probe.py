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
from vim_tf.config import ConfigError, ProbeConfig, Stage2Config
from vim_tf.training import workdir as workdir_lib

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  import tensorflow as tf

  from vim_tf.data import sources
  from vim_tf.jobs import probe as probe_job
  from vim_tf.jobs import probe_figures, restore

SETTINGS = flags_lib.settings_of(
  ProbeConfig, also={'steps': ('optimizer.decay_end',)}
)

flags_lib.define_run_flags(presets.PROBE, 'small')
for setting in SETTINGS:
  setting.define()
flags_lib.define_bad_example_flag()
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
  strategy = flags_lib.strategy()
  if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
    raise ConfigError('A probe runs on one machine: give another --strategy.')
  tokenizer, vim = restore.both(config.vim, config.tokenizer)
  path = flags.FLAGS.workdir
  outcomes = probe_job.sweep(
    tokenizer,
    vim,
    *(
      sources.load(config.data, split, flags.FLAGS.on_bad_example)
      for split in (config.data.train_split, config.data.eval_split)
    ),
    config,
    path,
    strategy,
  )
  figures = probe_figures.write(path, outcomes, tokenizer, vim, config)
  print('\n'.join(['', *probe_figures.in_words(figures)]))


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
