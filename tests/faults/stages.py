"""Tiny runs of every stage, to be killed and started again."""

from collections.abc import Callable
import dataclasses
import functools
import pathlib

from experiments.quickstart import budgets
from tests.experiments import tiny_runs
from vim_tf import presets
from vim_tf.config import replace
from vim_tf.data import sources
from vim_tf.jobs import probe as probe_job
from vim_tf.jobs import restore, train_tokenizer, train_vim
from vim_tf.training import strategy as strategy_lib

STEPS = 120
_EVERY = 3
_RUN = {
  'run.num_steps': str(STEPS),
  'run.batch_size': '4',
  'run.deterministic': 'true',
  'run.steps_per_loop': '2',
  'run.log_every': '2',
  'run.eval_every': '0',
  'run.picture_every': '0',
  'run.checkpoint_every': str(_EVERY),
  'run.keep_checkpoints': '2',
}
_EMA = {'optimizer.ema_decay': '0.9'}
_QUICKSTART_STEPS = 60
_QUICKSTART_RUN = {
  'run.deterministic': 'true',
  'run.steps_per_loop': '2',
  'run.log_every': '2',
  'run.checkpoint_every': str(_EVERY),
  'run.eval_every': str(_QUICKSTART_STEPS // 2),
  'run.picture_every': str(_QUICKSTART_STEPS // 2),
}


@dataclasses.dataclass(frozen=True)
class Stage:
  """One kind of run.

  Attributes:
    name: What the summary calls it.
    train: Trains to the end, or goes on, in the folder that it is given.
    workdirs: Where below that folder runs leave checkpoints.
  """

  name: str
  train: Callable[[pathlib.Path], object]
  workdirs: tuple[str, ...] = ('',)


def prepare(root: pathlib.Path):
  """Images, and runs of both stages to build on; lets TensorFlow compute."""
  tiny_runs.make_images(root / 'images')
  tiny_runs.make_tokenizer(root / 'tokenizer', root / 'images')
  tiny_runs.make_vim(root / 'vim', root / 'images', root / 'tokenizer')


def all_stages(root: pathlib.Path) -> dict[str, Stage]:
  """Every stage by name, on what `prepare` made in `root`."""
  return {
    stage.name: stage
    for stage in (
      Stage('stage1', functools.partial(_stage1, root)),
      Stage('stage2', functools.partial(_stage2, root)),
      Stage(
        'probe',
        functools.partial(_probe, root),
        ('seed-0/choice', 'seed-0/final'),
      ),
      Stage(
        'quickstart',
        _quickstart,
        ('tokenizer', 'vim'),
      ),
    )
  }


def _stage1(root, path):
  config = replace(
    presets.stage1('tiny'),
    {
      **_RUN,
      **_EMA,
      'data.name': f'folder:{root / "images"}',
      'model.encoder.num_blocks': '1',
      'model.decoder.num_blocks': '1',
      'codebook.revival_interval': '5',
      'codebook.revival_steps': '1000',
      'optimizer.decay_end': str(STEPS),
    },
  )
  train_tokenizer.train(config, str(path), strategy_lib.make('one_device'))


def _stage2(root, path):
  config = replace(
    presets.stage2('tiny'),
    {
      **_RUN,
      **_EMA,
      'data.name': f'folder:{root / "images"}',
      'tokenizer': str(root / 'tokenizer'),
      'model.transformer.num_blocks': '1',
      'model.num_classes': '2',
      'optimizer.decay_end': str(STEPS),
    },
  )
  train_vim.train(config, str(path), strategy_lib.make('one_device'))


def _probe(root, path):
  tokenizer, vim = restore.both(root / 'vim', str(root / 'tokenizer'))
  config = replace(
    presets.probe('tiny', vim.config),
    {
      **_RUN,
      'optimizer.decay_end': str(STEPS),
      'vim': str(root / 'vim'),
      'baselines': 'false',
      'block': '0',
    },
  )
  probe_job.sweep(
    tokenizer,
    vim,
    sources.load(config.data, 'train'),
    sources.load(config.data, 'validation'),
    config,
    path,
    strategy_lib.make('one_device'),
  )


def _quickstart(path):
  """The training of `quickstart --budget=tiny`, both stages in one folder.

  It is longer than there, so that there are as many moments to kill it.
  """
  budget = dataclasses.replace(
    budgets.BUDGETS['tiny'],
    tokenizer_steps=_QUICKSTART_STEPS,
    vim_steps=_QUICKSTART_STEPS,
  )
  strategy = strategy_lib.make('one_device')
  first = budget.stage1(str(path.parent / 'data'), 'float32')
  first = replace(first, _QUICKSTART_RUN)
  train_tokenizer.train(first, str(path / 'tokenizer'), strategy)
  second = budget.stage2(first, str(path / 'tokenizer'))
  second = replace(second, _QUICKSTART_RUN)
  train_vim.train(second, str(path / 'vim'), strategy)
