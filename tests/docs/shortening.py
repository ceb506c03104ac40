"""The documents' commands made short: what is run instead of hours.

Lengths and sizes are lowered, the data that nobody has are replaced, and a TPU
is this machine's CPU. Every other flag stays as it is written.
"""

import os
import pathlib

from tests.docs import pages

_LENGTHS = {
  'batch_size': 16,
  'checkpoint_every': 5,
  'count': 1,
  'crops': 2,
  'decay_end': 5,
  'eval_every': 5,
  'init_step': 1,
  'log_every': 5,
  'num_samples': 8,
  'num_seeds': 1,
  'passes': 1,
  'picture_every': 5,
  'revival_interval': 1,
  'revival_steps': 2,
  'steps': 5,
  'adversarial_start_step': 2,
  'perceptual_start_step': 2,
}
"""What numbers are lowered to: a run of five steps meets every kind of step."""

_REPLACED = {
  'accumulate': '2',  # Parts of a batch of four, or of `lowering`'s two.
  'batches': '2',  # Of `lowering`.
  'models': 'tiny',
  'preset': 'tiny',
  'strategy': 'one_device',
}

_LONGER = {'steps': 7, 'decay_end': 7}
"""Of a run that goes on after those five."""

_TRAINING = {'preset': 'tiny', 'steps': 5, 'batch_size': 4, 'eval_examples': 4}
_WEIGHTS = {'perceptual_weight': 0.1, 'adversarial_weight': 0.1}
_ADDED = {
  '--data=digits': {
    'train_split': 'train[:80]',
    'eval_split': 'validation[:60]',
  },
  '--data=openmoji': {'train_split': 'train[:80]'},
  '--data=imagenet2012': {'data_dir': '{imagenet}'},
  'train_vit_vqgan': _TRAINING,
  'train_vim': _TRAINING,
  'train_probe': {'preset': 'tiny', 'steps': 5, 'num_l2': 2},
  'perceptual_start_step': _WEIGHTS,  # Which `tiny` has at 0.
  'adversarial_start_step': _WEIGHTS,
  'sample': {'count': 1},
  '--job=reconstruction': {'network': '', 'perceptual': 'false'},
  '--job=generation': {'network': 'file:{coarse}', 'num_samples': 8},
  '--job=likelihood': {'passes': 1},
  'sampling_study': {
    'network': 'file:{coarse}',
    'classifier': 'head:file:{fine}',
    'num_samples': 8,
    'guidance_scales': '1,2',
    'acceptance_rates': '1,0.5',
  },
  'benchmark': {
    'sizes': 'tiny',
    'seconds': 0,
    'calls': 1,
    'rows': '^(lookup|input_memory)$',
  },
  'lowering': {'models': 'tiny'},
}
"""Flags that a command does not have, by its binary or a flag that it has."""

_LEFT_OUT = {
  'threads',  # Of a process that has computed; benchmark_test starts one.
}

_PATHS = {
  *('base', 'checkpoint', 'codes', 'complete', 'data_dir', 'from_json'),
  *('finetune_decoder_of', 'logdir', 'out', 'probes', 'save_reference'),
  *('source', 'tokenizer', 'vim', 'workdir'),
}


def shorten(
  command: pages.Command, folder: pathlib.Path, places: dict[str, pathlib.Path]
) -> tuple[str, ...]:
  """The arguments that a command is run with.

  Args:
    command: A command that runs a binary.
    folder: Where it is run: absolute paths become those below it.
    places: What `stand_ins.make` gave.
  """
  words = [
    _short(word, folder, places)
    for word in command.arguments
    if _flag(word) not in _LEFT_OUT
  ]
  given = {_flag(word) for word in words}
  if command.name.startswith('train_') and given <= {'workdir', *_LONGER}:
    return *words[:1], *(f'--{flag}={n}' for flag, n in _LONGER.items())
  if 'finetune_decoder_of' in given:
    given.add('preset')  # Its default is the other run's settings.
  if 'from_json' in given:
    given.add('count')  # The file says it.
  keys = [command.name, *sorted(given), *command.arguments]
  if command.name == 'train_vit_vqgan':
    if given.isdisjoint(('data', 'finetune_decoder_of')):
      keys.append('--data=openmoji')  # The default.
  added = set(given)
  for key in keys:
    for flag, value in _ADDED.get(key, {}).items():
      if flag not in added:
        words.append(f'--{flag}={value}'.format(**places))
        added.add(flag)
  return tuple(words)


def _flag(word: str) -> str:
  return word.partition('=')[0].removeprefix('--')


def _short(word, folder, places) -> str:
  """One word of a command."""
  flag, equals, value = word.partition('=')
  name = _flag(word)
  if not equals or name == 'set':
    return word
  value = os.path.expandvars(value)
  if name in _LENGTHS and value.isdigit():
    value = str(min(int(value), _LENGTHS[name]))
  elif name == 'data_dir':
    value = str(places['imagenet'])
  value = _REPLACED.get(name, value)
  kind, colon, path = value.rpartition(':')
  if path.startswith('/') and not path.startswith(str(folder.parent)):
    value = f'{kind}{colon}{folder}{path}'
  return f'{flag}={value}'


def what_it_is(arguments: tuple[str, ...]) -> tuple[str, ...]:
  """What two shortened commands share that differ in names of files alone."""
  kept = []
  for word in arguments:
    flag, _, value = word.partition('=')
    if _flag(word) in _PATHS:
      value = ''
    elif value.startswith('folder:'):
      value = 'folder:'
    kept.append(f'{flag}={value}')
  return tuple(sorted(kept))


def paths(arguments: tuple[str, ...]) -> dict[str, str]:
  """The files that shortened arguments name, by their flags."""
  found = {}
  for word in arguments:
    if _flag(word) in _PATHS:
      found[_flag(word)] = word.partition('=')[2]
  return found
