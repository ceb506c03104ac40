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
from vim_tf.config import ConfigError, Stage2Config
from vim_tf.config_probe import ProbeConfig
from vim_tf.training import workdir as workdir_lib

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from vim_tf.jobs import probe as probe_job
  from vim_tf.jobs import probe_figures

_DATA = ('data', 'data_dir', 'train_split', 'eval_split', 'crop', 'max_shift')
_RUN = ('seed', 'batch_size', 'log_every', 'checkpoint_every')
_OPTIMIZER = ('learning_rate', 'warmup_steps', 'weight_decay')

SETTINGS = (
  *(setting for setting in flags_lib.RUN if setting.flag in _RUN),
  flags_lib.Setting(
    'steps',
    ('run.num_steps', 'optimizer.decay_end'),
    '[run] Training steps, over which the learning rate falls.',
  ),
  *(setting for setting in flags_lib.DATA if setting.flag in (*_DATA, 'flip')),
  *(setting for setting in flags_lib.OPTIMIZER if setting.flag in _OPTIMIZER),
  flags_lib.Setting('vim', ('vim',), '[model] Working directory of the VIM.'),
  flags_lib.Setting(
    'tokenizer',
    ('tokenizer',),
    '[model] Where its tokenizer lies now; unset: where it lay then.',
  ),
  flags_lib.Setting(
    'block',
    ('block',),
    '[probe] Index of a block, from 0; best: chosen on a part of the training '
    'images; all: every block is measured (4.2, figure 3).',
  ),
  flags_lib.Setting(
    'passes',
    ('passes',),
    '[probe] Augmented passes over the training images, beside their centre '
    'crops.',
  ),
  flags_lib.Setting(
    'views',
    ('views',),
    '[probe] What is measured of validation and held-out images: their center '
    'crops, or augmented ones, as many as passes.',
  ),
  flags_lib.Setting(
    'normalize',
    ('normalize',),
    '[probe] standardize features by the training images, or none.',
  ),
  flags_lib.Setting(
    'num_seeds', ('num_seeds',), '[probe] Seeds, from --seed on, to average.'
  ),
  flags_lib.Setting(
    'labels_per_class',
    ('labels_per_class',),
    '[probe] Labelled training images of each class; 0: all.',
  ),
  flags_lib.Setting(
    'validation_share',
    ('validation_share',),
    '[probe] Share of the training images that chooses block and penalty.',
  ),
  flags_lib.Setting(
    'smallest_l2',
    ('smallest_l2',),
    '[probe] Weakest penalty on squared weights to try.',
  ),
  flags_lib.Setting(
    'largest_l2', ('largest_l2',), '[probe] Strongest of them.'
  ),
  flags_lib.Setting('num_l2', ('num_l2',), '[probe] How many of them.'),
  flags_lib.Setting(
    'baselines',
    ('baselines',),
    '[probe] true: also raw pixels, codes and an untrained VIM.',
    boolean=True,
  ),
  flags_lib.Setting(
    'network',
    ('network',),
    '[probe] Network trained on ImageNet as the ceiling: efficientnet_lite0, '
    'inception, inception:PATH or file:PATH; empty: none.',
  ),
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
      dict.fromkeys((*_DATA, 'flip'), "the VIM's"),
    ),
  )
