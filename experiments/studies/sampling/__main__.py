"""How guidance and rejection change the samples of one VIM, as curves.

  ./bazelw run //experiments/studies/sampling -- \
    --workdir=runs/vim --out=study --num_samples=180

Two sweeps at fixed seeds: over the guidance scale without rejection, and over
the acceptance rate at --guidance_scale. Each point is scored as `evaluate
--job=generation` scores samples: distances from the training images over a
feature network, classifier scores, precision and recall, and how often a
classifier that the model never met recognises the class. The network that
selects is never the one that scores. It writes `study.json` and `study.png`.

With --num_sets=N every point is scored N times, with other seeds each time. Its
figures are the means, beside those of each set: how far they lie apart tells a
trend from chance, and as each set has --num_samples images, the distances stay
comparable with those of as many real images, which more samples' do not.

The points of the second sweep share their candidates: those of a rate are
among those of any lower one, so that each is drawn and classified once.
"""

from __future__ import annotations

import dataclasses
import math
import time

from absl import flags, logging
from etils import epy
import numpy as np

from experiments import flags as flags_lib
from experiments import sampling_flags
from vim_tf import config as config_lib
from vim_tf import protocols
from vim_tf.config import ConfigError
from vim_tf.jobs import output
from vim_tf.training import workdir as workdir_lib
from vim_tf.vim import rejection

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  import tensorflow as tf

  from experiments.studies.sampling import figure as study_figure
  from vim_tf.data import images as images_lib
  from vim_tf.jobs import evaluate_samples, references, restore
  from vim_tf.jobs import sample as sample_job
  from vim_tf.metrics import classifiers

WORKDIR = flags.DEFINE_string(
  'workdir', None, '[model] Working directory of a stage-2 run.', required=True
)
TOKENIZER = flags.DEFINE_string(
  'tokenizer', '', '[model] Its stage-1 run, if that was moved.'
)
OUT = flags.DEFINE_string(
  'out', None, '[output] New or empty folder for the results.', required=True
)
NUM_SETS = flags.DEFINE_integer(
  'num_sets', 1, '[what] Sets of samples of each point.', lower_bound=1
)
GUIDANCE_SCALES = flags.DEFINE_list(
  'guidance_scales', ['0', '1', '1.5', '2', '3', '4'], '[what] First sweep.'
)
ACCEPTANCE_RATES = flags.DEFINE_list(
  'acceptance_rates', ['1', '0.5', '0.25', '0.1'], '[what] Second sweep.'
)
sampling_flags.define()
flags_lib.define(protocols.SamplesProtocol, 'what')
DATA = flags_lib.settings_of(
  config_lib.Stage2Config, ('data', 'data_dir', 'train_split', 'eval_split')
)
for _setting in DATA:
  _setting.define()

FILE = 'study.json'


def main():
  """Draws and scores all points, then writes."""
  scales = _numbers('guidance_scales', GUIDANCE_SCALES.value)
  rates = _numbers('acceptance_rates', ACCEPTANCE_RATES.value)
  for rate in rates:
    rejection.check_acceptance(rate)
  if flags.FLAGS['acceptance'].present:
    raise ConfigError('--acceptance is swept: set --acceptance_rates.')
  base = flags_lib.read(config_lib.SamplingConfig)
  configs = [dataclasses.replace(base, guidance_scale=x) for x in scales]
  with output.new_folder(OUT.value) as out:
    study = _measure(base, configs, rates)
    workdir_lib.write_json(out / FILE, study)
    study_figure.draw(study, out / 'study.png')
    logging.info('The study is in %s.', out)


def _measure(base, configs, rates) -> dict:
  """Both sweeps, over `configs` and `rates`."""
  tokenizer, vim = restore.both(
    WORKDIR.value,
    TOKENIZER.value,
    restore.policy(flags.FLAGS[sampling_flags.PRECISION].value),
  )
  sample_job.warn(max(x.guidance_scale for x in configs), vim.config)
  changes = flags_lib.changes_from_flags(DATA)
  protocol = dataclasses.replace(
    flags_lib.read(protocols.SamplesProtocol, sampling=base),
    data=config_lib.replace(vim.config, changes).data,
    acceptance=min(rates),
  )
  references.check_conditional(vim)
  started = time.monotonic()
  bench = evaluate_samples.prepare(
    tokenizer, vim, protocol, references.heads_folder(WORKDIR.value)
  )
  # No seed is in two sets: see `rejection.candidates`.
  stride = protocol.num_samples * math.ceil(1 / min(rates))
  sets = [
    dataclasses.replace(protocol, seed=protocol.seed + i * stride)
    for i in range(NUM_SETS.value)
  ]
  return {
    'guidance': means([_sweep_guidance(bench, one, configs) for one in sets]),
    'acceptance': means([_sweep_acceptance(bench, one, rates) for one in sets]),
    'baselines': bench.baselines,
    'protocol': {
      'num_samples': protocol.num_samples,
      'seeds': [one.seed for one in sets],
      'sampling': vars(base),
      **bench.facts,
      **evaluate_samples.selection_facts(bench),
    },
    'seconds': round(time.monotonic() - started, 1),
  }


def _sweep_guidance(bench, protocol, configs) -> list[dict]:
  points = []
  for config in configs:
    kept = evaluate_samples.draw(
      bench, dataclasses.replace(protocol, sampling=config, acceptance=1.0)
    )
    points.append(
      {
        'guidance_scale': config.guidance_scale,
        **bench.evaluator.score(kept.images, bench.ids),
      }
    )
    _log('guidance scale', config.guidance_scale, points[-1])
  return points


def _sweep_acceptance(bench, protocol, rates) -> list[dict]:
  """Points of one guidance scale, whose candidates are shared."""
  draw = Remembered(bench.sampler, bench.classifier, protocol)
  points = []
  for rate in rates:
    kept = rejection.sample(
      draw.draw,
      draw.score,
      bench.ids,
      seed=protocol.seed,
      acceptance=rate,
      batch_size=protocol.batch_size,
    )
    points.append(
      {
        'acceptance': rate,
        'num_candidates': kept.num_candidates,
        **bench.evaluator.score(kept.images, bench.ids),
      }
    )
    _log('acceptance', rate, points[-1])
  return points


def means(sweeps: list[list[dict]]) -> list[dict]:
  """The points of several sets of samples as those of one.

  Args:
    sweeps: The same points of each set, in the same order.

  Returns:
    Points with the mean of every figure; if there are several sets, 'sets' has
    the figures of each, by their flat names, without the single classes.
  """
  points = []
  for rows in zip(*sweeps, strict=True):
    point = tf.nest.map_structure(_mean, *rows)
    if len(rows) > 1:
      of_sets = [workdir_lib.flat(row) for row in rows]
      point['sets'] = {
        name: [row[name] for row in of_sets]
        for name in of_sets[0]
        if 'by_class' not in name and len({row[name] for row in of_sets}) > 1
      }
    points.append(point)
  return points


def _mean(*values):
  """The mean; what is the same in all stays as it is."""
  return values[0] if len(set(values)) == 1 else float(np.mean(values))


@dataclasses.dataclass
class Remembered:
  """Draws and classifies every (class, seed) once."""

  sampler: sample_job.Sampler
  classifier: classifiers.Classifier
  protocol: protocols.SamplesProtocol
  drawn: dict = dataclasses.field(default_factory=dict)
  scores: dict = dataclasses.field(default_factory=dict)
  last: list = dataclasses.field(default_factory=list)

  def draw(self, ids, seeds) -> tuple[np.ndarray, np.ndarray]:
    """Codes and images, as `rejection.Draw` gives them."""
    keys = list(zip(ids.tolist(), seeds.tolist()))
    if any(key not in self.drawn for key in keys):
      found = self.sampler(ids, seeds, self.protocol.sampling)
      self.drawn.update(zip(keys, zip(*found)))
    self.last = keys
    codes, images = zip(*(self.drawn[key] for key in keys))
    return np.stack(codes), np.stack(images)

  def score(self, images) -> np.ndarray:
    """Class probabilities of the batch that was drawn last."""
    keys = self.last
    if any(key not in self.scores for key in keys):
      found = self.classifier(images_lib.from_uint8(images))
      self.scores.update(zip(keys, found))
    return np.stack([self.scores[key] for key in keys])


def _numbers(flag: str, texts: list[str]) -> list[float]:
  try:
    numbers = [float(text) for text in texts]
  except ValueError as error:
    raise ConfigError(
      f'--{flag} is {",".join(texts)}, but must be numbers with commas.'
    ) from error
  if not numbers:
    raise ConfigError(f'--{flag} is empty; give at least one number.')
  return numbers


def _log(name: str, value: float, point: dict):
  parts = [
    f'{key} {point[key]:.4g}'
    for key in point
    if key.startswith(('gfd_', 'gkd_', 'is_', 'class_')) and 'error' not in key
  ]
  logging.info(
    '%s %g: recognised %.1f%%, %s.',
    name,
    value,
    100 * point['recognition']['accuracy'],
    ', '.join(parts),
  )


if __name__ == '__main__':
  flags_lib.run(main, DATA)
