"""Tests that 2 and 4 replicas measure, draw, encode and probe as one does.

A process can reduce over one number of replicas alone: in two shards
(TEST_TOTAL_SHARDS=2) each has the tests of one.
"""

import functools

from absl.testing import parameterized
import tensorflow as tf

from tests import testing
from tests.experiments import tiny_runs
from tests.jobs import comparing
from vim_tf import presets, protocols
from vim_tf.config import SamplingConfig, replace
from vim_tf.data import codes as codes_lib
from vim_tf.data import pipeline, sources
from vim_tf.jobs import encode as encode_job
from vim_tf.jobs import (
  evaluate_likelihood,
  evaluate_reconstructions,
  evaluate_samples,
  restore,
  train_tokenizer,
  train_vim,
)
from vim_tf.jobs import probe as probe_job
from vim_tf.jobs import sample as sample_job
from vim_tf.training import workdir as workdir_lib

CPU_DEVICES = 4


class JobsTest(parameterized.TestCase, tf.test.TestCase):
  """All that runs a model without training it.

  The held-out images are 11 and the batches 4 and 64, so that the last ones are
  short, and do not divide over the replicas.
  """

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root = testing.new_folder('spread')
    cls.runs = tiny_runs.shared()
    for name, network in (
      ('means', tiny_runs.Means(2)),
      ('brightness', tiny_runs.Brightness()),
    ):
      tf.saved_model.save(network, str(cls.root / name))

  @classmethod
  @functools.cache
  def _expected(cls, job: str):
    return getattr(cls, f'_{job}')(1, f'{job}-1')

  @classmethod
  def _restored(cls, replicas: int):
    with comparing.strategy(replicas).scope():
      return restore.both(cls.runs.vim)

  @classmethod
  def _in_training(cls, replicas: int, name: str):
    tokenizer, vim = cls._restored(replicas)
    data = tokenizer.config.data
    source = sources.load(data, data.eval_split)
    found = []
    for figures in (
      train_tokenizer.Figures(tokenizer.model),
      train_vim.Figures(vim.model, tokenizer.model),
    ):
      batches = pipeline.evaluation_batches(
        source, data, batch_size=figures.batch_size
      )
      found.append(figures(batches))
    return found

  @classmethod
  def _reconstruction(cls, replicas: int, name: str):
    tokenizer, _ = cls._restored(replicas)
    result, picture = evaluate_reconstructions.evaluate(
      tokenizer,
      protocols.ReconstructionProtocol(
        batch_size=4, network=f'file:{cls.root}/means', precisions=True
      ),
    )
    return result['figures'], picture

  @classmethod
  def _likelihood(cls, replicas: int, name: str):
    models = cls._restored(replicas)
    return evaluate_likelihood.evaluate(
      *models, protocols.LikelihoodProtocol(batch_size=4, passes=1)
    )['figures']

  @classmethod
  def _generation(cls, replicas: int, name: str):
    result, _ = evaluate_samples.evaluate(
      *cls._restored(replicas),
      protocols.SamplesProtocol(
        num_samples=11,
        batch_size=4,
        acceptance=0.5,
        classifier=f'file:{cls.root}/brightness',
        network='efficientnet_lite0',
      ),
    )
    return result['figures']

  @classmethod
  def _encode(cls, replicas: int, name: str):
    tokenizer, _ = cls._restored(replicas)
    encode_job.encode(tokenizer, cls.root / name, crops=2, batch_size=6)
    return codes_lib.Cache(cls.root / name).fingerprint

  @classmethod
  def _sample(cls, replicas: int, name: str):
    out = cls.root / name
    sample_job.sample(
      cls.runs.vim,
      out,
      count=3,
      batch_size=4,
      config=SamplingConfig(guidance_scale=1.5),
      complete=str(next((cls.runs.images / 'train').glob('*/*.png'))),
      keep_rows=1,
      strategy=comparing.strategy(replicas),
    )
    again = out.with_name(f'{name}-again')
    sample_job.sample_again(
      out / 'samples.json', cls.runs.vim, again, strategy=comparing.strategy(1)
    )
    rows = [workdir_lib.read_json(x / 'samples.json') for x in (out, again)]
    assert rows[0]['samples'] == rows[1]['samples']
    return [row['codes'] for row in rows[0]['samples']]

  @classmethod
  def _probe(cls, replicas: int, name: str):
    vim = restore.vim(cls.runs.unconditional)
    config = replace(
      presets.probe('tiny', vim.config),
      {
        'vim': str(cls.runs.unconditional),
        'network': 'efficientnet_lite0',
        'run.num_steps': '20',
        'run.batch_size': '8',
      },
    )
    return probe_job.probe(
      config, cls.root / name, comparing.strategy(replicas)
    )

  @parameterized.product(
    job=(
      'in_training',
      'reconstruction',
      'likelihood',
      'generation',
      'encode',
      'sample',
      'probe',
    ),
    replicas=(2, CPU_DEVICES),
  )
  def test_equal_to_one(self, job, replicas):
    found = getattr(self, f'_{job}')(replicas, f'{job}-{replicas}')
    ours, theirs = map(_numbers, (found, self._expected(job)))
    self.assertEqual(ours.keys(), theirs.keys())
    for key, value in theirs.items():
      if value is None or isinstance(value, str):
        self.assertEqual(ours[key], value, key)
      else:
        self.assertAllClose(ours[key], value, 1e-5, 1e-5, key)


def _numbers(value, name: str = '') -> dict:
  """The leaves of a result by where they stand."""
  if isinstance(value, dict):
    items = value.items()
  elif isinstance(value, (list, tuple)):
    items = enumerate(value)
  else:
    return {name: value}
  found = {}
  for key, item in items:
    found.update(_numbers(item, f'{name}/{key}'))
  return found


if __name__ == '__main__':
  testing.main(CPU_DEVICES)
